"""What training leaves in its folder: tables, pictures, and the refined network with its calibration."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from libraries.base.storage import Artefact, write_csv
from libraries.classifier.calibration import fit_calibration
from libraries.data.images import ResizeRule
from libraries.evaluation import plots
from libraries.evaluation.learning_curve import LearningCurve
from libraries.network.folder import write_network
from libraries.network.refine import Refined
from libraries.network.training_sets import TrainingSets


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
    calibration = fit_calibration(refined.validation_logits, sets.validation.labels)
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


def write_learning_curve(curve: LearningCurve, folder: Path) -> list[Path]:
    """Write learning_curve.csv and learning_curve.png."""
    table, picture = folder / "learning_curve.csv", folder / "learning_curve.png"
    write_csv(table, curve.rows())
    plots.save(plots.learning_curve(curve), picture)
    return [table, picture]
