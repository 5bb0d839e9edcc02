"""Running the bundle over the test images, and making sure that it is the one that was trained."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import ImageError, InputError, StaleInput
from libraries.base.tables import row_cells
from libraries.classifier.bundle import Prediction
from libraries.data.dataset import Example
from libraries.data.remembered import KnownFiles
from libraries.evaluation.testing import Tested as Answers
from libraries.evaluation.testing import (
    check_agreement,
    classify,
    classify_stored,
    fingerprint,
    prediction_rows,
    sample,
)
from libraries.network.embedding_store import Features

NAMES = ["blau", "röt, hell"]


def example(i: int) -> Example:
    return Example(f"{NAMES[i % 2]}/{i}.png", NAMES[i % 2], "test", f"{i}", 8, 6, 100, f"hash {i}")


@pytest.fixture
def tested() -> Answers:
    """Six test images; the third one is taken for the other class."""
    generator = np.random.default_rng(0)
    truth = np.arange(6) % 2
    sure = np.where(np.arange(6) == 2, 0.1, 0.8)
    probabilities = np.empty((6, 2), np.float32)
    probabilities[np.arange(6), truth], probabilities[np.arange(6), 1 - truth] = sure, 1 - sure
    return Answers(
        names=NAMES,
        examples=[example(i) for i in range(6)],
        labels=truth,
        embeddings=generator.normal(size=(6, 16)).astype(np.float32),
        scores=generator.normal(size=(6, 2)).astype(np.float32),
        probabilities=probabilities,
        left_out=[],
    )


def noisy(tested: Answers, noise: float) -> Answers:
    """The same answers with embeddings that differ by this part of the largest value."""
    return replace(tested, embeddings=tested.embeddings + np.float32(noise * np.abs(tested.embeddings).max()))


@pytest.mark.parametrize("noise", [0.0, 1e-5, 5e-4])
def test_rounding_is_agreement(tested: Answers, noise: float) -> None:
    assert check_agreement(tested, noisy(tested, noise), precision="f32") == pytest.approx(noise, rel=0.02, abs=1e-7)


def test_bf16_rounds_more(tested: Answers) -> None:
    check_agreement(tested, noisy(tested, 0.02), precision="bf16")
    with pytest.raises(StaleInput, match=r"embeddings differ .* by 2\.0% of the largest, .*run scripts/3_runDNN\.py"):
        check_agreement(tested, noisy(tested, 0.02), precision="f32")


def test_order_and_further_images_do_not_matter(tested: Answers) -> None:
    other = replace(
        tested,
        examples=tested.examples[::-1],
        embeddings=tested.embeddings[::-1],
        probabilities=tested.probabilities[::-1],
    )
    part = replace(
        tested, examples=tested.examples[:3], embeddings=tested.embeddings[:3], probabilities=tested.probabilities[:3]
    )
    assert check_agreement(part, other, precision="f32") == 0


FOREIGN: dict[str, Callable[[Answers], dict[str, Any]]] = {
    "one image differs": lambda t: {"embeddings": np.vstack([t.embeddings[:5], t.embeddings[:1]])},
    "images interchanged": lambda t: {"embeddings": t.embeddings[::-1]},
    "not a number": lambda t: {"embeddings": t.embeddings * np.nan},
    "nothing but zeros": lambda t: {"embeddings": t.embeddings * 0},
    "another length": lambda t: {"embeddings": np.hstack([t.embeddings, t.embeddings])},
    "a single number": lambda t: {"embeddings": t.embeddings[:, :1]},
    "one other probability": lambda t: {"probabilities": np.vstack([t.probabilities[:5], [[0.5, 0.5]]])},
    "no probability": lambda t: {"probabilities": t.probabilities * np.nan},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_another_network_or_classifier_is_refused(tested: Answers, foreign: Callable[[Answers], Any]) -> None:
    with pytest.raises(StaleInput, match=r"run scripts/3_runDNN\.py and scripts/4_trainSVM\.py again"):
        check_agreement(tested, replace(tested, **foreign(tested)), precision="bf16")


@pytest.mark.parametrize("most", [1, 2, 4, 6, 100])
def test_the_sample_is_spread_over_all_examples(tested: Answers, most: int) -> None:
    chosen = [int(e.group) for e in sample(tested, most=most)]
    assert len(chosen) == len(set(chosen)) == min(most, 6) and chosen == sorted(chosen)
    assert most < 2 or (chosen[0], chosen[-1]) == (0, 5)


def test_rows_hold_truth_prediction_and_probabilities(tested: Answers) -> None:
    rows = prediction_rows(tested)
    assert len(rows) == 6
    assert [row.predicted for row in rows] == [NAMES[i] for i in (0, 1, 1, 1, 0, 1)]
    assert row_cells(rows[2]) == {
        "path": "blau/2.png",
        "label": "blau",
        "predicted": "röt, hell",
        "probability of blau": "0.100000",
        "probability of röt, hell": "0.900000",
        "unknown": None,
        "set": None,
        "ask": None,
    }
    told = replace(tested, unknown=np.arange(6) == 2, sets=np.ones((6, 2), bool))
    assert [row_cells(row)["unknown"] for row in prediction_rows(told)[1:3]] == ["false", "true"]
    assert row_cells(prediction_rows(told)[2])["set"] == "blau|röt, hell"


def test_fingerprint_is_of_the_images_and_labels_whatever_their_order_and_names(tested: Answers) -> None:
    examples = tested.examples
    first = fingerprint(tested)
    assert fingerprint(replace(tested, examples=examples[::-1])) == first
    assert fingerprint(replace(tested, examples=[replace(e, path=f"x{e.path}") for e in examples])) == first
    relabelled = [replace(examples[0], label=NAMES[1]), *examples[1:]]
    assert fingerprint(replace(tested, examples=relabelled)) != first
    changed = [replace(examples[0], sha256="other"), *examples[1:]]
    assert fingerprint(replace(tested, examples=changed)) != first
    assert fingerprint(replace(tested, examples=examples[1:])) != first


@dataclass
class Bundle:
    """Stands for a Classifier whose first image is damaged, or all of them."""

    labels: list[str]
    all_damaged: bool = False
    rule: None = None
    looked_at: list[str] = field(default_factory=list)

    def predict_stream(self, items: Iterable[Example], load: Any) -> Iterator[tuple[Example, Any]]:
        for item in items:
            self.looked_at.append(item.group)
            bad = self.all_damaged or item.group == "0"
            yield item, ImageError("cut off", item.path) if bad else answer(int(item.group))

    def predict_embeddings(self, embeddings: np.ndarray) -> list[Prediction]:
        return [answer(int(embedding[0])) for embedding in embeddings]


def answer(i: int) -> Prediction:
    probabilities = np.array([0.25, 0.75], np.float32)
    return Prediction(NAMES[1], probabilities, np.full(2, i, np.float32), np.full(4, i, np.float32))


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    count = iter(range(100))
    bundle: Any = Bundle(NAMES)
    tested = classify(bundle, [example(i) for i in range(4)], images=tmp_path, progress=lambda: next(count))
    assert [str(error) for error in tested.left_out] == ["blau/0.png: cut off"]
    assert [e.group for e in tested.examples] == ["1", "2", "3"]
    assert tested.labels.tolist() == [1, 0, 1]
    assert tested.predictions.tolist() == [1, 1, 1]
    assert [embedding[0] for embedding in tested.embeddings] == [1, 2, 3]
    assert next(count) == 4, "progress counts every image"


@pytest.mark.parametrize("count", [0, 3])
def test_without_a_readable_test_image_there_is_nothing_to_evaluate(tmp_path: Path, count: int) -> None:
    bundle: Any = Bundle(NAMES, all_damaged=True)
    with pytest.raises(InputError, match=r"no test images to evaluate: .*run scripts/1_prepareData\.py again"):
        classify(bundle, [example(i) for i in range(count)], images=tmp_path)


@pytest.fixture
def stored_images(tmp_path: Path) -> tuple[list[Example], Features]:
    """Four images on disk, and the embeddings of two of them."""
    examples = []
    for i in range(4):
        path = tmp_path / example(i).path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"image %d" % i)
        examples.append(replace(example(i), sha256=hashlib.sha256(b"image %d" % i).hexdigest()))
    known = [examples[3], examples[1]]
    embedding = np.array([[3.0] * 4, [1.0] * 4], np.float32)
    return examples, Features([e.path for e in known], [e.label for e in known], ["test"] * 2, embedding, None)


def test_only_images_without_a_stored_embedding_are_looked_at(
    tmp_path: Path, stored_images: tuple[list[Example], Features]
) -> None:
    examples, features = stored_images
    bundle: Any = Bundle(NAMES)
    tested = classify_stored(bundle, examples, features, images=tmp_path, files=KnownFiles())
    assert bundle.looked_at == ["0", "2"]
    assert [e.group for e in tested.examples] == ["1", "2", "3"]
    assert [embedding[0] for embedding in tested.embeddings] == tested.scores[:, 0].tolist() == [1, 2, 3]
    assert [str(error) for error in tested.left_out] == ["blau/0.png: cut off"]


@pytest.mark.parametrize("change", [lambda p: p.write_bytes(b"another"), lambda p: p.unlink()])
def test_an_image_that_has_changed_is_not_evaluated_by_its_stored_embedding(
    tmp_path: Path, stored_images: tuple[list[Example], Features], change: Callable[[Path], None]
) -> None:
    examples, features = stored_images
    change(tmp_path / examples[3].path)
    bundle: Any = Bundle(NAMES)
    with pytest.raises(StaleInput, match=r"3\.png .*run scripts/1_prepareData\.py again"):
        classify_stored(bundle, examples, features, images=tmp_path, files=KnownFiles())
