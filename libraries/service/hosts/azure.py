"""The service inside an Azure ML online endpoint, where azureml-inference-server-http brings HTTP and keys."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from libraries.base.errors import ParameterError, StorageError
from libraries.base.file_system import TEMPORARY, storage_error
from libraries.base.storage import read_json, sha256, write_json
from libraries.classifier.bundle import find_bundle
from libraries.classifier.manifest import MANIFEST, MODEL, check_files, read_manifest
from libraries.service import tutorial
from libraries.service.model import load_model
from libraries.service.problems import MEDIA_TYPE, Problem

ENTRY = "deploymain.py"
DESCRIPTIONS = ("endpoint.yml", "deployment.yml", "conda.yaml")
RECORD = "staged.json"  # SHA-256 of all else in the folder


def stage(bundle: Path, target: Path, *, project: Path) -> None:
    """Write the folder `target` anew; it is made beside and then moved, so that nobody ever finds half of it.

    Args:
        bundle: the folder of a bundle, which becomes model/.
        project: where this project lies; its code becomes code/, and resources/azure/ says what is deployed.

    Raises:
        StorageError: the bundle is damaged, the disk full, or people have changed what stands there.
    """
    temporary, former = (target.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{target.name}") for _ in range(2))
    try:
        _check_ours(target, project)
        _copy_code(project, temporary / "code")
        _copy_bundle(bundle, temporary / "model")
        for name in DESCRIPTIONS:
            _copy(project / "resources" / "azure" / name, temporary / name)
        write_json(temporary / RECORD, {name: sha256(path) for name, path in _files(temporary)})
        if target.exists():
            target.rename(former)
        temporary.rename(target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _check_ours(target: Path, project: Path) -> None:
    """Raise StorageError if a folder that was staged earlier holds what people have added or changed.

    Earlier versions kept no record; of theirs the descriptions have to be those of this project, and the rest only code
    and a model.
    """
    record = target / RECORD
    known = read_json(record) if record.exists() else None
    for name, path in _files(target):
        if known is not None:
            is_ours = name == RECORD or (isinstance(known, dict) and known.get(name) == sha256(path))
        elif name in DESCRIPTIONS:
            is_ours = path.read_bytes() == (project / "resources" / "azure" / name).read_bytes()
        else:
            is_ours = name in (f"model/{MODEL}", f"model/{MANIFEST}") or (name[:5] == "code/" and path.suffix == ".py")
        if not is_ours:
            raise StorageError(
                f"{path} was not written by this script, or was changed since: move {target} away, and run again"
            )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder and their names in it; not what Python makes of code that is run."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def _copy_code(project: Path, code: Path) -> None:
    _copy(project / "scripts" / ENTRY, code / ENTRY)
    _copy(project / "PARAMETERS.py", code / "PARAMETERS.py")
    for module in (project / "libraries").rglob("*.py"):
        _copy(module, code / module.relative_to(project))


def _copy_bundle(bundle: Path, model: Path) -> None:
    files = read_manifest(bundle / MANIFEST)[0]["files"]
    check_files(bundle, files)
    for name, expected in files.items():
        _copy(bundle / name, model / name)
        if sha256(model / name) != expected:
            raise StorageError(
                f"{bundle / name} is not the file that {MANIFEST} describes: restore or rebuild the bundle"
            )
    _copy(bundle / MANIFEST, model / MANIFEST)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def endpoint_name(*words: str) -> str:
    """A name as Azure ML allows it: 3 to 32 letters, digits and hyphens, a letter first, no hyphen last."""
    text = "-".join(re.findall("[a-z0-9]+", "-".join(words).lower()))
    return re.sub("^[^a-z]+", "", text)[:32].rstrip("-").ljust(3, "x")


def commands(endpoint: str) -> list[str]:
    """What to type in the staged folder to deploy it."""
    return [
        f"az ml online-endpoint create --file endpoint.yml --name {endpoint}",
        f"az ml online-deployment create --file deployment.yml --endpoint-name {endpoint} --all-traffic",
        f"az ml online-endpoint show --name {endpoint} --query scoring_uri --output tsv",
        f"az ml online-endpoint get-credentials --name {endpoint} --query primaryKey --output tsv",
    ]


MODEL_DIR = "AZUREML_MODEL_DIR"


def scorer(*, precision: Literal["f32", "bf16"], max_pixels: int) -> Callable[[str], Any]:
    """What `run()` does with the body of a request, after loading the bundle that is mounted.

    Raises:
        ParameterError: this is no Azure ML.
        StorageError, NetworkError: the bundle is refused.
    """
    if MODEL_DIR not in os.environ:
        raise ParameterError(f"the environment variable {MODEL_DIR} is not set: it names the folder of the model")
    classifier = load_model(find_bundle(Path(os.environ[MODEL_DIR])), precision=precision).classifier

    def score(body: str) -> Any:
        try:
            return tutorial.respond(body, classifier, max_pixels=max_pixels)
        except Problem as problem:
            return _refusal(problem)

    return score


def _refusal(problem: Problem) -> Any:
    """A problem as the server sends it with its own status; an exception would become a 500 without a word.

    Callers see status 424 in the end: Azure ML puts it in place of any other than 200, which it tells in the header
    `ms-azureml-model-error-statuscode`. (learn.microsoft.com: how-to-troubleshoot-online-endpoints, HTTP status codes)
    """
    from azureml_inference_server_http.api.aml_response import AMLResponse

    return AMLResponse(json.dumps(problem.to_json()), problem.status, {"Content-Type": MEDIA_TYPE})
