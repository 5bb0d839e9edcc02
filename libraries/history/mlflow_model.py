"""A bundle as an MLflow model: one folder with the bundle, the code that runs it, and its requirements."""

import base64
import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from libraries.base.storage import sha256
from libraries.service.base64_json import COLUMN

_CODE = Path(__file__).parents[1]
_MODEL = Path(__file__).with_name("pyfunc.py")
_REQUIREMENTS = _CODE.parent / "requirements-serve.txt"  # of a service; the versions installed here are required


def fingerprint(bundle: Path) -> str:
    """Identifies the model of a bundle: its files, the code, and the packages that it requires."""
    content = {name: sha256(path) for name, path in _files(bundle)}
    return hashlib.sha256(json.dumps([content, installed(_REQUIREMENTS)], sort_keys=True).encode()).hexdigest()


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


def _files(bundle: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the model, after its name."""
    for path in sorted(bundle.iterdir()):
        yield f"bundle/{path.name}", path
    for path in filter(_is_code, sorted(_CODE.rglob("*"))):
        yield path.relative_to(_CODE.parent).as_posix(), path


def _is_code(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def save(path: Path, bundle: Path, *, mlflow_model: Any) -> None:
    """Write the model, which `mlflow models serve` can serve, into a folder that does not exist yet.

    Args:
        mlflow_model: MLflow's description of it, a `mlflow.models.Model`, which is completed and written.
    """
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
        pip_requirements=installed(_REQUIREMENTS),
    )


def _example() -> str:
    """A grey image, as base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8), 127).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
