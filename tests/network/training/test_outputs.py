"""What training leaves in the network's folder."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from libraries.base import figures
from libraries.base.storage import Artefact
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.data.images import ResizeRule
from libraries.network.backbones import load_pretrained
from libraries.network.training.outputs import training_curves, write_refined_network
from libraries.network.training.refine import Epoch, Refined

SIZE = 32

EPOCHS = [
    {
        "epoch": epoch,
        "train_error": 0.5 / epoch,
        "validation_error": 0.4 + (epoch - 3) ** 2 / 100,
        "test_error": None,
        "learning_rate": 0.001,
        "seconds": 2.0,
    }
    for epoch in range(1, 6)
]


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_class_of_one_validation_group_keeps_what_its_scores_give_it(tmp_path: Path, quick_export: None) -> None:
    """Two pictures of one object, which the network has right, against forty whose scores sometimes lean that way."""
    rng = np.random.default_rng(0)
    lead = np.concatenate([rng.normal(-1.5, 1.2, 40), [0.7, 0.8]])  # of class b over class a
    logits = np.stack([-lead / 2, lead / 2], axis=1).astype(np.float32)
    labels = np.array([0] * 40 + [1] * 2)
    network = load_pretrained("random:resnet10t", input_size=SIZE)
    refined = Refined(network, [Epoch(1, 0.1, 0.5, 0.5, 0.5, 0.5, None, 1.0)], 1, logits, labels)
    artefact = Artefact("network", tmp_path / "dnn" / "model.json", "2_refineDNN", {})

    def label_of_the_object(groups: list[int]) -> int:
        rule = ResizeRule(SIZE, "pad")
        write_refined_network(artefact, refined, names=["a", "b"], groups=groups, rule=rule, calibrate=fit_calibration)
        said = artefact.read()["calibration"]
        return int(Calibration.from_json(said).labels(logits[-1:])[0])

    assert label_of_the_object([40, 40]) == 0, "as if these were many, the class is buried"
    assert label_of_the_object([40, 1]) == 1


def test_training_curves_mark_the_chosen_epoch_and_leave_out_what_was_not_measured() -> None:
    above, below = training_curves(EPOCHS, chosen_epoch=3).axes
    assert legend(above) == ["training", "validation", "chosen: epoch 3"]
    (ring,) = [line for line in above.lines if line.get_label().startswith("chosen")]
    np.testing.assert_allclose(ring.get_xydata(), [[3, 0.4]])
    assert "2 s each" in below.get_xlabel()


def test_picture_of_a_single_epoch(tmp_path: Path) -> None:
    figures.save(training_curves(EPOCHS[:1], chosen_epoch=1), tmp_path / "training.png")
