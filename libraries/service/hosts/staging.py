"""A folder from which Azure ML deploys the classifier: what is to be there, the code, the bundle."""

import re
import secrets
import shutil
from pathlib import Path

from libraries.base.errors import StorageError
from libraries.base.storage import TEMPORARY, read_json, sha256, storage_error
from libraries.classifier.bundle import MANIFEST

ENTRY = "deploymain.py"
DESCRIPTIONS = ("endpoint.yml", "deployment.yml", "conda.yaml")


def stage(bundle: Path, target: Path, *, project: Path) -> None:
    """Write the folder `target` anew; it is made beside and then moved, so that nobody ever finds half of it.

    Args:
        bundle: the folder of a bundle, which becomes model/.
        project: where this project lies; its code becomes code/, and resources/azure/ says what is deployed.

    Raises:
        StorageError: the bundle is damaged, or the disk full.
    """
    temporary, former = (target.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{target.name}") for _ in range(2))
    try:
        _copy_code(project, temporary / "code")
        _copy_bundle(bundle, temporary / "model")
        for name in DESCRIPTIONS:
            _copy(project / "resources" / "azure" / name, temporary / name)
        if target.exists():
            target.rename(former)
        temporary.rename(target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _copy_code(project: Path, code: Path) -> None:
    _copy(project / "scripts" / ENTRY, code / ENTRY)
    _copy(project / "PARAMETERS.py", code / "PARAMETERS.py")
    for module in (project / "libraries").rglob("*.py"):
        _copy(module, code / module.relative_to(project))


def _copy_bundle(bundle: Path, model: Path) -> None:
    for name, expected in read_json(bundle / MANIFEST)["files"].items():
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
