"""What the answers to the test images cost, beside what other rules would have cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from libraries.base import figures
from libraries.base.arrays import Float64
from libraries.base.figures import BLUE, GRAY
from libraries.classifier.costs import Costs
from libraries.evaluation.metrics import accuracy_per_class, confusion_matrix, mean_of_known
from libraries.evaluation.testing import Tested

PER = 100  # images, of which costs are told


def cost_metrics(tested: Tested, costs: Costs, *, is_averaging: bool) -> dict[str, Any]:
    """What metrics.json says of it: means per image, in the unit of the costs.

    Args:
        is_averaging: whether the costs stand for the class-averaged accuracy.
    """
    labels, most_probable, nobody = (
        tested.labels,
        tested.probabilities.argmax(axis=1),
        np.zeros(len(tested.labels), bool),
    )
    asked = nobody if tested.asked is None else tested.asked
    paid, otherwise = costs.paid(labels, tested.predictions, asked), costs.paid(labels, most_probable, nobody)
    constant = [costs.matrix[labels, answer].mean() for answer in range(len(tested.names))]
    right = tested.predictions == labels
    found = {
        "unit": costs.unit,
        "answers": float(paid.mean()),
        "answers_margin": margin(paid, tested.groups),
        "most_probable": float(otherwise.mean()),
        "saved": float((otherwise - paid).mean()),
        "margin": margin(otherwise - paid, tested.groups),
        "always_the_same": float(min(constant)),
        "always_the_same_label": tested.names[int(np.argmin(constant))],
        "always_asking": None if costs.ask is None else float(costs.ask[labels].mean()),
        "asked": None if costs.ask is None else float(asked.mean()),
        "accuracy_of_answered": float(right[~asked].mean()) if not asked.all() else None,
    }
    if is_averaging:
        matrix = confusion_matrix(labels, most_probable, number_of_classes=len(tested.names))
        found["class_averaged_accuracy_of_most_probable"] = mean_of_known(accuracy_per_class(matrix))
    return found


def margin(differences: Float64, groups: list[str]) -> float:
    """Half the width of the 95% interval of a mean over images, [N]; those of a group, "" for none, are one draw."""
    names = [group or str(i) for i, group in enumerate(groups)]
    group = np.unique(names, return_inverse=True)[1]
    of_group = np.bincount(group, weights=differences) - differences.mean() * np.bincount(group)
    return 1.96 * float(np.sqrt((of_group**2).sum())) / len(differences)


def is_averaging(metrics: Mapping[str, Any]) -> bool:
    """Whether the costs stand for the class-averaged accuracy."""
    return "class_averaged_accuracy_of_most_probable" in metrics.get("costs", {})


def gained(saved: float, unit: str = "") -> str:
    """What is saved, or lost, in words."""
    return f"{saved:.3g}{unit} are saved" if saved >= 0 else f"{-saved:.3g}{unit} are lost"


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """The same in words, for the report and the console."""
    costs = metrics.get("costs")
    if costs is None:
        return []
    if is_averaging(metrics):
        now, otherwise = metrics["class_averaged_accuracy"], costs["class_averaged_accuracy_of_most_probable"]
        return [
            f"The answers aim at the class-averaged accuracy, which is {now:.1%}; that of the most probable labels "
            f"would be {otherwise:.1%}."
        ]
    unit = f" {costs['unit']}" if costs["unit"] else ""
    saved, spread = PER * costs["saved"], PER * costs["margin"]
    low, high = abs(saved) - spread, abs(saved) + spread  # of what is saved, or lost
    chance = ": it may be chance" if low <= 0 <= high else ""
    told = [
        f"By your costs, {PER} images like these cost {PER * costs['answers']:.4g}{unit}. The most probable labels "
        f"would cost {PER * costs['most_probable']:.4g}{unit}: {gained(saved, unit)} (95% interval "
        f"{low:.3g} to {high:.3g}{chance}). Always saying ‘{costs['always_the_same_label']}’ would cost "
        f"{PER * costs['always_the_same']:.4g}{unit}."
    ]
    if costs["asked"] is not None:
        answered = costs["accuracy_of_answered"]
        rest = "" if answered is None else f"; of the others, {answered:.1%} are right"
        told.append(
            f"A person would be asked about {costs['asked']:.1%} of the images{rest}. Asking about all of them would "
            f"cost {PER * costs['always_asking']:.4g}{unit}."
        )
    return told


def cost_figure(metrics: Mapping[str, Any]) -> Figure:
    """What the images cost by each rule, as bars."""
    costs = metrics["costs"]
    bars = {
        f"always ‘{figures.short_name(costs['always_the_same_label'])}’": costs["always_the_same"],
        "always asking": costs["always_asking"],
        "the most probable label": costs["most_probable"],
        "these answers": costs["answers"],
    }
    known = {name: PER * value for name, value in bars.items() if value is not None}
    figure = figures.new_figure(5.8, 0.5 * len(known) + 1.4)
    axes = figure.subplots()
    colours = [BLUE if name == "these answers" else GRAY for name in known]
    drawn = axes.barh(range(len(known)), list(known.values()), color=colours, height=0.62)
    axes.bar_label(drawn, [f"{value:.4g}" for value in known.values()], padding=4)
    axes.set_yticks(range(len(known)), list(known))
    axes.set_xlim(0, 1.15 * max(known.values()) or 1)
    unit = f" [{costs['unit']}]" if costs["unit"] else ""
    axes.set(xlabel=f"cost of {PER} images{unit}")
    figures.tidy(axes)
    axes.grid(False)
    figures.write_title(axes, "What the answers cost")
    return figure
