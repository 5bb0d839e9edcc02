"""What is recorded of a run, and how it waits: importing MLflow takes longer than many a step does.

A short run leaves its record in a folder of DATA_DIR, runs.waiting/<start>-<step>-<token>/: run.json, and copies of its
files, since later runs write them anew. The next run that takes longer, the evaluation, or whoever reads the history
enters it into MLflow.
"""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libraries.base.errors import StorageError
from libraries.base.file_system import TEMPORARY, replace
from libraries.base.storage import read_json, write_json

WAITING = "runs.waiting"  # in DATA_DIR
_TAKEN = ".taken-"  # in the name of a folder whose run is being entered
_ABANDONED = 600  # seconds after which the process that took it was killed


@dataclass(frozen=True)
class PackedModel:
    """A model in MLflow's format, to be stored with a run.

    Attributes:
        name: of the model in the history.
        fingerprint: identifies its content; the store keeps one model per fingerprint.
        save: `save(path, mlflow_model=...)` writes it into a folder that does not exist yet.
    """

    name: str
    fingerprint: str
    save: Callable[..., None]


@dataclass
class Record:
    """What to log about one run of a script; filled in while it runs.

    Attributes:
        tags: short texts.
        metrics: numbers.
        files: pictures and tables, copied into the history.
        model: stored as well.
        model_uri: where the model is, once the run is logged: `mlflow models serve -m <model_uri>`.
    """

    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    model: PackedModel | None = None
    model_uri: str | None = None


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its record, all parameters, and when it began and ended [seconds since 1970]."""

    record: Record
    values: Mapping[str, Any]
    started: float
    ended: float


def leave(root: Path, run: Finished) -> None:
    """Let a run, which has no model, wait in DATA_DIR until it is entered.

    Raises:
        OSError, StorageError: it cannot be written.
    """
    name = f"{run.started * 1000:.0f}-{run.record.tags['step']}-{secrets.token_hex(4)}"
    temporary = root / WAITING / f"{TEMPORARY}{name}"
    temporary.mkdir(parents=True)
    for file in run.record.files:
        shutil.copyfile(file, temporary / file.name)
    write_json(
        temporary / "run.json",
        {
            "tags": {**run.record.tags, "id": name},
            "metrics": run.record.metrics,
            "files": [file.name for file in run.record.files],
            "values": {key: str(value) for key, value in run.values.items()},
            "started": run.started,
            "ended": run.ended,
        },
    )
    replace(temporary, root / WAITING / name)


def waiting(root: Path) -> Iterator[Finished]:
    """Take the waiting runs, oldest first; each is deleted when the next one is asked for: then it has been entered.

    Two processes never take the same run. What a killed one had taken is taken again later, when it may have been
    entered already: its tag `id` tells.
    """
    for folder in sorted((root / WAITING).glob("[0-9]*")):
        name, _, taken = folder.name.partition(_TAKEN)
        mine = folder.with_name(f"{name}{_TAKEN}{time.time():.0f}")
        if taken.isdigit() and time.time() - int(taken) < _ABANDONED:
            continue
        try:
            folder.rename(mine)
            run = _read(mine)
        except (OSError, StorageError, LookupError, TypeError, ValueError, AttributeError):
            continue  # another process was faster, or it is damaged
        yield run
        shutil.rmtree(mine, ignore_errors=True)


def _read(folder: Path) -> Finished:
    stored = read_json(folder / "run.json")
    files = [folder / Path(name).name for name in stored["files"]]
    record = Record(dict(stored["tags"]), dict(stored["metrics"]), [file for file in files if file.is_file()])
    return Finished(record, stored["values"], float(stored["started"]), float(stored["ended"]))
