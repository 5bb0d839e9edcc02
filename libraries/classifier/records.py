"""What a trained SVM leaves behind: its arrays, and the table of the sweep."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.base.console import table
from libraries.base.storage import atomic
from libraries.classifier.calibration import Calibration
from libraries.classifier.svm import LinearModel, Sweep


def sweep_table(
    result: Sweep, embeddings: npt.NDArray[np.float32], labels: npt.NDArray[np.integer[Any]]
) -> list[dict[str, Any]]:
    """The rows of sweep.csv: the sweep with the accuracy on the test set, reported for every C and used for none.

    Args:
        embeddings, labels: the test set, [N, D] and [N]; N may be 0, then the accuracy is None.
    """
    rows = []
    for i, (row, model, calibration) in enumerate(zip(result.rows, result.models, result.calibrations, strict=True)):
        predicted = calibration.labels(model.scores(embeddings))
        test_accuracy = float((predicted == labels).mean()) if len(labels) else None
        rows.append({**asdict(row), "test_accuracy": test_accuracy, "chosen": i == result.best})
    return rows


def sweep_text(rows: Sequence[dict[str, Any]], *, best: int) -> str:
    """The sweep as a table for the console, the chosen row marked."""
    header = ["normalisation", "C", "training", "validation", "test"]
    columns = ("train_accuracy", "validation_accuracy", "test_accuracy")
    body = [
        (
            f"{row['normalisation']}{' *' if i == best else ''}",
            f"{row['C']:g}",
            *("–" if row[column] is None else f"{row[column]:.1%}" for column in columns),
        )
        for i, row in enumerate(rows)
    ]
    return table("Accuracy for every C (* chosen by cross-validation; the test set is only reported)", header, body)


def save_model(path: Path, model: LinearModel, calibration: Calibration, *, labels: Sequence[str]) -> None:
    """Write svm.npz: the arrays of the linear model and its calibration, readable with numpy alone."""
    parts = {"svm": asdict(model), "calibration": asdict(calibration)}
    arrays = {f"{part}_{name}": np.asarray(value) for part, values in parts.items() for name, value in values.items()}
    with atomic(path) as file:
        np.savez(file, allow_pickle=False, labels=np.array(labels), **arrays)
