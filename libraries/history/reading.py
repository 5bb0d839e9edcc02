"""The run history as it is read: the newest runs of a step, the models, the files of a run."""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libraries.base.errors import StorageError
from libraries.base.settings import Settings
from libraries.history.records import Finished, peek
from libraries.history.tracking import (
    FILE,
    LOCKED,
    MOST_CHARACTERS,
    SQLITE,
    UNWRITABLE,
    address_of,
    check_database,
    enter_waiting,
    import_mlflow,
    local_store,
    metric_name,
    warned,
    whole_models,
)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _reading(store: str) -> Iterator[None]:
    """Turn any error of a store into one that names it, without its text: that may contain a password."""
    try:
        check_database(store, "PRAGMA schema_version")
        yield
    except Exception as error:
        where, advice = "trackingUri", "check the server"
        if store.startswith(SQLITE):
            where, advice = store.removeprefix(SQLITE), "move it away to start a new one"
        raise StorageError(f"the run history, {where}, cannot be read ({type(error).__name__}): {advice}") from error


def recent_runs(store: str, *, experiment: str, step: str, count: int) -> list[dict[str, Any]]:
    """The newest runs of a step, newest first: {'id', 'start' [ms], 'params', 'metrics', 'tags'}.

    Those that wait are entered.

    Raises:
        StorageError: the history cannot be read.
    """
    if store.startswith(SQLITE):
        return _entered(_enter_waiting(store), experiment=experiment, step=step, count=count)
    return _on_server(store, experiment=experiment, step=step, count=count)


def _enter_waiting(store: str) -> Path:
    """Enter the runs that wait beside a history file; returns its folder."""
    root = Path(store.removeprefix(SQLITE)).parent
    with _reading(store), warned(UNWRITABLE):
        enter_waiting(root)
    return root


def earlier_runs(step: str, parameters: Settings, *, count: int) -> list[dict[str, Any]]:
    """As `recent_runs`, of the data set of these parameters; those that wait go on waiting.

    Empty if no history is kept, or it cannot be read.
    """
    values = parameters.model_dump()
    root, which = values["rootDir"], {"experiment": values["datasetName"], "step": step, "count": count}
    if not values["runHistory"]:
        return []
    try:
        if values["trackingUri"]:
            return _on_server(values["trackingUri"], **which)
        waiting_too = [_row(run) for run in peek(root) if _is_of(run, **which)]
        found = [*waiting_too, *_entered(root, **which)]
    except (StorageError, OSError) as error:
        logger.warning("run history: earlier runs cannot be read (%s)", type(error.__cause__ or error).__name__)
        return []
    return sorted(found, key=lambda row: -row["start"])[:count]


def _is_of(run: Finished, *, experiment: str, step: str, count: int) -> bool:
    return (run.values["datasetName"], run.record.tags["step"]) == (experiment, step)


def _row(run: Finished) -> dict[str, Any]:
    record = run.record
    metrics = {metric_name(name): value for name, value in record.metrics.items()}
    params = {name: str(value)[:MOST_CHARACTERS] for name, value in run.values.items()}
    start = int(run.started * 1000)
    return {"id": record.tags["id"], "start": start, "params": params, "metrics": metrics, "tags": record.tags}


def _on_server(store: str, *, experiment: str, step: str, count: int) -> list[dict[str, Any]]:
    import_mlflow()
    from mlflow import MlflowClient

    with _reading(store):
        client = MlflowClient(tracking_uri=store)
        stored = client.get_experiment_by_name(experiment)
        if stored is None:
            return []
        newest = ["attributes.start_time DESC"]
        runs = client.search_runs([stored.experiment_id], f"tags.step = '{step}'", order_by=newest, max_results=count)
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


_RUNS = """
    SELECT runs.run_uuid, runs.start_time FROM runs
    JOIN experiments USING (experiment_id) JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'step'
    WHERE experiments.name = ? AND tags.value = ? AND runs.lifecycle_stage = 'active'
    ORDER BY runs.start_time DESC LIMIT ?
"""
_VALUES = {"params": "params", "metrics": "latest_metrics", "tags": "tags"}  # tables of MLflow


def _entered(root: Path, *, experiment: str, step: str, count: int) -> list[dict[str, Any]]:
    """What `_on_server` gives of the file in DATA_DIR, read without MLflow: its import takes seconds."""
    if not (root / FILE).exists():
        return []
    with _reading(local_store(root)), contextlib.closing(_read_only(root / FILE)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return []  # a database that nothing was entered into
        found = database.execute(_RUNS, (experiment, step, count)).fetchall()
        values = {
            name: [
                dict(database.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", (number,)))
                for number, _ in found
            ]
            for name, table in _VALUES.items()
        }
    return [
        {"id": number, "start": start, **{name: values[name][i] for name in _VALUES}}
        for i, (number, start) in enumerate(found)
    ]


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", timeout=LOCKED, uri=True)


def newest_models(store: str) -> dict[str, str]:
    """The newest model of each name (`tracking.model_name`), as addresses for `mlflow models serve -m <address>`.

    Runs that wait are entered.

    Raises:
        StorageError: the history cannot be read.
    """
    import_mlflow()
    from mlflow import MlflowClient

    if store.startswith(SQLITE):
        _enter_waiting(store)
    newest: dict[str, str] = {}
    with _reading(store):
        client = MlflowClient(tracking_uri=store)
        for experiment in client.search_experiments():
            for model in whole_models(client, experiment.experiment_id):
                newest.setdefault(model.name, address_of(model))
    return newest


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
