"""Evaluations of a data set side by side, from the run history: what differed, and the results."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from libraries.base.console import table
from libraries.base.tables import read_table
from libraries.evaluation.report import EarlierRun
from libraries.evaluation.testing import PredictionRow
from libraries.evaluation.uncertainty import mcnemar
from libraries.history import reading
from libraries.history.tracking import MOST_CHARACTERS

COLUMNS = ("overall_accuracy", "class_averaged_accuracy", "class_averaged_auc", "log_loss", "ece")


def describe_runs(store: str, dataset: str, *, count: int = 5) -> str:
    """A table of the newest evaluations of a data set, and McNemar's test between the two newest."""
    runs = reading.recent_runs(store, experiment=dataset, step="5_evaluate", count=count)
    if not runs:
        return f"There is no evaluation of '{dataset}' in the run history yet: run scripts/5_evaluate.py"
    header = ["", *(_when(run) for run in runs)]
    names = {key: [run["params"].get(key, "") for run in runs] for key in runs[0]["params"]}
    changed = [key for key, values in names.items() if len(set(values)) > 1]
    rows = [["test images", *(run["tags"].get("test_set", "")[:8] for run in runs)]]
    rows += [[key, *names[key]] for key in dict.fromkeys(["classifier", *changed])]
    rows += [[key, *(_number(run["metrics"].get(key)) for run in runs)] for key in COLUMNS]
    return "\n".join(
        [table(f"The last evaluations of '{dataset}', newest first", header, rows), "", _mcnemar(store, runs)]
    )


def _when(run: Mapping[str, Any]) -> str:
    return datetime.fromtimestamp(run["start"] / 1000).strftime("%Y-%m-%d %H:%M")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mcnemar(store: str, runs: list[dict[str, Any]]) -> str:
    if len(runs) < 2:
        return "There will be a comparison once there is a second evaluation."
    if runs[0]["tags"].get("test_set") != runs[1]["tags"].get("test_set"):
        return (
            "The two newest were measured on different test images: their accuracies cannot be compared image by image."
        )
    newest, before = (_right(reading.download(store, run["id"], "predictions.csv")) for run in runs[:2])
    paths = sorted(newest.keys() & before.keys())
    result = mcnemar(np.array([newest[p] for p in paths]), np.array([before[p] for p in paths]))
    verdict = f"a difference that chance alone {'often' if result.p_value > 0.05 else 'rarely'} produces"
    return (
        f"Of {len(paths):,} test images, only the newest is right on {result.only_first_right}, "
        f"only the one before on {result.only_second_right}: {verdict} (McNemar's test, p = {result.p_value:.3f})."
    )


def _right(predictions: Path) -> dict[str, bool]:
    rows = read_table(predictions, PredictionRow, advice="run scripts/5_evaluate.py again")
    return {row.path: row.label == row.predicted for row in rows}


def earlier_runs(
    runs: Sequence[Mapping[str, Any]], *, parameters: Mapping[str, Any], data: str, test_set: str
) -> list[EarlierRun]:
    """What the report says about earlier runs (`reading.recent_runs`).

    Args:
        parameters: the present ones that can change the result (`Settings.mattering`).
        data, test_set: identities of all images, and of the test images with their labels, now.
    """
    return [_earlier(run, parameters, data, test_set) for run in runs]


def _earlier(run: Mapping[str, Any], parameters: Mapping[str, Any], data: str, test_set: str) -> EarlierRun:
    then, tags = run["params"], run["tags"]
    differences = [
        f"{name} = {then[name]}"
        for name, value in parameters.items()
        if name in then and then[name] != str(value)[:MOST_CHARACTERS]
    ]
    is_comparable = tags.get("test_set") == test_set
    if not is_comparable:
        differences.insert(0, "other test images or labels")
    elif tags.get("data") != data:
        differences.insert(0, "other training images or labels")
    return EarlierRun(
        _when(run),
        tuple(differences) or ("nothing",),
        run["metrics"].get("overall_accuracy"),
        run["metrics"].get("class_averaged_accuracy"),
        is_comparable,
    )
