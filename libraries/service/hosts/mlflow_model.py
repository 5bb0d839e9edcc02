"""A bundle as an MLflow model: one folder with the bundle, the code that runs it, and its requirements."""

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from libraries.base.run_records import PackedModel
from libraries.base.storage import sha256
from libraries.service.tutorial import COLUMN

_CODE = Path(__file__).parents[2]
_MODEL = Path(__file__).with_name("pyfunc.py")


def pack(bundle: Path, *, name: str, requirements: Path) -> PackedModel:
    """A bundle for the run history, as a model that `mlflow models serve` can serve.

    Args:
        requirements: file with the packages that a service needs; the model requires the versions installed here.
    """
    packages = installed(requirements)
    content = {path.relative_to(root).as_posix(): sha256(path) for root, path in _files(bundle)}
    fingerprint = hashlib.sha256(json.dumps([content, packages], sort_keys=True).encode()).hexdigest()
    save = partial(_save, bundle=bundle, packages=packages)
    return PackedModel(name, fingerprint, save)


def installed(requirements: Path) -> list[str]:
    """The packages of a requirements file, each pinned to the installed version, if it is installed."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [_pinned(line) for line in lines if line]


def _pinned(line: str) -> str:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    requirement = Requirement(line)
    with contextlib.suppress(metadata.PackageNotFoundError):
        requirement.specifier = SpecifierSet(f"=={metadata.version(requirement.name)}")
    return str(requirement)


def _files(bundle: Path) -> Iterator[tuple[Path, Path]]:
    """Every file of the model, after the folder that its name is relative to."""
    yield from ((bundle.parent, path) for path in sorted(bundle.iterdir()))
    yield from ((_CODE.parent, path) for path in sorted(_CODE.rglob("*")) if _is_code(path))


def _is_code(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _save(path: Path, *, bundle: Path, packages: Sequence[str], mlflow_model: Any) -> None:
    """Write the model into a folder that does not exist yet."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    mlflow.pyfunc.save_model(
        path,
        mlflow_model=mlflow_model,
        python_model=_MODEL,
        artifacts={"bundle": str(bundle)},
        code_paths=[str(_CODE)],
        signature=ModelSignature(inputs=Schema([ColSpec("string", COLUMN)])),
        input_example=pd.DataFrame({COLUMN: [_example()]}),
        pip_requirements=list(packages),
    )


def _example() -> str:
    """A grey image, as base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8), 127).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
