"""Running the bundle over the test images, and making sure that it is the one that was trained."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from libraries.base.errors import ImageError, InputError, StaleInput
from libraries.base.tables import row_cells
from libraries.data.dataset import Example
from libraries.evaluation.test_run import Tested as Answers
from libraries.evaluation.test_run import check_agreement, classify, fingerprint, prediction_rows
from libraries.network.embedding_store import write_features

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


def store(folder: Path, examples: list[Example], embeddings: np.ndarray) -> Path:
    """A feature store with these embeddings."""
    rows = [(e, {"embedding": row.astype(np.float32)}) for e, row in zip(examples, embeddings, strict=True)]
    write_features(folder, examples, key="key", run=lambda wanted: (row for row in rows))
    return folder


@pytest.mark.parametrize("noise", [0.0, 1e-5, 5e-4])
def test_rounding_is_agreement(tmp_path: Path, tested: Answers, noise: float) -> None:
    largest = np.abs(tested.embeddings).max()
    features = store(tmp_path, tested.examples, tested.embeddings + noise * largest)
    assert check_agreement(tested, features, precision="f32") == pytest.approx(noise, rel=0.02, abs=1e-7)


def test_bf16_rounds_more(tmp_path: Path, tested: Answers) -> None:
    features = store(tmp_path, tested.examples, tested.embeddings + 0.02 * np.abs(tested.embeddings).max())
    check_agreement(tested, features, precision="bf16")
    with pytest.raises(StaleInput, match=r"differ from .* by 2\.0% of the largest: run scripts/3_runDNN\.py"):
        check_agreement(tested, features, precision="f32")


def test_order_and_further_images_of_the_store_do_not_matter(tmp_path: Path, tested: Answers) -> None:
    further = [replace(example(9), split="train"), *reversed(tested.examples)]
    embeddings = np.vstack([np.full((1, 16), 0.5), tested.embeddings[::-1]])
    assert check_agreement(tested, store(tmp_path, further, embeddings), precision="f32") == 0


FOREIGN: dict[str, Callable[[Answers], tuple[list[Example], Any]]] = {
    "one image differs": lambda t: (t.examples, np.vstack([t.embeddings[:5], t.embeddings[:1]])),
    "images interchanged": lambda t: (t.examples, t.embeddings[::-1]),
    "not a number": lambda t: (t.examples, t.embeddings * np.nan),
    "nothing but zeros": lambda t: (t.examples, t.embeddings * 0),
    "another length": lambda t: (t.examples, np.hstack([t.embeddings, t.embeddings])),
    "a single number": lambda t: (t.examples, t.embeddings[:, :1]),
    "other images": lambda t: ([example(i) for i in range(6, 12)], t.embeddings),
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_foreign_store_is_refused(tmp_path: Path, tested: Answers, foreign: Callable[[Answers], Any]) -> None:
    features = store(tmp_path, *foreign(tested))
    with pytest.raises(StaleInput, match=r"run scripts/3_runDNN\.py and scripts/4_trainSVM\.py again"):
        check_agreement(tested, features, precision="bf16")


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
    }


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

    def predict_stream(self, items: Iterable[Example], load: Any) -> Iterator[tuple[Example, Any]]:
        for item in items:
            i = int(item.group)
            bad = self.all_damaged or i == 0
            answer = SimpleNamespace(
                embedding=np.full(4, i), scores=np.full(2, i), probabilities=np.array([0.25, 0.75], np.float32)
            )
            yield item, ImageError("cut off", item.path) if bad else answer


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    count = iter(range(100))
    bundle: Any = Bundle(NAMES)
    tested = classify(bundle, [example(i) for i in range(4)], images=tmp_path, progress=lambda: next(count))
    assert [str(error) for error in tested.left_out] == ["blau/0.png: cut off"]
    assert [e.group for e in tested.examples] == ["1", "2", "3"]
    assert tested.labels.tolist() == [1, 0, 1]
    assert tested.predictions.tolist() == [1, 1, 1]
    assert tested.embeddings[:, 0].tolist() == [1, 2, 3]
    assert next(count) == 4, "progress counts every image"


@pytest.mark.parametrize("count", [0, 3])
def test_without_a_readable_test_image_there_is_nothing_to_evaluate(tmp_path: Path, count: int) -> None:
    bundle: Any = Bundle(NAMES, all_damaged=True)
    with pytest.raises(InputError, match=r"no test images to evaluate: .*run scripts/1_prepareData\.py again"):
        classify(bundle, [example(i) for i in range(count)], images=tmp_path)
