"""Every image is tested once, by a classifier that has not seen it or anything of its group."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from libraries.base.errors import InputError
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.costs import read_costs
from libraries.classifier.cross_validation import NEVER_LEFT_OUT
from libraries.classifier.fitting import FitOptions
from libraries.data.dataset import Example
from libraries.evaluation.folds import FoldOutputs, cross_test, deal, of_stored, sentence
from libraries.evaluation.metrics import metrics
from libraries.evaluation.uncertainty import resampled_interval
from libraries.network.embedding_store import Features

OPTIONS = FitOptions((0.01, 1.0), ("sqrt_l2",), 3, 0, "equal", 0.05, 0.9)


def example(label: str, i: int, *, group: str = "", split: Any = "train") -> Example:
    path = f"{label}/{i}.png"
    return Example(path, label, split, group or path, 8, 8, 100, path)


def drawn(count: int = 300, *, signal: float = 2.0, copies: int = 1) -> tuple[list[Example], np.ndarray]:
    """Images of three classes with embeddings around a place for each; `copies` of each picture are one group."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, count)
    x = generator.normal(0, 1, (count, 30)).astype(np.float32)
    x[:, :3] += signal * np.eye(3, dtype=np.float32)[labels]
    examples = [
        example("abc"[label], i, group=f"g{i}") for i, label in enumerate(labels.tolist()) for _ in range(copies)
    ]
    return [replace(e, path=f"{e.path}{i}") for i, e in enumerate(examples)], np.repeat(x, copies, axis=0)


def test_each_image_is_tested_once_and_groups_stay_together() -> None:
    examples, x = drawn(100, copies=3)
    fold_of = deal(examples, folds=4, seed=0)
    groups = np.array([e.group for e in examples])
    assert sorted({*fold_of.tolist()}) == [0, 1, 2, 3]
    seen: list[tuple[int, set[str], set[str]]] = []

    def watch(fold: int, sides: list[Example]) -> FoldOutputs:
        by_side = [{e.group for e in sides if e.split == side} for side in ("train", "test")]
        seen.append((fold, *by_side))
        return FoldOutputs(x)

    found = cross_test(examples, fold_of, watch, OPTIONS)
    assert [fold for fold, _, _ in seen] == [0, 1, 2, 3]
    assert all(not training & tested for _, training, tested in seen)
    assert sum(len(tested) for _, _, tested in seen) == len({*groups.tolist()})
    assert [e.path for e in found.tested.examples] == [e.path for e in examples]
    np.testing.assert_array_equal(found.fold, fold_of)
    assert sum(row.images for row in found.rows) == 300 == found.rows[0].images + found.rows[0].training_images
    rows = found.prediction_rows()
    assert {row.fold for row in rows} == {1, 2, 3, 4} and len(rows) == 300


def test_costs_of_the_folds_have_an_interval(tmp_path: Path) -> None:
    table = tmp_path / "costs.csv"
    table.write_text("label,answer,cost [EUR]\n*,*,2\na,*,10\n*,ask,1\n")
    examples, x = drawn(signal=1.0)
    options = replace(OPTIONS, costs=table)
    found = cross_test(examples, deal(examples, folds=4, seed=0), lambda fold, sides: FoldOutputs(x), options)
    tested, costs = found.tested, read_costs(table, ["a", "b", "c"])
    assert tested.asked is not None and tested.asked.any()
    paid = costs.paid(tested.labels, tested.predictions, tested.asked)
    assert [row.cost for row in found.rows] == pytest.approx([paid[found.fold == fold].mean() for fold in range(4)])
    summary = found.summary()
    low, high = summary["cost"]["interval"]
    assert low < paid.mean() < high
    assert f" 100 images cost {100 * summary['cost']['mean']:.4g} EUR (95% interval {100 * low:.4g} to " in sentence(
        summary
    )


def test_what_is_pure_chance_looks_like_it() -> None:
    """Labels that say nothing of the embeddings, each image four times: no copy may betray its label."""
    examples, x = drawn(150, signal=0.0, copies=4)
    found = cross_test(examples, deal(examples, folds=5, seed=0), lambda fold, sides: FoldOutputs(x), OPTIONS)
    accuracy = (found.tested.predictions == found.tested.labels).mean()
    assert abs(accuracy - 1 / 3) < 0.1


def test_a_fold_is_answered_as_by_a_classifier_that_was_fitted_without_it() -> None:
    examples, x = drawn()
    fold_of = deal(examples, folds=3, seed=0)
    found = cross_test(examples, fold_of, lambda fold, sides: FoldOutputs(x), OPTIONS)
    from libraries.classifier.fitting import fit_svm
    from libraries.classifier.labelled import LabelledEmbeddings

    sides = [replace(e, split="test" if f == 1 else "train") for e, f in zip(examples, fold_of, strict=True)]
    fitted, _ = fit_svm(LabelledEmbeddings.of(sides, x, None, seen=(), names=["a", "b", "c"]), OPTIONS)
    expected, decided = fitted.decide(x[fold_of == 1])
    np.testing.assert_array_equal(found.tested.probabilities[fold_of == 1], expected)
    np.testing.assert_array_equal(found.tested.predictions[fold_of == 1], decided.answers)
    assert found.tested.unknown is not None and decided.unknown is not None
    np.testing.assert_array_equal(found.tested.unknown[fold_of == 1], decided.unknown)
    accuracy = (decided.answers == found.tested.labels[fold_of == 1]).mean()
    assert found.rows[1].accuracy == accuracy > 0.8


def test_a_head_with_an_order_of_its_own() -> None:
    """The network's classes are c, a, b; its scores are calibrated by the training images of each fold."""
    examples, x = drawn()
    features = Features(
        [e.path for e in examples], [e.label for e in examples], [e.split for e in examples], x, 3 * x[:, [2, 0, 1]]
    )
    found = cross_test(examples, deal(examples, folds=3, seed=0), of_stored(features, names=["c", "a", "b"]), OPTIONS)
    assert (found.tested.predictions == x[:, :3].argmax(axis=1)).mean() > 0.95
    assert found.tested.sets is not None
    rows = np.arange(len(examples))
    assert found.tested.sets[rows, found.tested.predictions].all()
    assert found.tested.sets[rows, found.tested.labels].mean() > 0.88
    assert {row.C for row in found.rows} == {None}


def test_images_that_a_network_has_seen_do_not_calibrate_its_head() -> None:
    examples, x = drawn(400)
    training = [e.path for e in examples[:300]]
    scores = np.where(np.arange(400)[:, None] < 300, 50 * np.eye(3)[["abc".index(e.label) for e in examples]], x[:, :3])
    calibration = fit_calibration(x[300:, :3], np.array(["abc".index(e.label) for e in examples[300:]]))
    fold_of = np.repeat([NEVER_LEFT_OUT, 0, NEVER_LEFT_OUT, 1], [300, 40, 20, 40])
    outputs = FoldOutputs(x, scores.astype(np.float32), calibration, ["a", "b", "c"], training)
    found = cross_test(examples, fold_of, lambda fold, sides: outputs, OPTIONS)
    assert found.untested == 320
    assert found.tested.sets is not None and found.tested.sets.sum(axis=1).mean() > 1.1, "it is not as sure as of those"


def test_a_class_with_a_single_image_is_not_tested() -> None:
    examples, x = drawn()
    examples.append(example("d", 0))
    x = np.vstack([x, np.ones((1, 30), np.float32)])
    fold_of = deal(examples, folds=3, seed=0)
    found = cross_test(examples, fold_of, lambda fold, sides: FoldOutputs(x), OPTIONS)
    assert found.untested == 1 and len(found.tested.examples) == 300
    assert "1 more, whose class has no others, were not tested" in sentence(found.summary())
    measured = metrics(found.tested.labels, found.tested.probabilities, names=found.tested.names)
    assert measured["accuracy_per_class"]["d"] is None


@pytest.mark.parametrize(
    ("examples", "folds", "problem"),
    [
        (drawn()[0], 1, "--folds 1: 2 to 50 are possible"),
        (drawn()[0], 51, "--folds 51: 2 to 50 are possible"),
        ([example("a", i) for i in range(9)], 3, "two classes need images"),
        ([example("a", 0), example("b", 0)], 3, "every class has a single image"),
    ],
)
def test_what_cannot_be_done_is_said(examples: list[Example], folds: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        deal(examples, folds=folds, seed=0)


def test_fewer_folds_where_there_are_too_few_images() -> None:
    examples = [example(label, i) for label in "ab" for i in range(3)]
    assert deal(examples, folds=10, seed=0).max() + 1 == 3


def test_the_interval_is_the_corrected_resampled_one() -> None:
    """By its formula; and it holds the true mean about as often as it says, where plain t would not."""
    values = np.array([0.8, 0.82, 0.79, 0.85, 0.81])
    low, high = resampled_interval(values, test_share=0.25)
    half = stats.t.ppf(0.975, 4) * np.sqrt((1 / 5 + 1 / 4) * values.var(ddof=1))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_an_unknown_threshold_that_one_fold_lacks_is_nobodys() -> None:
    examples, x = drawn(40)
    found = cross_test(examples, deal(examples, folds=2, seed=0), lambda f, s: FoldOutputs(x), OPTIONS)
    few = FitOptions((1.0,), ("sqrt_l2",), 3, 0, "equal", 0.02, 0.9)
    none = cross_test(examples, deal(examples, folds=2, seed=0), lambda f, s: FoldOutputs(x), few)
    assert found.tested.unknown is not None and none.tested.unknown is None


def test_calibration_of_a_head_is_kept_as_it_is() -> None:
    examples, x = drawn()
    known = Calibration(2.0, np.array([0.5, -0.5, 0.0]))
    outputs = FoldOutputs(x, x[:, :3], known, ["a", "b", "c"])
    found = cross_test(examples, deal(examples, folds=2, seed=0), lambda f, s: outputs, OPTIONS)
    np.testing.assert_allclose(found.tested.probabilities, known.probabilities(x[:, :3]), rtol=1e-6)
