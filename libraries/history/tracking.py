"""Run history: what every script did, in MLflow. An unreachable server causes a warning, never a lost run.

The history is the file mlflow.db in DATA_DIR, or a server. Short runs wait to be entered into the file (see `records`).
"""

import contextlib
import logging
import os
import re
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from libraries.base.settings import Settings
from libraries.history.records import Finished, Record, how_many_wait, leave, waiting

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

QUICK = 60.0  # seconds; a shorter run waits, a longer one is logged at once, which takes some seconds
MOST_CHARACTERS = 500  # of a parameter, in the history
MOST_WAITING = 50  # runs; then the next one enters them all

FILE = "mlflow.db"  # in DATA_DIR
SQLITE = "sqlite:///"
LOCKED = 30  # seconds to wait for another process that writes

_UNREACHABLE = "the server cannot be reached, this run goes to mlflow.db in DATA_DIR instead"
UNWRITABLE = "mlflow.db in DATA_DIR cannot be written, this run is not in the history"


@contextlib.contextmanager
def run(step: str, parameters: Settings) -> Iterator[Record]:
    """Collect a record during the block and log it to MLflow at its end; a block that fails logs nothing.

    Into the file mlflow.db in DATA_DIR, or on the server `trackingUri`; if that cannot be reached, into the file.
    """
    values = parameters.model_dump()
    root, uri = values["rootDir"], values.pop("trackingUri")  # a tracking address may hold a password: never logged
    record = Record(tags={"step": step, "code": code_version()})
    started = time.time()
    importing = threading.Timer(0 if uri else QUICK, import_mlflow)  # takes seconds, while the step works
    importing.daemon = True
    if values["runHistory"]:
        importing.start()
    try:
        yield record
    finally:
        importing.cancel()
    if not values["runHistory"]:
        return
    finished = Finished(record, values, started, ended=time.time())
    if not uri and finished.ended - started < QUICK and how_many_wait(root) < MOST_WAITING:
        with warned(UNWRITABLE):
            leave(root, finished)
        return
    importing.join()
    if uri:
        with warned(_UNREACHABLE, hidden=True):
            _log(finished, store=uri, root=root)
            return
    with warned(UNWRITABLE):
        _log(finished, store=local_store(root), root=root)
        enter_waiting(root)


@contextlib.contextmanager
def warned(what: str, *, hidden: bool = False) -> Iterator[None]:
    """Turn any error of a store into a warning: the step's own output is safe.

    Args:
        hidden: whether the error's text must not be shown: it may contain an address, and that a password.
    """
    try:
        yield
    except Exception as error:
        text = "" if hidden else f": {' '.join(str(error).split())[:100]}"
        logger.warning("run history: %s (%s%s)", what, type(error).__name__, text)


def enter_waiting(root: Path) -> int:
    """Enter the runs that wait in DATA_DIR into its history; returns how many there were."""
    store, count = local_store(root), 0
    for finished in waiting(root):
        _log(finished, store=store, root=root)
        count += 1
    return count


def local_store(root: Path) -> str:
    """URI of the history file in DATA_DIR."""
    root.mkdir(parents=True, exist_ok=True)
    return f"{SQLITE}{(root / FILE).as_posix()}"


def import_mlflow() -> None:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow  # noqa: F401


def check_database(store: str, command: str) -> None:
    """Raise sqlite3.Error at once where MLflow would retry for minutes: the file is not a database, or is read-only."""
    if store.startswith(SQLITE):
        with contextlib.closing(sqlite3.connect(store.removeprefix(SQLITE), timeout=LOCKED)) as database:
            database.execute(command)


def _log(finished: Finished, *, store: str, root: Path) -> None:
    import_mlflow()  # first, as it switches telemetry off
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    check_database(store, "BEGIN IMMEDIATE")
    client, record, values = MlflowClient(tracking_uri=store), finished.record, finished.values
    name = values["datasetName"]
    stored = client.get_experiment_by_name(name)
    artifacts = (root / "mlruns").as_uri() if store.startswith("sqlite") else None
    experiment_id = stored.experiment_id if stored else client.create_experiment(name, artifact_location=artifacts)
    if _was_entered(client, experiment_id, record.tags.get("id")):
        return
    created = client.create_run(
        experiment_id, start_time=int(finished.started * 1000), run_name=record.tags["step"], tags=dict(record.tags)
    )
    run_id = created.info.run_id
    model = None
    if record.bundle is not None:
        called = model_name(name, values["classifier"])
        model = _keep_model(client, record.bundle, called, run_id=run_id, experiment_id=experiment_id)
        if model is not None and (release := record.tags.get("release")):
            _register(client, model, called, alias=release)
    model_id = model.model_id if model else None
    now = int(finished.ended * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(metric_name(k), value, now, 0, model_id=model_id) for k, value in record.metrics.items()],
        params=[Param(key, str(value)[:MOST_CHARACTERS]) for key, value in values.items()],
    )
    for file in record.files:
        client.log_artifact(run_id, str(file))
    client.set_terminated(run_id, end_time=now)
    record.model_uri = address_of(model) if model else None


def _was_entered(client: "MlflowClient", experiment_id: str, name: str | None) -> bool:
    """Whether a run that waited is in the history already; what a killed process entered of it is deleted."""
    if name is None:
        return False
    found = client.search_runs([experiment_id], f"tags.id = '{name}'")
    for run in found:
        if run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
    return any(run.info.status == "FINISHED" for run in found)


def _keep_model(
    client: "MlflowClient", bundle: Path, name: str, *, run_id: str, experiment_id: str
) -> "LoggedModel | None":
    """The bundle's model as stored by an earlier run, or stored now, linked to this run; None if that fails."""
    from mlflow.entities import LoggedModelOutput

    from libraries.history import mlflow_model

    try:
        key = mlflow_model.fingerprint(bundle)
        same = f"name = '{name}' AND tags.fingerprint = '{key}'"
        stored = next(whole_models(client, experiment_id, same), None)
        if stored is None:
            tags = {"fingerprint": key}
            created = client.create_logged_model(experiment_id, name, run_id, tags=tags, model_type="bundle")
            stored = _store_model(client, created, bundle)
        client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, step=0)])
    except Exception as error:  # the rest of the run can still be logged
        logger.warning("run history: the model could not be stored (%s)", type(error).__name__)
        return None
    return stored


def _register(client: "MlflowClient", model: "LoggedModel", name: str, *, alias: str) -> None:
    """Give the model a version in the registry, and that an alias: `models:/<name>@<alias>`."""
    from mlflow.exceptions import MlflowException

    try:
        with contextlib.suppress(MlflowException):  # there is one
            client.create_registered_model(name)
        version = client.create_model_version(name, str(model.artifact_location), model.source_run_id)
        client.set_registered_model_alias(name, alias, version.version)
    except Exception as error:  # the release is safe in its folder
        logger.warning("run history: the release could not be registered (%s)", type(error).__name__)


def whole_models(client: "MlflowClient", experiment_id: str, which: str | None = None) -> "Iterator[LoggedModel]":
    """Stored models, newest first, without those that are incomplete or whose files were deleted."""
    from mlflow.entities import LoggedModelStatus

    newest = {"field_name": "creation_timestamp", "ascending": False}
    for model in client.search_logged_models([experiment_id], which, order_by=[newest]):
        if model.status == LoggedModelStatus.READY and client.list_logged_model_artifacts(model.model_id):
            yield model


def _store_model(client: "MlflowClient", created: "LoggedModel", bundle: Path) -> "LoggedModel":
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    from libraries.history import mlflow_model

    described = Model(model_uuid=created.model_id, model_id=created.model_id, run_id=created.source_run_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow_model.save(path, bundle, mlflow_model=described)
        client.log_model_artifacts(created.model_id, str(path))
    return client.finalize_logged_model(created.model_id, LoggedModelStatus.READY)


def address_of(model: "LoggedModel") -> str:
    """A file's address, which works everywhere, or else one for which the tracking server must be known."""
    location = str(model.artifact_location)
    return location if location.startswith("file:") else f"models:/{model.model_id}"


def metric_name(name: str) -> str:
    """MLflow allows letters, digits and a few symbols in names; a label may contain others."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)


def model_name(dataset: str, classifier: str) -> str:
    """The name of its models; MLflow allows no '/:.%' or quotes in it."""
    return re.sub(r"[^\w-]", "_", f"{dataset}_{classifier}")


def code_version() -> str:
    """The git commit of the project's checkout ('+' when it has changes), else the installed version."""
    here = Path(__file__).resolve().parent
    describe = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("image-classification-pipeline")
    return "unknown"
