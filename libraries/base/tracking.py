"""Run history: what every script did, in MLflow. An unreachable server causes a warning, never a lost run."""

import contextlib
import logging
import os
import re
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libraries.base.errors import StorageError
from libraries.base.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

_SQLITE = "sqlite:///"
_LOCKED = 30  # seconds to wait for another process that writes

_UNREACHABLE = "the server cannot be reached, this run goes to mlflow.db in DATA_DIR instead"
_UNWRITABLE = "mlflow.db in DATA_DIR cannot be written, this run is not in the history"


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


@contextlib.contextmanager
def run(step: str, parameters: Settings) -> Iterator[Record]:
    """Collect a record during the block and log it to MLflow at its end; a block that fails logs nothing.

    The history is the file mlflow.db in DATA_DIR, or the server `trackingUri`; if that cannot be reached, the file.
    """
    values = parameters.model_dump()
    root, uri = values["rootDir"], values.pop("trackingUri")  # a tracking address may hold a password: never logged
    record = Record(tags={"step": step, "code": code_version()})
    started = time.time()
    importing = threading.Thread(target=_import_mlflow, daemon=True)  # takes two seconds, while the step works
    if values["runHistory"]:
        importing.start()
    yield record
    if not values["runHistory"]:
        return
    importing.join()
    for server in ([uri] if uri else []) + [None]:
        try:
            _log(record, store=server or local_store(root), root=root, values=values, started=started)
            return
        except Exception as error:  # whatever a store raises, the step's own output is safe
            reason = type(error).__name__
            if server:  # only the type: the text may contain the address, and that a password
                logger.warning("run history: %s (%s)", _UNREACHABLE, reason)
            else:
                logger.warning("run history: %s (%s: %s)", _UNWRITABLE, reason, " ".join(str(error).split())[:100])


def local_store(root: Path) -> str:
    """URI of the history file in DATA_DIR."""
    root.mkdir(parents=True, exist_ok=True)
    return f"{_SQLITE}{(root / 'mlflow.db').as_posix()}"


def _import_mlflow() -> None:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow  # noqa: F401


def _check_database(store: str, command: str) -> None:
    """Raise sqlite3.Error at once where MLflow would retry for minutes: the file is not a database, or is read-only."""
    if store.startswith(_SQLITE):
        with contextlib.closing(sqlite3.connect(store.removeprefix(_SQLITE), timeout=_LOCKED)) as database:
            database.execute(command)


def _log(record: Record, *, store: str, root: Path, values: Mapping[str, Any], started: float) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    _check_database(store, "BEGIN IMMEDIATE")
    client = MlflowClient(tracking_uri=store)
    name = values["datasetName"]
    stored = client.get_experiment_by_name(name)
    artifacts = (root / "mlruns").as_uri() if store.startswith("sqlite") else None
    experiment_id = stored.experiment_id if stored else client.create_experiment(name, artifact_location=artifacts)
    created = client.create_run(
        experiment_id, start_time=int(started * 1000), run_name=record.tags["step"], tags=dict(record.tags)
    )
    run_id = created.info.run_id
    model = _keep_model(client, record.model, run_id=run_id, experiment_id=experiment_id) if record.model else None
    model_id = model.model_id if model else None
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(_metric_name(k), value, now, 0, model_id=model_id) for k, value in record.metrics.items()],
        params=[Param(key, str(value)[:500]) for key, value in values.items()],
    )
    for file in record.files:
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id)
    record.model_uri = _uri(model) if model else None


def _keep_model(client: "MlflowClient", model: PackedModel, *, run_id: str, experiment_id: str) -> "LoggedModel | None":
    """The model as stored by an earlier run, or stored now, linked to this run; None if that fails."""
    from mlflow.entities import LoggedModelOutput

    try:
        same = f"name = '{_model_name(model.name)}' AND tags.fingerprint = '{model.fingerprint}'"
        stored = next(_whole_models(client, experiment_id, same), None)
        if stored is None:
            stored = _store_model(client, model, run_id=run_id, experiment_id=experiment_id)
        client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, step=0)])
    except Exception as error:  # the rest of the run can still be logged
        logger.warning("run history: the model could not be stored (%s)", type(error).__name__)
        return None
    return stored


def _whole_models(client: "MlflowClient", experiment_id: str, which: str) -> "Iterator[LoggedModel]":
    """Stored models, newest first, without those that are incomplete or whose files were deleted."""
    from mlflow.entities import LoggedModelStatus

    newest = {"field_name": "creation_timestamp", "ascending": False}
    for model in client.search_logged_models([experiment_id], which, order_by=[newest]):
        if model.status == LoggedModelStatus.READY and client.list_logged_model_artifacts(model.model_id):
            yield model


def _store_model(client: "MlflowClient", model: PackedModel, *, run_id: str, experiment_id: str) -> "LoggedModel":
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    created = client.create_logged_model(
        experiment_id,
        _model_name(model.name),
        source_run_id=run_id,
        tags={"fingerprint": model.fingerprint},
        model_type="bundle",
    )
    described = Model(model_uuid=created.model_id, model_id=created.model_id, run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path, mlflow_model=described)
        client.log_model_artifacts(created.model_id, str(path))
    return client.finalize_logged_model(created.model_id, LoggedModelStatus.READY)


def _uri(model: "LoggedModel") -> str:
    """A file's address, which works everywhere, or else one for which the tracking server must be known."""
    location = str(model.artifact_location)
    return location if location.startswith("file:") else f"models:/{model.model_id}"


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and a few symbols in names; a label may contain others."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)


def _model_name(name: str) -> str:
    """MLflow allows no '/:.%' or quotes in names of models."""
    return re.sub(r"[^\w-]", "_", name)


def code_version() -> str:
    """The git commit of the project's checkout ('+' when it has changes), else the installed version."""
    here = Path(__file__).resolve().parent
    describe = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("image-classification-pipeline")
    return "unknown"


@contextlib.contextmanager
def _reading(store: str) -> Iterator[None]:
    """Turn any error of a store into one that names it, without its text: that may contain a password."""
    try:
        _check_database(store, "PRAGMA schema_version")
        yield
    except Exception as error:
        where, advice = "trackingUri", "check the server"
        if store.startswith(_SQLITE):
            where, advice = store.removeprefix(_SQLITE), "move it away to start a new one"
        raise StorageError(f"the run history, {where}, cannot be read ({type(error).__name__}): {advice}") from error


@contextlib.contextmanager
def _opened(store: str, experiment: str) -> Iterator[tuple["MlflowClient", str | None]]:
    """A client of the history, and the id of an experiment; None if there is none."""
    _import_mlflow()
    from mlflow import MlflowClient

    with _reading(store):
        client = MlflowClient(tracking_uri=store)
        stored = client.get_experiment_by_name(experiment)
        yield client, stored.experiment_id if stored is not None else None


def recent_runs(store: str, *, experiment: str, step: str, count: int) -> list[dict[str, Any]]:
    """The newest runs of a step, newest first: {'id', 'start' [ms], 'params', 'metrics', 'tags'}.

    Raises:
        StorageError: the history cannot be read.
    """
    with _opened(store, experiment) as (client, number):
        if number is None:
            return []
        runs = client.search_runs(
            [number], f"tags.step = '{step}'", order_by=["attributes.start_time DESC"], max_results=count
        )
    return [
        {
            "id": r.info.run_id,
            "start": r.info.start_time,
            "params": r.data.params,
            "metrics": r.data.metrics,
            "tags": r.data.tags,
        }
        for r in runs
    ]


def earlier_runs(step: str, parameters: Settings, *, count: int) -> list[dict[str, Any]]:
    """`recent_runs` for the data set of these parameters; empty if no history is kept, or it cannot be read."""
    values = parameters.model_dump()
    if not values["runHistory"]:
        return []
    try:
        store = values["trackingUri"] or local_store(values["rootDir"])
        return recent_runs(store, experiment=values["datasetName"], step=step, count=count)
    except (StorageError, OSError) as error:
        logger.warning("run history: earlier runs cannot be read (%s)", type(error.__cause__ or error).__name__)
        return []


def newest_model(store: str, *, experiment: str, name: str) -> str | None:
    """The URI of the newest model of this name, as for `mlflow models serve -m <uri>`; None if there is none.

    Raises:
        StorageError: the history cannot be read.
    """
    with _opened(store, experiment) as (client, number):
        if number is None:
            return None
        return next(map(_uri, _whole_models(client, number, f"name = '{_model_name(name)}'")), None)


def download(store: str, run_id: str, name: str) -> Path:
    """A file that was logged with a run, on this machine.

    Raises:
        StorageError: the run has no such file.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return Path(MlflowClient(tracking_uri=store).download_artifacts(run_id, name))
    except (MlflowException, OSError) as error:
        raise StorageError(f"the run history has no {name} for run {run_id}: evaluate again") from error
