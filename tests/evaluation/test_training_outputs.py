"""What training leaves in the network's folder."""

from pathlib import Path

import numpy as np

from libraries.base.storage import Artefact
from libraries.classifier.calibration import Calibration
from libraries.data.images import ResizeRule
from libraries.evaluation.training_outputs import write_refined_network
from libraries.network.pretrained import load_pretrained
from libraries.network.training.refine import Epoch, Refined
from libraries.network.training.training_sets import ImageSet, TrainingSets

SIZE = 32


def test_a_class_of_one_validation_group_keeps_what_its_scores_give_it(tmp_path: Path) -> None:
    """Two pictures of one object, which the network has right, against forty whose scores sometimes lean that way."""
    rng = np.random.default_rng(0)
    lead = np.concatenate([rng.normal(-1.5, 1.2, 40), [0.7, 0.8]])  # of class b over class a
    logits = np.stack([-lead / 2, lead / 2], axis=1).astype(np.float32)
    labels = np.array([0] * 40 + [1] * 2)
    none = ImageSet(np.zeros((0, SIZE, SIZE, 3), np.uint8), np.zeros(0, np.int64))
    validation = ImageSet(np.zeros((42, SIZE, SIZE, 3), np.uint8), labels)
    network = load_pretrained("random:resnet18", input_size=SIZE)
    refined = Refined(network, [Epoch(1, 0.1, 0.5, 0.5, 0.5, 0.5, None, 1.0)], 1, logits)
    artefact = Artefact("network", tmp_path / "dnn" / "model.json", "2_refineDNN", {})

    def label_of_the_object(groups: list[int]) -> int:
        sets = TrainingSets(["a", "b"], none, validation, none, groups, [])
        write_refined_network(artefact, refined, sets, rule=ResizeRule(SIZE, "pad"))
        said = artefact.read()["calibration"]
        return int(Calibration(said["slope"], np.array(said["bias"])).labels(logits[-1:])[0])

    assert label_of_the_object([40, 40]) == 0, "as if these were many, the class is buried"
    assert label_of_the_object([40, 1]) == 1
