"""The sweep over C as people see it: a table for the disk, one for the console, and a picture."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from libraries.base import figures
from libraries.base.arrays import Float32, Integer
from libraries.base.console import table
from libraries.base.figures import BLUE, GRAY, INK, VERMILION, Row
from libraries.classifier.svm import Sweep

LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")


def sweep_table(result: Sweep, embeddings: Float32, labels: Integer) -> list[dict[str, Any]]:
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


def sweep_figure(rows: Sequence[Row], *, chosen: tuple[str, float]) -> Figure:
    """Training, validation and test accuracy against C, one line style per normalisation.

    Args:
        rows: one per normalisation and C, with the keys normalisation, C, train_accuracy, validation_accuracy,
            validation_std and test_accuracy (fractions; None where not measured).
        chosen: the normalisation and the C that cross-validation chose.
    """
    figure = figures.new_figure(8, 4.8)
    axes = figure.subplots()
    kinds = {"training": ("train", GRAY), "validation": ("validation", BLUE), "test": ("test", VERMILION)}
    styles = dict(zip(dict.fromkeys(str(row["normalisation"]) for row in rows), cycle(LINE_STYLES), strict=False))
    for normalisation, style in styles.items():
        mine = sorted((row for row in rows if str(row["normalisation"]) == normalisation), key=lambda row: row["C"])
        c_values = figures.column(mine, "C")
        for key, colour in kinds.values():
            axes.plot(c_values, figures.column(mine, f"{key}_accuracy"), style, color=colour, marker="o", markersize=3)
        if normalisation == chosen[0]:
            mean, spread = figures.column(mine, "validation_accuracy"), figures.column(mine, "validation_std")
            axes.fill_between(c_values, mean - spread, mean + spread, color=BLUE, alpha=0.12, linewidth=0)
            at = np.isclose(c_values, chosen[1])
            figures.mark(axes, c_values[at], mean[at], f"chosen: C = {chosen[1]:.3g}")
    axes.set_xscale("log")
    axes.yaxis.set_major_formatter(figures.percent)
    axes.set(xlabel="C", ylabel="accuracy")
    lines = [Line2D([], [], color=colour, label=name, linewidth=2) for name, (_, colour) in kinds.items()]
    lines += [
        Line2D([], [], color=INK, linestyle=style, label=figures.short_name(name)) for name, style in styles.items()
    ]
    figures.legend_beside(axes, [*lines, *axes.get_legend_handles_labels()[0]])
    figures.tidy(axes)
    figures.write_title(axes, "Accuracy for every C")
    return figure
