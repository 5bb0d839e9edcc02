"""Pictures of a classifier's answers, for screen and print: matplotlib Figures, no global state."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from libraries.base import figures
from libraries.base.arrays import Float64, Floating, Int, Integer
from libraries.base.figures import (
    BLUE,
    GRAY,
    INK,
    LABEL_SIZE,
    LETTER,
    PALE,
    POINTS_PER_INCH,
    VERMILION,
    Curve,
    percent,
    short_name,
)
from libraries.evaluation import metrics

SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9cc7e2", BLUE, "#003a5c"])

FEW = 12  # up to so many classes everything fits


def roc_and_confusion(
    labels: Integer, predictions: Integer, probabilities: Floating, *, names: Sequence[str]
) -> Figure:
    """ROC curves with the AUC of each class (one against the rest), and the confusion matrix, side by side.

    Of two classes the curves mirror each other; the one of the rarer class is drawn.

    Args:
        labels: [N] true classes.
        predictions: [N] the answers.
        probabilities: [N, K].
        names: K names of the classes.
    """
    k = len(names)
    side = float(np.clip(4.4 + 0.06 * (k - 10), 4.4, 8.4))  # of each square, in inches
    room = label_room(names)
    figure = figures.new_figure(2 * side + 2.4 + room, side + 1.2 + room)
    left, right = figure.subplots(1, 2)

    counts = np.bincount(labels, minlength=k)
    classes = [int(counts.argmin())] if k == 2 else range(k)
    curves = {c: curve for c in classes if (curve := metrics.roc_curve(labels == c, probabilities[:, c])) is not None}
    scores = {c: metrics.auc(labels == c, probabilities[:, c]) or 0.0 for c in curves}
    left.plot([0, 1], [0, 1], color=PALE, linewidth=1, zorder=0)
    figures.curves_by_class(left, curves, scores, names=names, score="AUC", place="lower right")
    figures.unit_square(left, x="false positive rate", y="true positive rate")
    figures.write_title(left, "ROC curve" if k == 2 else "ROC curves, each class against the rest")

    matrix = metrics.confusion_matrix(labels, predictions, number_of_classes=k)
    confusion(right, matrix, names=names, side=side)
    figures.write_title(right, "Confusion matrix")
    return figure


def precision_recall(labels: Integer, probabilities: Floating, *, names: Sequence[str]) -> Figure:
    """Precision against recall of each class, with its average precision."""
    figure = figures.new_figure(5.8, 5.6)
    axes = figure.subplots()
    curves: dict[int, Curve] = {}
    for c in range(len(names)):
        curve = metrics.precision_recall_curve(labels == c, probabilities[:, c])
        if curve is not None:
            precision, recall = curve
            # Steps, as in the average precision: the precision at a recall holds from the recall before.
            curves[c] = np.repeat(np.append(0.0, recall), 2)[1:-1], np.repeat(precision, 2)
    scores = {c: metrics.average_precision(labels == c, probabilities[:, c]) or 0.0 for c in curves}
    figures.curves_by_class(axes, curves, scores, names=names, score="average precision", place="lower left")
    figures.unit_square(axes, x="recall", y="precision")
    figures.write_title(axes, "Precision and recall")
    return figure


def reliability(labels: Integer, probabilities: Floating) -> Figure:
    """Confidence against accuracy in bins of equally many images (95% bars), above a histogram of confidence."""
    bins = metrics.reliability(labels, probabilities)
    figure = figures.new_figure(5.6, 7.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    confidence, accuracy, images = (np.array([b[key] for b in bins]) for key in ("confidence", "accuracy", "images"))
    low, high = _wilson(accuracy, images)
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    above.vlines(confidence, low, high, color=BLUE, alpha=0.35, linewidth=2.5)
    above.plot(confidence, accuracy, color=BLUE, marker="o", markersize=5, linewidth=1.4)
    figures.unit_square(above, x="", y="accuracy")
    above.text(0.03, 0.97, "too cautious", color=GRAY, va="top", transform=above.transAxes)
    above.text(0.97, 0.03, "too confident", color=GRAY, ha="right", transform=above.transAxes)
    figures.write_title(above, f"Reliability: calibration error {100 * metrics.ece(bins):.1f}%")

    right, top = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    edges = np.linspace(0, 1, 21).tolist()
    below.hist([top[right], top[~right]], edges, stacked=True, color=[BLUE, VERMILION], label=["right", "wrong"])
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.legend(frameon=False, loc="upper left", fontsize=9)
    figures.tidy(below)
    below.grid(False)
    return figure


def _wilson(fraction: Float64, images: Float64, z: float = 1.96) -> tuple[Float64, Float64]:
    """95% interval of a fraction of independent images (Wilson 1927)."""
    centre = (fraction + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * np.sqrt(fraction * (1 - fraction) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return centre - half, centre + half


def label_room(names: Sequence[str]) -> float:
    """Inches that the longest name takes as a tick label."""
    return max(len(short_name(name)) for name in names) * LETTER * LABEL_SIZE / POINTS_PER_INCH


def confusion(axes: Axes, matrix: Int, *, names: Sequence[str], side: float) -> None:
    """Counts of true class (row) by predicted class (column), coloured by the fraction of the row.

    Args:
        matrix: [K, K] images.
        names: K names of the classes.
        side: length of the axes in inches; numbers and names are left out where they do not fit.
    """
    k = len(names)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Of many classes the single confusions are a few percent each: a square root makes them visible.
    norm = PowerNorm(0.5 if k > FEW else 1.0, vmin=0, vmax=1)
    image = axes.imshow(fractions, cmap=SHADES, norm=norm, aspect="equal", interpolation="nearest")
    cell = side * POINTS_PER_INCH / k
    digits = len(str(matrix.max()))
    size = min(11.0, cell / (0.8 * max(digits, 2)))
    if size >= 5:
        for row, column in zip(*np.nonzero(matrix if k > 4 else matrix + 1), strict=True):
            colour = "white" if norm(fractions[row, column]) > 0.5 else INK
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=size, color=colour)
    font = LABEL_SIZE if k <= 50 else 7
    step = math.ceil(1.25 * font / cell)
    ticks = range(0, k, step)
    labels = [short_name(names[c]) for c in ticks]
    axes.set_yticks(ticks, labels, fontsize=font)
    axes.set_xticks(ticks, labels, fontsize=font)
    if max(map(len, labels)) * LETTER * font > 0.95 * cell * step:
        axes.tick_params(axis="x", rotation=90)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white" if k <= 30 else PALE, linewidth=1.2 if k <= 30 else 0.2)
    axes.tick_params(which="minor", length=0)
    _fraction_bar(axes, image, many=k > FEW)


def _fraction_bar(axes: Axes, image: AxesImage, *, many: bool) -> None:
    """What the colours of a confusion matrix stand for, beside it."""
    marks = [0, 0.02, 0.1, 0.25, 0.5, 1] if many else [0, 0.25, 0.5, 0.75, 1]
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=28, pad=0.02, format=percent, ticks=marks)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.set_label("of the true class", fontsize=8, color=INK)
