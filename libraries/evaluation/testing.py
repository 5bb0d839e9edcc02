"""Classify the test images as the bundle does: what is measured is what is deployed.

Their embeddings are stored, so only the part of the bundle that comes after the embedding is run for all of them; the
whole bundle is run over a sample of the images, or over all, and must say the same.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from libraries.base.arrays import Bool, Float32, Int, as_slice
from libraries.base.errors import ImageError, InputError, StaleInput
from libraries.base.tables import Column
from libraries.classifier.bundle import Classifier, Prediction
from libraries.data.dataset import Example, check_unchanged, load_example
from libraries.data.remembered import KnownFiles
from libraries.network.embedding_store import Features

# Largest difference of an embedding, relative to the largest value: rounding, on two kinds of processor.
TOLERANCE = {"f32": 1e-3, "bf16": 0.1}
TOLERANCE_OF_PROBABILITY = {"f32": 0.01, "bf16": 0.25}
SAMPLE = 32  # test images that are classified by the whole bundle

_AGAIN = "run scripts/3_runDNN.py and scripts/4_trainSVM.py again"


@dataclass(frozen=True)
class Tested:
    """The bundle's answers for the N test images that could be read.

    Attributes:
        names: K names of the classes.
        examples: N examples, in the order of examples.csv.
        labels: int [N], the true classes.
        embeddings: N of float32 [D]: together they may be larger than memory.
        scores, probabilities: float32 [N, K].
        left_out: the errors of images that could not be read.
        unknown: bool [N], whether an image is called unknown; None: the bundle cannot tell.
        sets: bool [N, K], which labels are likely; None: the bundle promises nothing.
        asked: bool [N], whether asking a person costs less than the answer; None: nobody can be asked.
        answers: int [N], the answers; None: the most probable classes.
    """

    names: list[str]
    examples: list[Example]
    labels: Int
    embeddings: Sequence[Float32]
    scores: Float32
    probabilities: Float32
    left_out: list[ImageError]
    unknown: Bool | None = None
    sets: Bool | None = None
    asked: Bool | None = None
    answers: Int | None = None

    @property
    def groups(self) -> list[str]:
        """The group of each image, "" for an image that is alone in its group."""
        members = Counter(e.group for e in self.examples)
        return [e.group if members[e.group] > 1 else "" for e in self.examples]

    @property
    def predictions(self) -> Int:
        """int [N], the answer for each image."""
        return np.asarray(self.probabilities.argmax(axis=1) if self.answers is None else self.answers)


def classify_stored(
    classifier: Classifier,
    examples: Sequence[Example],
    features: Features,
    *,
    images: Path,
    files: KnownFiles,
) -> Tested:
    """Classify the examples by their stored embeddings; those without one by their images, which lie in `images`.

    Raises:
        InputError: there are none, or none of them could be read.
        StaleInput: an image has changed since the data set was prepared.
    """
    row = {path: i for i, path in enumerate(features.path)}
    known = [example for example in examples if example.path in row]
    for example in known:
        check_unchanged(example, folder=images, files=files)
    is_known = np.zeros(len(features.path), bool)
    is_known[[row[example.path] for example in known]] = True
    known.sort(key=lambda example: row[example.path])
    predictions = classifier.predict_embeddings(features.embedding[as_slice(is_known)])
    answers: dict[str, Prediction | ImageError] = dict(zip([e.path for e in known], predictions, strict=True))
    load = partial(load_example, folder=images, rule=classifier.rule)
    others = [example for example in examples if example.path not in row]
    answers |= {example.path: found for example, found in classifier.predict_stream(others, load)}
    return _tested(classifier, examples, answers, images)


def classify(
    classifier: Classifier, examples: Sequence[Example], *, images: Path, progress: Callable[[], object] = lambda: None
) -> Tested:
    """Classify the examples' images, which lie in `images`, with the whole bundle.

    Raises:
        InputError: there are none, or none of them could be read.
        StaleInput: an image has changed since the data set was prepared.
    """
    answers: dict[str, Prediction | ImageError] = {}
    load = partial(load_example, folder=images, rule=classifier.rule)
    for example, found in classifier.predict_stream(examples, load):
        answers[example.path] = found
        progress()
    return _tested(classifier, examples, answers, images)


def sample(tested: Tested, *, most: int = SAMPLE) -> list[Example]:
    """Up to `most` of the examples, evenly spaced."""
    places = np.linspace(0, len(tested.examples) - 1, min(most, len(tested.examples))).round().astype(int)
    return [tested.examples[place] for place in places]


def check_agreement(whole: Tested, stored: Tested, *, precision: Literal["f32", "bf16"]) -> float:
    """Make sure that the bundle says of images what was computed from their stored embeddings.

    Args:
        whole: images, classified by the whole bundle.
        stored: the same images, and others, by their embeddings.

    Returns:
        The largest difference of an embedding, relative to the largest value.

    Raises:
        StaleInput: it, or the difference of a probability, is beyond the rounding of the precision.
    """
    row = {example.path: i for i, example in enumerate(stored.examples)}
    rows = [row[example.path] for example in whole.examples]
    if whole.embeddings[0].shape != stored.embeddings[0].shape:
        raise StaleInput(f"the stored embeddings are not those of the bundle's network: {_AGAIN}")
    largest = float(np.max([np.abs(embedding).max() for embedding in whole.embeddings])) or 1.0
    pairs = zip(whole.embeddings, (stored.embeddings[row] for row in rows), strict=True)
    difference = float(np.max([np.abs(one - other).max() for one, other in pairs])) / largest
    of_probability = float(np.abs(whole.probabilities - stored.probabilities[rows]).max())
    if not (difference <= TOLERANCE[precision] and of_probability <= TOLERANCE_OF_PROBABILITY[precision]):
        raise StaleInput(
            f"the bundle's embeddings differ from the stored ones by {difference:.1%} of the largest, and its "
            f"probabilities by {of_probability:.1%}: {_AGAIN}"
        )
    return difference


def _tested(
    classifier: Classifier, examples: Sequence[Example], answers: Mapping[str, Prediction | ImageError], images: Path
) -> Tested:
    found = [(example, answers[example.path]) for example in examples]
    good = [(example, answer) for example, answer in found if isinstance(answer, Prediction)]
    if not good:
        raise InputError(
            f"there are no test images to evaluate: add images to {images} and run scripts/1_prepareData.py again"
        )
    return Tested(
        names=classifier.labels,
        examples=[example for example, _ in good],
        labels=np.array([classifier.labels.index(example.label) for example, _ in good]),
        embeddings=[answer.embedding for _, answer in good],
        scores=np.stack([answer.scores for _, answer in good]),
        probabilities=np.stack([answer.probabilities for _, answer in good]),
        left_out=[answer for _, answer in found if isinstance(answer, ImageError)],
        unknown=None if good[0][1].unknown is None else np.array([answer.unknown for _, answer in good]),
        sets=None
        if good[0][1].set is None
        else np.array([[name in (answer.set or ()) for name in classifier.labels] for _, answer in good]),
        asked=None if good[0][1].ask is None else np.array([answer.ask for _, answer in good]),
        answers=np.array([classifier.labels.index(answer.label) for _, answer in good]),
    )


@dataclass(frozen=True)
class PredictionRow:
    """A row of predictions.csv: a test image."""

    path: Annotated[str, Column("path of the image, relative to the folder of the data set")]
    label: Annotated[str, Column("true class")]
    predicted: Annotated[str, Column("most probable class, or the one that costs least")]
    probabilities: Annotated[Mapping[str, float], Column("its probability", prefix="probability of ", decimals=6)]
    unknown: Annotated[
        Literal["true", "false"] | None, Column("whether it is like none of the classes; empty: nobody can tell")
    ] = None
    set: Annotated[str | None, Column("likely labels, joined by |, of which one is true as often as promised")] = None
    ask: Annotated[
        Literal["true", "false"] | None, Column("whether asking a person costs less; empty: nobody can be asked")
    ] = None


def prediction_rows(tested: Tested) -> list[PredictionRow]:
    """The rows of predictions.csv."""
    return [
        PredictionRow(
            example.path,
            example.label,
            tested.names[tested.predictions[i]],
            dict(zip(tested.names, tested.probabilities[i].tolist(), strict=True)),
            None if tested.unknown is None else "true" if tested.unknown[i] else "false",
            None if tested.sets is None else "|".join(tested.names[k] for k in np.flatnonzero(tested.sets[i])),
            None if tested.asked is None else "true" if tested.asked[i] else "false",
        )
        for i, example in enumerate(tested.examples)
    ]


def fingerprint(tested: Tested) -> str:
    """A hash of the test images and their labels: equal ones can be compared image by image."""
    lines = sorted(f"{e.sha256} {e.label}" for e in tested.examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
