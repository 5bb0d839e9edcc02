"""Metrics against scikit-learn and scipy; intervals against scipy's bootstrap, by coverage, and in the limits."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from libraries.base.errors import InputError
from libraries.evaluation import metrics as m
from libraries.evaluation.uncertainty import accuracy_intervals, mcnemar


def example(
    *, n: int, k: int, seed: int = 0, decimals: int | None = None, absent: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and probabilities [N, K] of a fair classifier; few decimals make many ties."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(k) if c not in absent]
    labels = rng.choice(present, n)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), labels] += 1
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    if decimals is not None:
        p = np.round(p, decimals) + 0.01
        p /= p.sum(axis=1, keepdims=True)
    return labels, p


def names(k: int) -> list[str]:
    return [f"class {c}" for c in range(k)]


CASES = [
    pytest.param({"n": 500, "k": 2}, id="two classes"),
    pytest.param({"n": 700, "k": 7}, id="seven classes"),
    pytest.param({"n": 500, "k": 2, "decimals": 1}, id="two classes, ties"),
    pytest.param({"n": 700, "k": 7, "decimals": 1}, id="seven classes, ties"),
    pytest.param({"n": 300, "k": 7, "absent": [2, 6]}, id="two classes absent"),
    pytest.param({"n": 9, "k": 3}, id="a handful of images"),
]


@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case: dict[str, Any]) -> None:
    labels, p = example(**case)
    k = p.shape[1]
    result = m.metrics(labels, p, names=names(k))
    predicted = p.argmax(axis=1)
    close = pytest.approx

    assert result["overall_accuracy"] == close(reference.accuracy_score(labels, predicted), abs=1e-12)
    assert result["confusion_matrix"] == reference.confusion_matrix(labels, predicted, labels=range(k)).tolist()
    assert result["log_loss"] == close(reference.log_loss(labels, p, labels=range(k)), abs=1e-12)
    expected_brier = reference.brier_score_loss(labels, p, labels=range(k), scale_by_half=True)
    assert result["brier"] == close(expected_brier, abs=1e-12)
    present = np.unique(labels)
    recall = reference.recall_score(labels, predicted, labels=present, average=None)
    assert result["class_averaged_accuracy"] == close(recall.mean(), abs=1e-12)
    seen = np.union1d(labels, predicted)
    f1 = dict(zip(seen, reference.f1_score(labels, predicted, average=None, labels=seen, zero_division=0), strict=True))
    assert result["class_averaged_f1"] == close(np.mean(list(f1.values())), abs=1e-12)

    for c, name in enumerate(names(k)):
        if c not in present:
            for key in ("accuracy_per_class", "auc_per_class", "average_precision_per_class"):
                assert result[key][name] is None
            assert result["intervals"]["accuracy_per_class"][name] is None
        else:
            truth = labels == c
            assert result["accuracy_per_class"][name] == close(recall[list(present).index(c)], abs=1e-12)
            assert result["auc_per_class"][name] == close(reference.roc_auc_score(truth, p[:, c]), abs=1e-12)
            expected = reference.average_precision_score(truth, p[:, c])
            assert result["average_precision_per_class"][name] == close(expected, abs=1e-12)
        assert result["f1_per_class"][name] == (close(f1[c], abs=1e-12) if c in f1 else None)
    json.dumps(result, allow_nan=False)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None, database=None)
def test_auc_is_the_chance_of_ranking_right(rows: list[tuple[bool, int]]) -> None:
    positives = [score for positive, score in rows if positive]
    negatives = [score for positive, score in rows if not positive]
    value = m.auc(np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float))
    if not positives or not negatives:
        assert value is None
    else:
        wins = [(a > b) + (a == b) / 2 for a in positives for b in negatives]
        assert value == pytest.approx(np.mean(wins), abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 1])
def test_reliability_equals_scikit_learn(decimals: int | None) -> None:
    labels, p = example(n=990, k=4, decimals=decimals)  # 15 x 66: no bin edge falls on an image
    bins = m.reliability(labels, p)
    accuracy, confidence = sklearn.calibration.calibration_curve(
        p.argmax(axis=1) == labels, p.max(axis=1), n_bins=15, strategy="quantile"
    )
    np.testing.assert_allclose([b["accuracy"] for b in bins], accuracy, atol=1e-12)
    np.testing.assert_allclose([b["confidence"] for b in bins], confidence, atol=1e-12)
    assert sum(b["images"] for b in bins) == 990
    if decimals is None:
        assert [b["images"] for b in bins] == [66] * 15


def test_ece_by_hand() -> None:
    labels = np.array([0] * 8 + [1] * 2 + [0] * 10)
    p = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    # ten images at 0.9 of which 8 are right, ten at 0.6 of which 10 are right
    assert m.ece(m.reliability(labels, p)) == pytest.approx((0.1 + 0.4) / 2, abs=1e-12)


def test_a_zero_probability_of_the_truth_costs_the_logarithm_of_the_float64_epsilon() -> None:
    labels, p = np.array([0, 1, 1]), np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    assert m.log_loss(labels, p) == pytest.approx((np.log(2) - np.log(np.finfo(np.float64).eps)) / 3, abs=1e-12)


def test_all_right_all_wrong_and_one_image() -> None:
    p = np.eye(3)[[0, 1, 2, 2]]
    perfect = m.metrics([0, 1, 2, 2], p, names=names(3))
    assert perfect["overall_accuracy"] == perfect["class_averaged_auc"] == perfect["class_averaged_f1"] == 1
    assert perfect["ece"] == perfect["brier"] == 0
    hopeless = m.metrics([1, 2, 0, 0], p, names=names(3))
    assert hopeless["overall_accuracy"] == hopeless["class_averaged_f1"] == 0
    assert hopeless["brier"] == 1
    single = m.metrics([1], np.array([[0.2, 0.8]]), names=names(2))
    assert single["auc_per_class"] == {"class 0": None, "class 1": None}
    assert single["class_averaged_auc"] is None
    for result in (perfect, hopeless, single):
        json.dumps(result, allow_nan=False)


def test_float32_probabilities_will_do() -> None:
    labels, p = example(n=200, k=5)
    ours = m.metrics(labels, p.astype(np.float32), names=names(5))
    assert ours["log_loss"] == pytest.approx(reference.log_loss(labels, p), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit 2 classes"),
        ([0], [[0.2, 0.3, 0.5]], "do not fit 2 classes"),
        ([], np.zeros((0, 2)), "no test images"),
        ([2], [[0.5, 0.5]], "from 0 to 1"),
        ([-1], [[0.5, 0.5]], "from 0 to 1"),
        ([0.5], [[0.5, 0.5]], "whole numbers"),
        ([0, 0], [[0.5, 0.5], [float("nan"), 0.5]], "row 1 is not a probability"),
        ([0], [[1.5, -0.5]], "row 0 is not a probability"),
        ([0], [[3.0, 1.0]], "row 0 is not a probability"),
    ],
)
def test_bad_input_is_named(labels: Any, p: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        m.metrics(labels, p, names=names(2))


def test_confident_mistakes() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    p = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.2, 0.8]])
    assert m.confident_mistakes(labels, p.argmax(axis=1), p, count=10).tolist() == [2, 3, 0]
    assert m.confident_mistakes(labels, p.argmax(axis=1), p, count=1).tolist() == [2]
    assert m.confident_mistakes(labels[1:2], p[1:2].argmax(axis=1), p[1:2], count=1).tolist() == []


# Intervals


def test_interval_of_a_class_equals_scipys_bca() -> None:
    """The images of one class are a plain sample: 37 of 45 right."""
    right = np.arange(45) < 37
    labels = np.concatenate([np.zeros(45, int), np.ones(100, int)])
    predictions = np.concatenate([1 - right, np.arange(100) < 80]).astype(int)
    ours = accuracy_intervals(labels, predictions, number_of_classes=2).per_class[0]
    theirs = scipy.stats.bootstrap(
        (right.astype(float),), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1), batch=1000
    ).confidence_interval
    # the ends lie on a grid of 1/45 and a bootstrap of 2,000 may be off by one step
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], atol=1 / 45 + 1e-9)


def test_grouped_interval_equals_scipys_bca() -> None:
    """Groups of 1 to 9 images, each right or wrong mostly as a whole; resampling groups is resampling pairs of sums."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 10, 60)
    right = rng.binomial(sizes, rng.beta(2, 1, 60))
    groups = np.repeat([f"g{i}" for i in range(60)], sizes).tolist()
    hits = np.concatenate([np.arange(size) < good for size, good in zip(sizes, right, strict=True)])
    ours = accuracy_intervals(np.zeros(sizes.sum(), int), 1 - hits.astype(int), number_of_classes=2, groups=groups)
    theirs = scipy.stats.bootstrap(
        (right.astype(float), sizes.astype(float)),
        lambda r, s, axis: r.sum(axis=axis) / s.sum(axis=axis),
        paired=True,
        n_resamples=20_000,
        method="BCa",
        rng=np.random.default_rng(1),
        batch=1000,
    ).confidence_interval
    np.testing.assert_allclose(ours.overall, [theirs.low, theirs.high], atol=0.01)
    assert ours.per_class[0] == pytest.approx(ours.overall)
    images_alone = accuracy_intervals(np.zeros(sizes.sum(), int), 1 - hits.astype(int), number_of_classes=2).overall
    assert np.ptp(ours.overall) > 1.2 * np.ptp(images_alone)


def test_coverage() -> None:
    """The 95% interval holds the true accuracy in about 95% of test sets (± 2.3 standard errors)."""
    rng = np.random.default_rng(0)
    counts, accuracies = np.array([180, 60]), np.array([0.92, 0.8])
    labels = np.repeat([0, 1], counts)
    inside = np.zeros(2)
    for seed in range(400):
        right = rng.random(240) < accuracies[labels]
        result = accuracy_intervals(labels, np.where(right, labels, 1 - labels), number_of_classes=2, seed=seed)
        overall, averaged = counts @ accuracies / 240, accuracies.mean()
        inside += [
            result.overall[0] <= overall <= result.overall[1],
            result.class_averaged[0] <= averaged <= result.class_averaged[1],
        ]
    assert (np.abs(inside / 400 - 0.95) < 0.025).all()


def test_intervals_without_a_mistake_are_exact_not_empty() -> None:
    labels = np.repeat([0, 1], [10, 40])
    result = accuracy_intervals(labels, labels, number_of_classes=3)
    clopper_pearson = scipy.stats.binomtest(10, 10).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(result.per_class[0], [clopper_pearson.low, 1], atol=1e-12)
    np.testing.assert_allclose(result.overall[0], scipy.stats.binomtest(50, 50).proportion_ci(0.95).low, atol=1e-12)
    np.testing.assert_allclose(result.class_averaged[0], 0.025 ** (1 / 20), atol=1e-12)
    assert result.per_class[2] is None
    wrong = accuracy_intervals(labels, 1 - labels, number_of_classes=3)
    np.testing.assert_allclose(wrong.per_class[0], [0, 1 - clopper_pearson.low], atol=1e-12)
    grouped = accuracy_intervals(labels, labels, number_of_classes=3, groups=["a"] * 5 + ["b"] * 5 + [""] * 40)
    np.testing.assert_allclose(grouped.per_class[0], [0.025 ** (1 / 2), 1], atol=1e-12)


def test_one_group_says_nothing_about_the_spread() -> None:
    labels = np.zeros(10, int)
    result = accuracy_intervals(labels, np.arange(10) // 7, number_of_classes=2, groups=["same person"] * 10)
    assert result.per_class[0] is result.overall is result.class_averaged is None


def test_groups_across_classes_and_classes_that_a_resample_misses() -> None:
    rng = np.random.default_rng(5)
    labels = np.concatenate([np.arange(60) % 2, [2, 2]])
    predictions = np.where(rng.random(62) < 0.8, labels, (labels + 1) % 3)
    predictions[-2:] = [2, 0]
    groups = [f"person {i // 4}" for i in range(60)] + ["x", "y"]
    result = accuracy_intervals(labels, predictions, number_of_classes=3, groups=groups)
    for interval in (result.overall, result.class_averaged, *result.per_class):
        assert interval is not None
        assert 0 <= interval[0] < interval[1] <= 1


def test_empty_group_names_are_images_on_their_own() -> None:
    labels, p = example(n=300, k=3)
    alone = accuracy_intervals(labels, p.argmax(axis=1), number_of_classes=3)
    unnamed = accuracy_intervals(labels, p.argmax(axis=1), number_of_classes=3, groups=[""] * 300)
    np.testing.assert_allclose(alone.overall, unnamed.overall, atol=0.005)
    assert m.metrics(labels, p, names=names(3), groups=[""] * 300)["interval_method"]["resampled"] == "images"
    assert m.metrics(labels, p, names=names(3), groups=["g"] * 300)["interval_method"]["resampled"] == "groups"


def test_the_same_seed_gives_the_same_intervals() -> None:
    labels, p = example(n=100, k=3)
    first, again = (accuracy_intervals(labels, p.argmax(axis=1), number_of_classes=3, seed=7) for _ in range(2))
    assert first == again
    assert first != accuracy_intervals(labels, p.argmax(axis=1), number_of_classes=3, seed=8)


def test_ten_thousand_images_take_less_than_a_second() -> None:
    labels, p = example(n=10_000, k=10)
    groups = [f"{label}/{i % 1500}" for i, label in enumerate(labels)]
    start = time.process_time()
    m.metrics(labels, p, names=names(10), groups=groups)
    assert time.process_time() - start < 1


# McNemar's test


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 21), (1500, 1400), (30_000, 30_600)]
)
def test_mcnemar_equals_the_exact_binomial_test(first: int, second: int) -> None:
    first_right = np.array([True] * first + [False] * second + [True] * 7)
    second_right = np.array([False] * first + [True] * second + [True] * 7)
    result = mcnemar(first_right, second_right)
    n = first + second
    assert (result.only_first_right, result.only_second_right) == (first, second)
    expected = scipy.stats.binomtest(first, n).pvalue if n else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9)
    pmf = scipy.stats.binom.pmf(first, n, 0.5)
    assert result.mid_p_value == pytest.approx(
        1 - pmf / 2 if first == second and n else expected - pmf if n else 1.0, rel=1e-9
    )
    assert mcnemar(second_right, first_right).p_value == result.p_value


def test_importing_metrics_costs_numpy_only() -> None:
    code = "import sys, libraries.evaluation.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sklearn", "scipy", "matplotlib", "PIL", "mlflow", "pandas"} & set(loaded)
