"""What training, or taking a network as it is, leaves in its folder: the network, its calibration, tables, pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from libraries.base.errors import ImageError, NetworkError
from libraries.base.storage import Artefact, write_csv
from libraries.classifier.calibration import fit_calibration
from libraries.data.dataset import Example, groups_per_class, load_example
from libraries.data.images import ResizeRule
from libraries.evaluation import plots
from libraries.evaluation.learning_curve import LearningCurve
from libraries.network.folder import write_network
from libraries.network.graphs.graph_network import GraphNetwork
from libraries.network.training.refine import Refined
from libraries.network.training.training_sets import TrainingSets


def write_refined_network(
    artefact: Artefact, refined: Refined, sets: TrainingSets, *, rule: ResizeRule
) -> list[dict[str, Any]]:
    """Write training.csv, training.png and the network folder, its manifest last.

    The scores are calibrated on the validation images, as the last thing that they decide.

    Returns:
        The rows of training.csv.
    """
    rows = [asdict(row) for row in refined.history]
    table, picture = artefact.folder / "training.csv", artefact.folder / "training.png"
    artefact.begin()
    write_csv(table, rows)
    plots.save(plots.training_curves(rows, chosen_epoch=refined.best_epoch), picture)
    calibration = fit_calibration(refined.validation_logits, sets.validation.labels, evidence=sets.groups)
    write_network(
        artefact,
        refined.network,
        rule=rule,
        labels=sets.names,
        files=[table, picture],
        calibration={"slope": calibration.slope, "bias": calibration.bias.tolist()},
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
    labels: Sequence[str] = (),
    progress: Callable[[], object] = lambda: None,
) -> float:
    """Write the folder of a network that keeps its own classes, calibrated on some examples.

    Args:
        folder: where the examples' paths begin.
        labels: the network's classes in its order; by default those of the examples in alphabetical order.
        progress: called after every image.

    Returns:
        The fraction of the examples that the network has right.

    Raises:
        NetworkError: the network's classes are not those of the examples.
    """
    present = sorted({example.label for example in examples})
    names = list(labels) or present
    if len(names) != network.classes or sorted(names) != present:
        raise NetworkError(
            f"{network.architecture} tells {network.classes} classes apart, and the data set has {len(present)} "
            f"({', '.join(present[:5])}{', …' if len(present) > 5 else ''}): it has to have the same, in the order of "
            "rf_labels"
        )
    index = {name: number for number, name in enumerate(names)}
    scores, truth, scored = [], [], []
    for example, outputs in network.engine().stream(examples, partial(load_example, folder=folder, rule=rule)):
        if not isinstance(outputs, ImageError):
            scores.append(outputs["scores"])
            truth.append(index[example.label])
            scored.append(example)
        progress()
    calibration = fit_calibration(np.stack(scores), np.array(truth), evidence=groups_per_class(scored, names))
    write_network(
        artefact,
        network,
        rule=rule,
        labels=names,
        calibration={"slope": calibration.slope, "bias": calibration.bias.tolist()},
    )
    return float((np.stack(scores).argmax(axis=1) == truth).mean())


def write_learning_curve(curve: LearningCurve, folder: Path) -> list[Path]:
    """Write learning_curve.csv and learning_curve.png."""
    table, picture = folder / "learning_curve.csv", folder / "learning_curve.png"
    write_csv(table, curve.rows())
    plots.save(plots.learning_curve(curve), picture)
    return [table, picture]
