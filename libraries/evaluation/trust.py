"""Are the promises kept on the test images? How many are unknown, and how often the true label is in the set."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from libraries.base import figures
from libraries.base.arrays import Float64
from libraries.base.figures import BLUE, GRAY
from libraries.classifier.trust import percent
from libraries.evaluation.testing import Tested

_SIGMAS = 4  # of the binomial distribution
_FEW = 20  # test images of a class, below which its share says little


def trust_metrics(tested: Tested, trust: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics.json says of it, each promise beside what was measured.

    Args:
        trust: of the bundle's model.json; empty: it promises nothing.
    """
    found: dict[str, Any] = {}
    if tested.unknown is None or tested.sets is None:
        what = " and ".join(
            name
            for name, known in (("unknown images", tested.unknown), ("likely labels", tested.sets))
            if known is None
        )
        why = "its training images are too few" if trust else "it was made by an earlier version: run script 4 again"
        found["missing"] = f"It does not tell {what}: {why}."
    if tested.unknown is not None:
        found["unknown"] = {"at_most": trust["unknown_rate"], "measured": float(tested.unknown.mean())}
    if tested.sets is not None:
        rows = np.arange(len(tested.labels))
        holds, sizes = tested.sets[rows, tested.labels], tested.sets.sum(axis=1)
        per_class = {
            name: float(holds[tested.labels == k].mean()) if (tested.labels == k).any() else None
            for k, name in enumerate(tested.names)
        }
        found["sets"] = {
            "at_least": trust["coverage"],
            "measured": float(holds.mean()),
            "measured_per_class": per_class,
            "labels_on_average": float(sizes.mean()),
            "with_one_label": float((sizes == 1).mean()),
        }
    return found


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """The same in words, for the report and the console."""
    trust, counts = metrics.get("trust", {}), metrics["number_of_test_images_per_class"]
    images, told = metrics["number_of_test_images"], []
    if (unknown := trust.get("unknown")) is not None:
        told.append(
            f"It calls {unknown['measured']:.1%} of the test images unknown, though they are of its classes; at most "
            f"{percent(unknown['at_most'])} of such images was promised, on average."
            f"{_warning(unknown['measured'], unknown['at_most'], images)}"
        )
    if (sets := trust.get("sets")) is not None:
        told.append(
            f"The likely labels that it gives hold the true one for {sets['measured']:.1%} of the test images; at "
            f"least {percent(sets['at_least'])} was promised. It names {sets['labels_on_average']:.2f} labels on "
            f"average, and for {sets['with_one_label']:.0%} of the images a single one."
            f"{_warning(1 - sets['measured'], 1 - sets['at_least'], images)}"
        )
        shares = {k: v for k, v in sets["measured_per_class"].items() if v is not None and counts[k] >= _FEW}
        lowest = min(shares, key=shares.__getitem__, default=None)
        if lowest is not None and shares[lowest] < sets["at_least"]:
            told.append(f"Of its classes, they do so least often for ‘{lowest}’: {shares[lowest]:.1%}.")
    return [*told, *([trust["missing"]] if "missing" in trust else [])]


def _warning(share: float, allowed: float, images: int) -> str:
    """What to say where a promise is missed by far: more than twice, and more than chance explains."""
    is_broken = share > 2 * allowed and share > allowed + _SIGMAS * math.sqrt(allowed * (1 - allowed) / images)
    return " This promise is not kept on these images: do not rely on it." if is_broken else ""


def error_by_share(tested: Tested) -> tuple[Float64, Float64]:
    """The surest share of the images, [N], and the share of these that are wrong, [N]."""
    order = np.argsort(-tested.probabilities.max(axis=1), kind="stable")
    wrong = np.cumsum((tested.predictions != tested.labels)[order])
    count = np.arange(1, len(order) + 1)
    return count / len(order), wrong / count


def trust_figure(tested: Tested) -> Figure:
    """The share of wrong answers if only the surest images are answered, and the rest is left to a person."""
    share, wrong = error_by_share(tested)
    figure = figures.new_figure(5.8, 4.4)
    axes = figure.subplots()
    axes.plot(share, wrong, color=BLUE, linewidth=1.6)
    if tested.unknown is not None and not tested.unknown.all():
        known = ~tested.unknown
        at = float(known.mean()), float((tested.predictions != tested.labels)[known].mean())
        axes.plot(*at, "o", color=GRAY, markersize=6)
        axes.annotate("without unknown ones", at, (-8, 8), textcoords="offset points", ha="right", color=GRAY)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(figures.percent)
    axes.yaxis.set_major_formatter(figures.percent)
    axes.set(xlabel="images answered, the surest first", ylabel="of these, wrong")
    figures.tidy(axes)
    figures.write_title(axes, "Wrong answers, if the unsure are left to a person")
    return figure
