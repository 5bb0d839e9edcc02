"""The output of step 2: the network, trained or unchanged, with its calibration, and the course of training."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from libraries.base import figures
from libraries.base.arrays import Float32, Int
from libraries.base.errors import ImageError, NetworkError
from libraries.base.figures import BLUE, GRAY, INK, VERMILION, Row
from libraries.base.storage import Artefact
from libraries.base.tables import write_table
from libraries.data.dataset import Example, groups_per_class, load_example
from libraries.data.images import ResizeRule
from libraries.network.artefact import write_network
from libraries.network.graphs.graph_network import GraphNetwork
from libraries.network.training.refine import Epoch, Refined


class FittedCalibration(Protocol):
    """What turns scores into probabilities."""

    def to_json(self) -> dict[str, Any]: ...


class Calibrate(Protocol):
    """Scores [N, K], labels [N] and the number of independent examples of each class [K] → a calibration."""

    def __call__(self, scores: Float32, labels: Int, *, evidence: Sequence[int]) -> FittedCalibration: ...


def write_refined_network(
    artefact: Artefact,
    refined: Refined,
    *,
    names: Sequence[str],
    groups: Sequence[int],
    rule: ResizeRule,
    calibrate: Calibrate,
) -> list[dict[str, Any]]:
    """Write training.csv, training.png and the network folder, its manifest last.

    Args:
        names: of the classes.
        groups: number of groups of validation images, per class.
        calibrate: turns scores into probabilities, fitted on the validation images: the last use of these.

    Returns:
        The rows of training.csv.
    """
    rows = [asdict(row) for row in refined.history]
    table, picture = artefact.folder / "training.csv", artefact.folder / "training.png"
    artefact.begin()
    write_table(table, Epoch, refined.history)
    figures.save(training_curves(rows, chosen_epoch=refined.best_epoch), picture)
    calibration = calibrate(refined.validation_logits, refined.validation_labels, evidence=groups)
    write_network(
        artefact,
        refined.network,
        rule=rule,
        labels=list(names),
        files=[table, picture],
        calibration=calibration.to_json(),
        best_epoch=refined.best_epoch,
    )
    return rows


def write_network_as_it_is(
    artefact: Artefact,
    network: GraphNetwork,
    examples: Sequence[Example],
    *,
    folder: Path,
    rule: ResizeRule,
    calibrate: Calibrate,
    labels: Sequence[str] = (),
    progress: Callable[[], object] = lambda: None,
) -> float:
    """Write the folder of a network that keeps its own classes, calibrated on some examples.

    Args:
        folder: of the data set, which the examples' paths are relative to.
        calibrate: turns scores into probabilities, fitted on the examples.
        labels: the network's classes in its order; by default those of the examples in alphabetical order.
        progress: called after every image.

    Returns:
        The fraction of the examples that the network classifies correctly.

    Raises:
        NetworkError: the network's classes are not those of the examples.
    """
    present = sorted({example.label for example in examples})
    names = list(labels) or present
    if len(names) != network.classes or sorted(names) != present:
        raise NetworkError(
            f"{network.architecture} has {network.classes} classes, and the data set has {len(present)} "
            f"({', '.join(present[:5])}{', …' if len(present) > 5 else ''}): set rf_labels to the network's classes, "
            "in its order; the data set must have the same"
        )
    index = {name: number for number, name in enumerate(names)}
    scores, truth, scored = [], [], []
    for example, outputs in network.engine().stream(examples, partial(load_example, folder=folder, rule=rule)):
        if not isinstance(outputs, ImageError):
            scores.append(outputs["scores"])
            truth.append(index[example.label])
            scored.append(example)
        progress()
    calibration = calibrate(np.stack(scores), np.array(truth), evidence=groups_per_class(scored, names))
    write_network(
        artefact,
        network,
        rule=rule,
        labels=names,
        calibration=calibration.to_json(),
    )
    return float((np.stack(scores).argmax(axis=1) == truth).mean())


def training_curves(rows: Sequence[Row], *, chosen_epoch: int) -> Figure:
    """Training, validation and test error per epoch, above the learning rate.

    Args:
        rows: one per epoch with the keys epoch, train_error, validation_error, test_error (fractions; None where not
            measured), learning_rate and seconds.
        chosen_epoch: the epoch whose weights were kept.
    """
    figure = figures.new_figure(8, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.6, 1])
    epochs = figures.column(rows, "epoch")
    for name, key, colour in (
        ("training", "train", GRAY),
        ("validation", "validation", BLUE),
        ("test", "test", VERMILION),
    ):
        errors = figures.column(rows, f"{key}_error")
        if np.isfinite(errors).any():
            above.plot(epochs, errors, color=colour, marker="o", markersize=3, label=name)
    at = epochs == chosen_epoch
    figures.mark(above, epochs[at], figures.column(rows, "validation_error")[at], f"chosen: epoch {chosen_epoch}")
    above.set_ylim(bottom=0)
    above.yaxis.set_major_formatter(figures.percent)
    above.set_ylabel("error")
    figures.legend_beside(above)
    figures.tidy(above)
    figures.write_title(above, "Error per epoch")

    rates = figures.column(rows, "learning_rate")
    below.plot(epochs, rates, color=INK)
    below.set_ylim(0, 1.15 * np.nanmax(rates) or 1)
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    below.set(xlabel=f"epoch ({np.median(figures.column(rows, 'seconds')):.3g} s each)", ylabel="learning rate")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures.tidy(below)
    return figure
