"""What training an SVM leaves in its folder: its arrays, the sweep over C, and the learning curve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from libraries.base import figures
from libraries.base.arrays import Bool, Float32, Integer
from libraries.base.console import table
from libraries.base.figures import BLUE, GRAY, INK, VERMILION
from libraries.base.storage import Artefact, atomic
from libraries.base.tables import Column, write_table
from libraries.classifier.calibration import Calibration
from libraries.classifier.costs import Costs
from libraries.classifier.cross_validation import SweepRow
from libraries.classifier.learning_curve import LearningCurve, write_learning_curve
from libraries.classifier.svm import LinearModel
from libraries.classifier.sweep import Sweep

LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class MeasuredRow(SweepRow):
    """A row of sweep.csv: a row of the sweep with the accuracy on the test images, and whether it was chosen."""

    test_accuracy: Annotated[float | None, Column("fraction of the test images that are right; only reported")]
    chosen: Annotated[bool, Column("whether cross-validation chose this row")]

    def scalars(self) -> dict[str, float]:
        """Its numbers by their names, for the run history."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, float)}


def write_svm(
    artefact: Artefact,
    result: Sweep,
    rows: Sequence[MeasuredRow],
    curve: LearningCurve | None,
    *,
    names: Sequence[str],
) -> list[Path]:
    """Write the folder of an SVM, its manifest last.

    Args:
        rows: of the sweep, see `sweep_rows`.
        curve: None where there is no test image.
        names: K names of the classes.

    Returns:
        The files.
    """
    folder = artefact.folder
    files = [folder / name for name in ("svm.npz", "sweep.csv", "sweep.png")]
    artefact.begin()
    save_model(files[0], result.models[result.best], result.calibrations[result.best], labels=names)
    write_table(files[1], MeasuredRow, rows)
    figures.save(sweep_figure(rows), files[2])
    if curve is not None:
        files += write_learning_curve(curve, folder)
    artefact.commit(files, advice=curve.advice() if curve is not None else [])
    return files


def save_model(path: Path, model: LinearModel, calibration: Calibration, *, labels: Sequence[str]) -> None:
    """Write svm.npz: the arrays of the linear model and its calibration, readable with numpy alone."""
    parts = {"svm": asdict(model), "calibration": asdict(calibration)}
    arrays = {f"{part}_{name}": np.asarray(value) for part, values in parts.items() for name, value in values.items()}
    with atomic(path) as file:
        np.savez(file, allow_pickle=False, labels=np.array(labels), **arrays)


def sweep_rows(result: Sweep, embeddings: Float32, labels: Integer, *, costs: Costs | None = None) -> list[MeasuredRow]:
    """The rows of sweep.csv: the sweep with the accuracy on the test set, reported for every C and used for none.

    Args:
        embeddings, labels: the test set, [N, D] and [N]; N may be 0, then the accuracy is None.
        costs: of mistakes, by which answers are chosen; None: all cost the same.
    """
    rows = []
    for i, (row, model, calibration) in enumerate(zip(result.rows, result.models, result.calibrations, strict=True)):
        predicted = calibration.labels(model.scores(embeddings), costs)
        test_accuracy = float((predicted == labels).mean()) if len(labels) else None
        rows.append(MeasuredRow(**asdict(row), test_accuracy=test_accuracy, chosen=i == result.best))
    return rows


def sweep_table(rows: Sequence[MeasuredRow], costs: Costs | None = None) -> str:
    """The sweep as a table for the console, the chosen row marked."""
    has_costs = any(row.validation_cost is not None for row in rows)
    of_costs = ["cost" if costs is None or not costs.unit else f"cost [{costs.unit}]"] if has_costs else []
    header = ["normalisation", "C", "training", "validation", "test", *of_costs]

    def accuracies(row: MeasuredRow) -> tuple[float | None, ...]:
        return row.train_accuracy, row.validation_accuracy, row.test_accuracy

    body = [
        (
            f"{row.normalisation}{' *' if row.chosen else ''}",
            f"{row.C:g}",
            *("–" if value is None else f"{value:.1%}" for value in accuracies(row)),
            *(["–" if row.validation_cost is None else f"{row.validation_cost:.4g}"] if has_costs else []),
        )
        for row in rows
    ]
    by = "the cost in cross-validation" if has_costs else "cross-validation"
    by += ", as what seems better may be chance" if not _is_best(rows) else ""
    return table(f"Accuracy for every C (* chosen by {by}; the test set is only reported)", header, body)


def _is_best(rows: Sequence[MeasuredRow]) -> bool:
    """Whether no row seems better than the chosen one; see choose_from_few and choose_for_more."""
    return all(row.loss >= chosen.loss for chosen in rows if chosen.chosen for row in rows)


def sample_line(chosen_by: Bool) -> str:
    """Of which of all training images a sweep made its choice; empty if of all."""
    if chosen_by.all():
        return ""
    return (
        f"Cross-validated on {chosen_by.sum():,} of the {len(chosen_by):,} training images, drawn from every class; "
        "the chosen SVM is fitted on all"
    )


def untried_line(untried: Mapping[str, Sequence[float]]) -> str:
    """Which values of C of a sweep were not tried, and why; empty if all were."""
    by_normalisation = [f"{name} with C = {', '.join(f'{c:g}' for c in values)}" for name, values in untried.items()]
    return f"Not tried, as it had become worse: {'; '.join(by_normalisation)}" if untried else ""


def sweep_figure(tested: Sequence[MeasuredRow]) -> Figure:
    """Training, validation and test accuracy against C, one line style per normalisation."""
    rows = [asdict(row) for row in tested]
    chosen = next((row.normalisation, row.C) for row in tested if row.chosen)
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
