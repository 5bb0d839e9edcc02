"""The style of all figures: colours, axes, legends, and class names of any number, length and script.

The colours are those of Okabe & Ito (2008), which colour-blind people can distinguish.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from libraries.base.arrays import Float64
from libraries.base.storage import atomic_path

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

LABEL_SIZE = 9  # points
DPI = 150
LETTER = 0.6  # width of a letter, in font sizes
POINTS_PER_INCH = 72
# Fonts for the scripts that DejaVu Sans lacks, used where installed.
WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Malgun Gothic",
    "Arial Unicode MS",
)

Place = Literal["lower left", "lower right"]
Row = Mapping[str, Any]
Curve = tuple[Float64, Float64]  # x and y of its points


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size [inches], on a canvas that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04)  # type: ignore[union-attr, call-arg]
    return figure


def short_name(name: str, longest: int = 22) -> str:
    """The name, shortened in the middle if too long, and escaped so that matplotlib takes it literally."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-(longest // 2 - 1) :]}"
    return name.replace("$", r"\$")


def font_families() -> list[str]:
    """The fonts to search for a glyph, in order."""
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
    """A tick label: 0.85 as 85%, with decimals only where needed."""
    return f"{round(100 * value, 2):g}%"


def legend_beside(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    """A legend to the right of the axes, where it hides nothing."""
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
    """A curve for each class, with its score in the legend.

    Up to seven classes get a colour each. With more, only the weakest are coloured; the others are thin and gray.
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
        # The number comes first: it lines up, and matplotlib skips labels that begin with an underscore.
        line.set_label(f"{scores[c]:.3f}  {short_name(names[c])}")
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


def apply_fonts(figure: Figure) -> None:
    """Set fonts that cover the glyphs of every text in the figure."""
    families = font_families()
    for text in figure.findobj(matplotlib.text.Text):
        text.set_fontfamily(families)


def column(rows: Sequence[Row], key: str) -> Float64:
    """A column of N rows, float64 [N]; NaN, which matplotlib skips, where a value is missing."""
    return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])


def mark(axes: Axes, x: Float64, y: Float64, label: str) -> None:
    """A ring around the chosen point, and a line down to its value."""
    for value in x:
        axes.axvline(value, color=GRAY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    axes.plot(x, y, "o", markersize=11, markerfacecolor="none", color=BLUE, markeredgewidth=1.8, label=label, zorder=5)


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG at 150 dpi, atomically; raises StorageError."""
    apply_fonts(figure)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # shown as a box
        figure.savefig(temporary, dpi=DPI, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.1)
