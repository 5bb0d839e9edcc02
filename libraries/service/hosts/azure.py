"""Azure ML: the folder from which it deploys the classifier, and the scoring function inside an online endpoint.

There azureml-inference-server-http provides HTTP and keys.
"""

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
from libraries.base.storage import read_json, reading, sha256, write_json
from libraries.classifier.bundle import find_bundle
from libraries.classifier.bundle_files import MANIFEST, METRICS, MODEL, check_files, read_manifest
from libraries.classifier.reference import REFERENCE
from libraries.service import base64_json
from libraries.service.model import load_model
from libraries.service.problems import MEDIA_TYPE, Problem

ENTRY = "deploymain.py"
DESCRIPTIONS = ("endpoint.yml", "deployment.yml", "conda.yaml")
RECORD = "staged.json"  # SHA-256 of every other file in the folder
MODEL_DIR = "AZUREML_MODEL_DIR"


def stage(bundle: Path, target: Path, *, project: Path) -> None:
    """Write the folder from which Azure ML deploys: code, bundle and descriptions.

    It is written under a temporary name and then renamed, so that it is never incomplete. It replaces an earlier one.

    Args:
        bundle: the folder of a bundle, which becomes model/.
        target: the folder to write.
        project: the folder of this project; its code becomes code/, and resources/azure/ describes the deployment.

    Raises:
        StorageError: the bundle is damaged, the disk is full, or the existing folder has been changed by hand.
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
    """Raise StorageError if files have been added or changed by hand in a folder that was staged earlier.

    Earlier versions wrote no record. In their folders, the descriptions must be those of this project, and everything
    else must be code or a model.
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
    """The names and paths of the files below a folder, without Python's caches."""
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
    for name in (METRICS, REFERENCE):
        if (bundle / name).exists():
            _copy(bundle / name, model / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with reading(source, advice="restore it, or move it away"):
        source.open("rb").close()
    shutil.copyfile(source, target)


def endpoint_name(*words: str) -> str:
    """A name that Azure ML allows: 3 to 32 letters, digits and hyphens; first a letter, last not a hyphen."""
    text = "-".join(re.findall("[a-z0-9]+", "-".join(words).lower()))
    return re.sub("^[^a-z]+", "", text)[:32].rstrip("-").ljust(3, "x")


def commands(endpoint: str) -> list[str]:
    """The commands to run in the staged folder to deploy it."""
    return [
        f"az ml online-endpoint create --file endpoint.yml --name {endpoint}",
        f"az ml online-deployment create --file deployment.yml --endpoint-name {endpoint} --all-traffic",
        f"az ml online-endpoint show --name {endpoint} --query scoring_uri --output tsv",
        f"az ml online-endpoint get-credentials --name {endpoint} --query primaryKey --output tsv",
    ]


def scorer(*, precision: Literal["f32", "bf16"], max_pixels: int) -> Callable[[str], Any]:
    """Load the mounted bundle; returns the function for `run()`, which answers the body of a request.

    Raises:
        ParameterError: this is not Azure ML.
        StorageError, NetworkError: the bundle is refused.
    """
    if MODEL_DIR not in os.environ:
        raise ParameterError(
            f"the environment variable {MODEL_DIR} is not set: Azure ML sets it to the folder of the model"
        )
    classifier = load_model(find_bundle(Path(os.environ[MODEL_DIR])), precision=precision).classifier

    def score(body: str) -> Any:
        try:
            return base64_json.respond(body, classifier, max_pixels=max_pixels)
        except Problem as problem:
            return _refusal(problem)

    return score


def _refusal(problem: Problem) -> Any:
    """A response with the problem and its status; an exception would become a 500 without an explanation.

    Callers see status 424: Azure ML puts it in place of every status but 200, and reports the original one in the
    header `ms-azureml-model-error-statuscode` (learn.microsoft.com: how-to-troubleshoot-online-endpoints).
    """
    from azureml_inference_server_http.api.aml_response import AMLResponse

    return AMLResponse(json.dumps(problem.to_json()), problem.status, {"Content-Type": MEDIA_TYPE})
