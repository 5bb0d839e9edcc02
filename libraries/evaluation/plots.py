"""Pictures of a classifier and of its training, for screen and print: matplotlib Figures, no global state."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from libraries.base.arrays import Float64, Floating, Integer
from libraries.base.storage import atomic_path
from libraries.evaluation import drawing, metrics
from libraries.evaluation.drawing import BLUE, GRAY, INK, PALE, VERMILION, Curve
from libraries.evaluation.learning_curve import LearningCurve

DPI = 150
LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
Row = Mapping[str, Any]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG at 150 dpi, whole or not at all."""
    drawing.apply_fonts(figure)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # a box has to do
        figure.savefig(temporary, dpi=DPI, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.1)


def roc_and_confusion(labels: Integer, probabilities: Floating, *, names: Sequence[str]) -> Figure:
    """ROC curves with the AUC of each class (one against the rest), and the confusion matrix, side by side.

    Of two classes the curves mirror each other; the one of the rarer class is drawn.

    Args:
        labels: [N] true classes.
        probabilities: [N, K].
        names: K names of the classes.
    """
    k = len(names)
    side = float(np.clip(4.4 + 0.06 * (k - 10), 4.4, 8.4))  # of each square, in inches
    room = drawing.label_room(names)
    figure = drawing.new_figure(2 * side + 2.4 + room, side + 1.2 + room)
    left, right = figure.subplots(1, 2)

    counts = np.bincount(labels, minlength=k)
    classes = [int(counts.argmin())] if k == 2 else range(k)
    curves = {c: curve for c in classes if (curve := metrics.roc_curve(labels == c, probabilities[:, c])) is not None}
    scores = {c: metrics.auc(labels == c, probabilities[:, c]) or 0.0 for c in curves}
    left.plot([0, 1], [0, 1], color=PALE, linewidth=1, zorder=0)
    drawing.curves_by_class(left, curves, scores, names=names, score="AUC", place="lower right")
    drawing.unit_square(left, x="false positive rate", y="true positive rate")
    drawing.write_title(left, "ROC curve" if k == 2 else "ROC curves, each class against the rest")

    matrix = metrics.confusion_matrix(labels, probabilities.argmax(axis=1), number_of_classes=k)
    drawing.confusion(right, matrix, names=names, side=side)
    drawing.write_title(right, "Confusion matrix")
    return figure


def precision_recall(labels: Integer, probabilities: Floating, *, names: Sequence[str]) -> Figure:
    """Precision against recall of each class, with its average precision."""
    figure = drawing.new_figure(5.8, 5.6)
    axes = figure.subplots()
    curves: dict[int, Curve] = {}
    for c in range(len(names)):
        curve = metrics.precision_recall_curve(labels == c, probabilities[:, c])
        if curve is not None:
            precision, recall = curve
            # Steps, as in the average precision: the precision at a recall holds from the recall before.
            curves[c] = np.repeat(np.append(0.0, recall), 2)[1:-1], np.repeat(precision, 2)
    scores = {c: metrics.average_precision(labels == c, probabilities[:, c]) or 0.0 for c in curves}
    drawing.curves_by_class(axes, curves, scores, names=names, score="average precision", place="lower left")
    drawing.unit_square(axes, x="recall", y="precision")
    drawing.write_title(axes, "Precision and recall")
    return figure


def reliability(labels: Integer, probabilities: Floating) -> Figure:
    """Confidence against accuracy in bins of equally many images (95% bars), above a histogram of confidence."""
    bins = metrics.reliability(labels, probabilities)
    figure = drawing.new_figure(5.6, 7.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    confidence, accuracy, images = (np.array([b[key] for b in bins]) for key in ("confidence", "accuracy", "images"))
    low, high = _wilson(accuracy, images)
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    above.vlines(confidence, low, high, color=BLUE, alpha=0.35, linewidth=2.5)
    above.plot(confidence, accuracy, color=BLUE, marker="o", markersize=5, linewidth=1.4)
    drawing.unit_square(above, x="", y="accuracy")
    above.text(0.03, 0.97, "too cautious", color=GRAY, va="top", transform=above.transAxes)
    above.text(0.97, 0.03, "too confident", color=GRAY, ha="right", transform=above.transAxes)
    drawing.write_title(above, f"Reliability: calibration error {100 * metrics.ece(bins):.1f}%")

    right, top = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    edges = np.linspace(0, 1, 21).tolist()
    below.hist([top[right], top[~right]], edges, stacked=True, color=[BLUE, VERMILION], label=["right", "wrong"])
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.legend(frameon=False, loc="upper left", fontsize=9)
    drawing.tidy(below)
    below.grid(False)
    return figure


def _wilson(fraction: Float64, images: Float64, z: float = 1.96) -> tuple[Float64, Float64]:
    """95% interval of a fraction of independent images (Wilson 1927)."""
    centre = (fraction + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * np.sqrt(fraction * (1 - fraction) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return centre - half, centre + half


def sweep(rows: Sequence[Row], *, chosen: tuple[str, float]) -> Figure:
    """Training, validation and test accuracy against C, one line style per normalisation.

    Args:
        rows: one per normalisation and C, with the keys normalisation, C, train_accuracy, validation_accuracy,
            validation_std and test_accuracy (fractions; None where not measured).
        chosen: the normalisation and the C that cross-validation chose.
    """
    figure = drawing.new_figure(8, 4.8)
    axes = figure.subplots()
    kinds = {"training": ("train", GRAY), "validation": ("validation", BLUE), "test": ("test", VERMILION)}
    styles = dict(zip(dict.fromkeys(str(row["normalisation"]) for row in rows), cycle(LINE_STYLES), strict=False))
    for normalisation, style in styles.items():
        mine = sorted((row for row in rows if str(row["normalisation"]) == normalisation), key=lambda row: row["C"])
        c_values = _column(mine, "C")
        for key, colour in kinds.values():
            axes.plot(c_values, _column(mine, f"{key}_accuracy"), style, color=colour, marker="o", markersize=3)
        if normalisation == chosen[0]:
            mean, spread = _column(mine, "validation_accuracy"), _column(mine, "validation_std")
            axes.fill_between(c_values, mean - spread, mean + spread, color=BLUE, alpha=0.12, linewidth=0)
            at = np.isclose(c_values, chosen[1])
            _mark(axes, c_values[at], mean[at], f"chosen: C = {chosen[1]:.3g}")
    axes.set_xscale("log")
    axes.yaxis.set_major_formatter(drawing.percent)
    axes.set(xlabel="C", ylabel="accuracy")
    lines = [Line2D([], [], color=colour, label=name, linewidth=2) for name, (_, colour) in kinds.items()]
    lines += [Line2D([], [], color=INK, linestyle=style, label=drawing.shown(name)) for name, style in styles.items()]
    drawing.legend_beside(axes, [*lines, *axes.get_legend_handles_labels()[0]])
    drawing.tidy(axes)
    drawing.write_title(axes, "Accuracy for every C")
    return figure


def training_curves(rows: Sequence[Row], *, chosen_epoch: int) -> Figure:
    """Training, validation and test error per epoch, above the learning rate.

    Args:
        rows: one per epoch with the keys epoch, train_error, validation_error, test_error (fractions; None where not
            measured), learning_rate and seconds.
        chosen_epoch: the epoch whose weights were kept.
    """
    figure = drawing.new_figure(8, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.6, 1])
    epochs = _column(rows, "epoch")
    for name, key, colour in (
        ("training", "train", GRAY),
        ("validation", "validation", BLUE),
        ("test", "test", VERMILION),
    ):
        errors = _column(rows, f"{key}_error")
        if np.isfinite(errors).any():
            above.plot(epochs, errors, color=colour, marker="o", markersize=3, label=name)
    at = epochs == chosen_epoch
    _mark(above, epochs[at], _column(rows, "validation_error")[at], f"chosen: epoch {chosen_epoch}")
    above.set_ylim(bottom=0)
    above.yaxis.set_major_formatter(drawing.percent)
    above.set_ylabel("error")
    drawing.legend_beside(above)
    drawing.tidy(above)
    drawing.write_title(above, "Error per epoch")

    rates = _column(rows, "learning_rate")
    below.plot(epochs, rates, color=INK)
    below.set_ylim(0, 1.15 * np.nanmax(rates) or 1)
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    below.set(xlabel=f"epoch ({np.median(_column(rows, 'seconds')):.3g} s each)", ylabel="learning rate")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawing.tidy(below)
    return figure


def learning_curve(curve: LearningCurve) -> Figure:
    """Accuracy on the test images against the number of training images: of all, with its range, and of each class."""
    figure = drawing.new_figure(8, 4.8)
    axes = figure.subplots()
    classes = curve.accuracy_per_class.mean(axis=1)  # [P, K]
    images = curve.images.astype(float)
    curves = {int(c): (images, classes[:, c]) for c in np.flatnonzero(np.isfinite(classes[-1]))}
    scores = {c: float(classes[-1, c]) for c in curves}
    drawing.curves_by_class(axes, curves, scores, names=curve.names, score="accuracy", place="lower right")
    mean, low, high = curve.accuracy.mean(axis=1), curve.accuracy.min(axis=1), curve.accuracy.max(axis=1)
    axes.fill_between(images, low, high, color=INK, alpha=0.12, linewidth=0)
    axes.plot(images, mean, color=INK, linewidth=2.6, marker="o", markersize=5, zorder=3)
    axes.annotate(f"{mean[-1]:.1%}", (images[-1], mean[-1]), (7, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.set_xticks(images, [f"{count:,}" for count in curve.images])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(drawing.percent)
    axes.set(xlabel="training images", ylabel="accuracy on the test images")
    drawing.tidy(axes)
    drawing.write_title(axes, "Accuracy and training images")
    return figure


def _column(rows: Sequence[Row], key: str) -> Float64:
    """[rows] float64; NaN, which matplotlib leaves out, where a value is missing."""
    return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])


def _mark(axes: Axes, x: Float64, y: Float64, label: str) -> None:
    """A ring around the chosen point, and a line down to its value."""
    for value in x:
        axes.axvline(value, color=GRAY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    axes.plot(x, y, "o", markersize=11, markerfacecolor="none", color=BLUE, markeredgewidth=1.8, label=label, zorder=5)
