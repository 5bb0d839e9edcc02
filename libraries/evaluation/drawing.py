"""The look of every picture: colours, axes, legends, and class names of any length, number and script.

The colours are Okabe & Ito's (2008), which colour-blind people tell apart.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from libraries.base.arrays import Float64, Int

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
INK, GRAY, PALE = "#22262b", "#8a8f98", "#dfe2e6"
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9cc7e2", BLUE, "#003a5c"])

FEW = 12  # up to so many classes everything fits
LABEL_SIZE = 9  # points
LETTER = 0.6  # width of a letter, in font sizes
POINTS_PER_INCH = 72
# Fonts with the scripts that DejaVu Sans lacks, where the system has one.
WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Malgun Gothic",
    "Arial Unicode MS",
)

Place = Literal["lower left", "lower right"]
Curve = tuple[Float64, Float64]  # x and y of its points


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, with a canvas of its own that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04)  # type: ignore[union-attr, call-arg]
    return figure


def shown(name: str, longest: int = 22) -> str:
    """A name as text that matplotlib takes literally, cut in the middle when too long."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-(longest // 2 - 1) :]}"
    return name.replace("$", r"\$")


def font_families() -> list[str]:
    """The fonts to look for a letter in, one after the other."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]


def write_title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=10)


def tidy(axes: Axes) -> None:
    """Quiet axes: no box, a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY, labelcolor=INK, labelsize=9)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def unit_square(axes: Axes, *, x: str, y: str) -> None:
    """Both axes from 0 to 1, equally long."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    tidy(axes)


def percent(value: float, _position: Any = None) -> str:
    """A tick label: 0.85 as 85%, with a digit behind the point only where needed."""
    return f"{round(100 * value, 2):g}%"


def legend_beside(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    """A legend right of the axes, where it hides nothing."""
    axes.legend(
        handles=handles or axes.get_legend_handles_labels()[0],
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=9,
    )


def curves_by_class(
    axes: Axes, curves: dict[int, Curve], scores: dict[int, float], *, names: Sequence[str], score: str, place: Place
) -> None:
    """A curve for each class with its score in the legend.

    Few classes have a colour each. Of many, all are thin and gray, and the weakest, which one looks for, stand out.
    """
    weakest_first = sorted(curves, key=lambda c: scores[c])
    many = len(curves) > len(COLOURS)
    coloured = weakest_first[: len(COLOURS) - 2] if many else list(curves)
    handles = []
    for c in curves:
        x, y = curves[c]
        if c not in coloured:
            axes.plot(x, y, color=GRAY, alpha=0.35, linewidth=0.7, zorder=1)
    for c, colour in zip(coloured, COLOURS, strict=False):
        x, y = curves[c]
        (line,) = axes.plot(x, y, color=colour, linewidth=1.7, zorder=2)
        # The number first: it lines up, and matplotlib leaves out labels that begin with an underscore.
        line.set_label(f"{scores[c]:.3f}  {shown(names[c])}")
        handles.append(line)
    if many:
        others = np.mean([scores[c] for c in curves if c not in coloured])
        handles.append(
            Line2D(
                [], [], color=GRAY, linewidth=1, label=f"{others:.3f}  mean of the other {len(curves) - len(coloured)}"
            )
        )
    if handles:
        legend = axes.legend(handles=handles, loc=place, title=score, fontsize=9, title_fontsize=9, framealpha=0.92)
        legend.set_alignment("left")
        legend.get_frame().set_edgecolor("none")
    else:
        axes.text(0.5, 0.5, "needs test images of two classes", ha="center", color=GRAY)


def label_room(names: Sequence[str]) -> float:
    """Inches that the longest name takes as a tick label."""
    return max(len(shown(name)) for name in names) * LETTER * LABEL_SIZE / POINTS_PER_INCH


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
    labels = [shown(names[c]) for c in ticks]
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
    marks = [0, 0.02, 0.1, 0.25, 0.5, 1] if k > FEW else [0, 0.25, 0.5, 0.75, 1]
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=28, pad=0.02, format=percent, ticks=marks)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.set_label("of the true class", fontsize=8, color=INK)


def apply_fonts(figure: Figure) -> None:
    """Give every text of the figure the fonts that its letters need."""
    families = font_families()
    for text in figure.findobj(matplotlib.text.Text):
        text.set_fontfamily(families)
