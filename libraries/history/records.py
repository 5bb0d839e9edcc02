"""What is recorded of a run, and how it waits: importing MLflow takes longer than many a step does.

A short run leaves its record in a folder of DATA_DIR, runs.waiting/<start>-<step>-<token>/: run.json, and its files and
its bundle as they are now, since later runs write them anew. The next long run, or whoever opens the history, enters it
into MLflow.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libraries.base.errors import StorageError
from libraries.base.file_system import TEMPORARY, replace
from libraries.base.storage import read_json, write_json

WAITING = "runs.waiting"  # in DATA_DIR
_BUNDLE = "bundle"  # a folder in that of a run
_TAKEN = ".taken-"  # in the name of a folder whose run is being entered
_ABANDONED = 600  # seconds after which the process that took it was killed
_DAMAGED = (OSError, StorageError, LookupError, TypeError, ValueError, AttributeError)  # reading its run.json


@dataclass
class Record:
    """What to log about one run of a script; filled in while it runs.

    Attributes:
        tags: short texts.
        metrics: numbers.
        files: pictures and tables, copied into the history.
        bundle: folder of a bundle, kept as a model.
        model_uri: where the model is, once the run is logged: `mlflow models serve -m <model_uri>`.
    """

    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    bundle: Path | None = None
    model_uri: str | None = None


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its record, all parameters, and when it began and ended [seconds since 1970]."""

    record: Record
    values: Mapping[str, Any]
    started: float
    ended: float


def leave(root: Path, run: Finished) -> None:
    """Let a run wait in DATA_DIR until it is entered.

    Raises:
        OSError, StorageError: it cannot be written.
    """
    name = f"{run.started * 1000:.0f}-{run.record.tags['step']}-{secrets.token_hex(4)}"
    temporary = root / WAITING / f"{TEMPORARY}{name}"
    try:
        temporary.mkdir(parents=True)
        for file in run.record.files:
            _keep(file, temporary)
        if run.record.bundle is not None:
            (temporary / _BUNDLE).mkdir()
            for file in run.record.bundle.iterdir():
                _keep(file, temporary / _BUNDLE)
        write_json(
            temporary / "run.json",
            {
                "tags": {**run.record.tags, "id": name},
                "metrics": {name: str(value) for name, value in run.record.metrics.items()},  # JSON has no infinity
                "files": [file.name for file in run.record.files],
                "values": {key: str(value) for key, value in run.values.items()},
                "started": run.started,
                "ended": run.ended,
            },
        )
        replace(temporary, root / WAITING / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _keep(file: Path, folder: Path) -> None:
    """A hard link where there are such: files are replaced by later runs, never changed."""
    try:
        os.link(file, folder / file.name)
    except OSError:
        shutil.copyfile(file, folder / file.name)


def how_many_wait(root: Path) -> int:
    return len(_folders(root))


def _folders(root: Path) -> list[Path]:
    """Of the waiting runs, oldest first."""
    return sorted((root / WAITING).glob("[0-9]*"))


def peek(root: Path) -> list[Finished]:
    """The waiting runs, oldest first, without those that are damaged; they go on waiting."""
    runs = []
    for folder in _folders(root):
        with contextlib.suppress(*_DAMAGED):
            runs.append(_read(folder))
    return runs


def waiting(root: Path) -> Iterator[Finished]:
    """Take the waiting runs, oldest first; each is deleted when the next one is asked for: then it has been entered.

    Two processes never take the same run. What a killed one had taken is taken again later, when it may have been
    entered already: its tag `id` tells.
    """
    for folder in _folders(root):
        name, _, taken = folder.name.partition(_TAKEN)
        mine = folder.with_name(f"{name}{_TAKEN}{time.time():.0f}")
        if taken.isdigit() and time.time() - int(taken) < _ABANDONED:
            continue
        try:
            folder.rename(mine)
            run = _read(mine)
        except _DAMAGED:
            continue  # or another process was faster
        yield run
        shutil.rmtree(mine, ignore_errors=True)


def _read(folder: Path) -> Finished:
    stored = read_json(folder / "run.json")
    files = [folder / Path(name).name for name in stored["files"]]
    bundle = folder / _BUNDLE
    record = Record(
        dict(stored["tags"]),
        {name: float(value) for name, value in stored["metrics"].items()},
        [file for file in files if file.is_file()],
        bundle if bundle.is_dir() else None,
    )
    return Finished(record, stored["values"], float(stored["started"]), float(stored["ended"]))
