"""Run the bundle over the test images: what is measured is what is deployed."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from libraries.base.arrays import Float32, Int
from libraries.base.errors import ImageError, InputError, StaleInput
from libraries.base.tables import Column
from libraries.classifier.bundle import Classifier
from libraries.data.dataset import Example, load_example
from libraries.network.embedding_store import read_features

# Largest difference of an embedding, relative to the largest value: rounding, on two kinds of processor.
TOLERANCE = {"f32": 1e-3, "bf16": 0.1}


@dataclass(frozen=True)
class Tested:
    """The bundle's answers for the N test images that could be read.

    Attributes:
        names: K names of the classes.
        examples: N examples, in the order of examples.csv.
        labels: int [N], the true classes.
        embeddings, scores, probabilities: float32 [N, D], [N, K], [N, K].
        left_out: the errors of images that could not be read.
    """

    names: list[str]
    examples: list[Example]
    labels: Int
    embeddings: Float32
    scores: Float32
    probabilities: Float32
    left_out: list[ImageError]

    @property
    def groups(self) -> list[str]:
        """The group of each image, "" for an image that is alone in its group."""
        members = Counter(e.group for e in self.examples)
        return [e.group if members[e.group] > 1 else "" for e in self.examples]

    @property
    def predictions(self) -> Int:
        """int [N], the most probable class of each image."""
        most_probable: Int = self.probabilities.argmax(axis=1)
        return most_probable


def classify(
    classifier: Classifier, examples: list[Example], *, images: Path, progress: Callable[[], object] = lambda: None
) -> Tested:
    """Classify the examples' images, which lie in `images`.

    Raises:
        InputError: none of them could be read.
    """
    good, predictions, left_out = [], [], []
    load = partial(load_example, folder=images, rule=classifier.rule)
    for example, result in classifier.predict_stream(examples, load):
        progress()
        if isinstance(result, ImageError):
            left_out.append(result)
        else:
            good.append(example)
            predictions.append(result)
    if not good:
        raise InputError(
            f"there are no test images to evaluate: add images to {images} and run scripts/1_prepareData.py again"
        )
    return Tested(
        names=classifier.labels,
        examples=good,
        labels=np.array([classifier.labels.index(e.label) for e in good]),
        embeddings=np.stack([p.embedding for p in predictions]),
        scores=np.stack([p.scores for p in predictions]),
        probabilities=np.stack([p.probabilities for p in predictions]),
        left_out=left_out,
    )


def check_agreement(tested: Tested, features: Path, *, precision: Literal["f32", "bf16"]) -> float:
    """Make sure that the bundle embeds images as the classifier saw them embedded.

    Returns:
        The largest difference of an embedding from the feature store, relative to the largest value.

    Raises:
        StaleInput: it is beyond the rounding of the precision, or the store is of another network or other images.
    """
    stored = read_features(features)
    row = {path: i for i, path in enumerate(stored.path)}
    known = [i for i, e in enumerate(tested.examples) if e.path in row]
    ours, theirs = tested.embeddings[known], stored.embedding[[row[tested.examples[i].path] for i in known]]
    if not known or ours.shape != theirs.shape:
        raise StaleInput(
            f"{features} is not of the network and the images of the bundle: "
            "run scripts/3_runDNN.py and scripts/4_trainSVM.py again"
        )
    largest = float(np.abs([ours, theirs]).max()) or 1.0
    difference = float(np.abs(ours - theirs).max()) / largest
    if not difference <= TOLERANCE[precision]:
        raise StaleInput(
            f"the bundle's embeddings differ from {features} by {difference:.1%} of the largest: "
            "run scripts/3_runDNN.py and scripts/4_trainSVM.py again"
        )
    return difference


@dataclass(frozen=True)
class PredictionRow:
    """A row of predictions.csv: a test image."""

    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    label: Annotated[str, Column("true class")]
    predicted: Annotated[str, Column("most probable class")]
    probabilities: Annotated[Mapping[str, float], Column("its probability", prefix="probability of ", decimals=6)]


def prediction_rows(tested: Tested) -> list[PredictionRow]:
    """The rows of predictions.csv."""
    return [
        PredictionRow(
            example.path, example.label, tested.names[predicted], dict(zip(tested.names, p.tolist(), strict=True))
        )
        for example, predicted, p in zip(tested.examples, tested.predictions, tested.probabilities, strict=True)
    ]


def fingerprint(tested: Tested) -> str:
    """A hash of the test images and their labels: equal ones can be compared image by image."""
    lines = sorted(f"{e.sha256} {e.label}" for e in tested.examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
