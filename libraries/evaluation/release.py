"""Releases: bundles that are kept under a name, each with what it was trained on and how it did."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libraries.base.errors import InputError, ParameterError
from libraries.base.file_system import TEMPORARY, flush, read_regular, replace, storage_error
from libraries.base.layout import Layout
from libraries.base.storage import Artefact, read_json, reading, sha256, write_json, write_text
from libraries.classifier.bundle_files import DECISIVE, MANIFEST, MAX_BYTES
from libraries.data.dataset import Example

RELEASES = "releases"  # in DATA_DIR
MODEL, TRAINING, ABOUT = "model", "training_images.txt", "release.json"
_ADVICE = "restore the release, or delete it"
_MOST_BYTES = 2**20  # of release.json
_KEPT = ("predictions.csv", "report.html")  # of the evaluation


@dataclass(frozen=True)
class Release:
    """A bundle that was kept.

    Attributes:
        bundle: its folder.
        trained_on: SHA-256 of the images that it was trained on.
    """

    name: str
    bundle: Path
    trained_on: frozenset[str]


def check_name(name: str) -> None:
    """Raise ParameterError unless it can be the name of a release: of a folder, and of an alias in MLflow."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) or re.fullmatch(r"v\d+|latest", name, re.IGNORECASE):
        raise ParameterError(
            f"'{name:.70}' cannot be the name of a release: take letters, digits, - and _, a letter first, at most 64; "
            "but not 'latest', or v and a number"
        )


def folder_of(layout: Layout) -> Path:
    """The folder of the releases of a data set."""
    return layout.root / RELEASES / layout.dataset


def check_is_free(layout: Layout, name: str) -> None:
    """Make sure that the current bundle can be released under a name.

    Raises:
        ParameterError: it cannot be a name.
        InputError: another bundle has it.
        StorageError: the release of that name is damaged.
    """
    check_name(name)
    target = folder_of(layout) / name
    if target.exists() and _decisive(find_release(layout, name).bundle) != _decisive(layout.bundle.folder):
        raise InputError(f"'{name}' is another bundle, in {target}: take another name")


def keep_release(layout: Layout, name: str, examples: Iterable[Example]) -> Path:
    """Keep the current bundle and its evaluation under a name; returns the folder.

    A release never changes: one that is the same already stays as it is.

    Args:
        examples: all images; those for training are recorded.

    Raises:
        ParameterError, InputError: see `check_is_free`.
        StorageError: it cannot be written.
    """
    check_is_free(layout, name)
    target = folder_of(layout) / name
    model = layout.bundle.read()
    if target.exists():
        return target
    for leftover in target.parent.glob(f"{TEMPORARY}*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = target.with_name(f"{TEMPORARY}{name}-{os.getpid()}")
    bundle = [path for path in layout.bundle.folder.iterdir() if not path.name.startswith(TEMPORARY)]
    copies = {temporary / MODEL / path.name: path for path in bundle}
    copies |= {temporary / each: layout.evaluation.folder / each for each in _KEPT}
    try:
        for copy, path in copies.items():
            _copy(path, copy)
        trained_on = sorted({example.sha256 for example in examples if example.split == "train"})
        write_text(temporary / TRAINING, "".join(f"{digest}\n" for digest in trained_on))
        write_json(
            temporary / ABOUT,
            {
                "name": name,
                "dataset": layout.dataset,
                "classifier": layout.classifier,
                "labels": model["labels"],
                "released": datetime.now(UTC).isoformat(timespec="seconds"),
                "training_images": sha256(temporary / TRAINING),
            },
        )
        replace(temporary, target)
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that a crash cannot take it away again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        flush(file)


def find_release(layout: Layout, name: str) -> Release:
    """The release of that name.

    Raises:
        ParameterError: it cannot be a name.
        InputError: there is none; says which there are.
        StorageError: it is damaged.
    """
    check_name(name)
    folder = folder_of(layout) / name
    if not folder.is_dir():
        there = sorted(
            path.name
            for path in folder.parent.glob("*")
            if (path / ABOUT).exists() and not path.name.startswith(TEMPORARY)
        )
        known = f"there are {', '.join(there[:20])}" if there else "make one with --release NAME"
        raise InputError(f"there is no release '{name}' in {folder.parent}: {known}")
    with reading(folder, advice=_ADVICE):
        about = json.loads(read_regular(folder / ABOUT, most=_MOST_BYTES))
        if not (folder / MODEL / MANIFEST).is_file():
            raise ValueError(f"it has no {MODEL}/{MANIFEST}")
        if sha256(folder / TRAINING) != about["training_images"]:
            raise ValueError(f"{TRAINING} was changed")
        trained_on = frozenset((folder / TRAINING).read_text(encoding="utf-8").split())
    return Release(name, folder / MODEL, trained_on)


def _decisive(bundle: Path) -> Sequence[Any]:
    """What decides the answers of a bundle."""
    with reading(bundle, advice=_ADVICE):
        model = json.loads(read_regular(bundle / MANIFEST, most=MAX_BYTES))
        if not isinstance(model, dict):
            raise ValueError(f"{MANIFEST} is damaged")
    return [model.get(name) for name in ("files", "labels", "resize", *DECISIVE)]


def has_same_network(bundle: Path, network: Artefact) -> bool:
    """Whether a bundle's embeddings are those that script 3 stores with this network."""
    model = read_json(bundle / MANIFEST)
    return bool(model.get("inputs", {}).get(network.name) == network.identity())
