"""Calibration against scikit-learn's Platt scaling and logistic regression, and its behaviour at the edges."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.calibration import _SigmoidCalibration

from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.cross_validation import Validation

Float = npt.NDArray[np.float64]


def binary_scores(n: int = 500, *, seed: int = 0) -> tuple[Float, npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    labels = (generator.uniform(size=n) < 0.3).astype(np.int64)
    score = 0.8 * (2 * labels - 1) + generator.normal(size=n) - 0.4
    return np.stack([-score, score], axis=1), labels


def logits(n: int, k: int, *, seed: int = 0) -> tuple[Float, npt.NDArray[np.int64]]:
    """Logits of a perfectly calibrated classifier."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n, k)) * 2
    gumbel = generator.gumbel(size=(n, k))
    return scores, (scores + gumbel).argmax(axis=1)


def log_loss(probabilities: Float, labels: npt.NDArray[np.int64]) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_two_columns_are_platt_scaling(weighted: bool) -> None:
    scores, labels = binary_scores()
    weight = np.random.default_rng(1).uniform(0.2, 3, len(labels)) if weighted else None
    theirs = _SigmoidCalibration().fit(scores[:, 1], labels, sample_weight=weight).predict(scores[:, 1])
    ours = fit_calibration(scores, labels, sample_weight=weight).probabilities(scores)
    np.testing.assert_allclose(ours[:, 1], theirs, atol=2e-4)  # theirs stops at L-BFGS's default tolerance


def test_many_classes_reach_the_minimum_that_a_general_optimiser_finds() -> None:
    scores, labels = logits(800, 4)
    n, k = scores.shape
    members = np.bincount(labels)
    targets = np.repeat(1 / (members + 2)[labels, None] / (k - 1), k, axis=1)
    targets[np.arange(n), labels] = ((members + 1) / (members + 2))[labels]

    def loss(parameters: Float) -> float:
        z = parameters[0] * scores + parameters[1:]
        return float((np.log(np.exp(z).sum(axis=1)) - (targets * z).sum(axis=1)).mean())

    best = minimize(loss, np.r_[1.0, np.zeros(k)], method="BFGS", options={"gtol": 1e-8})
    ours = fit_calibration(scores, labels)
    assert loss(np.r_[ours.slope, ours.bias]) <= best.fun + 1e-10
    assert ours.slope == pytest.approx(best.x[0], abs=1e-4)
    np.testing.assert_allclose(ours.bias, best.x[1:] - best.x[1:].mean(), atol=1e-4)


def test_where_it_starts_does_not_matter() -> None:
    scores, labels = logits(800, 40)
    expected = fit_calibration(scores, labels)
    near = fit_calibration(scores[:600], labels[:600])
    for start in (near, replace(near, slope=3.0)):
        found = fit_calibration(scores, labels, start=start)
        assert found.slope == pytest.approx(expected.slope, abs=1e-7)
        np.testing.assert_allclose(found.bias, expected.bias, atol=1e-6)


def test_temperature_and_tilt_are_undone() -> None:
    """The scores of a calibrated classifier, made 5 times too sharp and tilted, become its probabilities again."""
    scores, labels = logits(20_000, 5)
    tilt = np.array([0.0, 1.0, -1.0, 2.0, -2.0])
    calibration = fit_calibration(5 * scores + 5 * tilt, labels)
    assert calibration.slope == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(calibration.bias, -tilt, atol=0.1)


def test_probabilities_are_a_distribution_in_float32() -> None:
    scores, labels = logits(300, 6)
    probabilities = fit_calibration(scores, labels).probabilities((1000 * scores).astype(np.float32))
    assert probabilities.dtype == np.float32 and probabilities.shape == (300, 6)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_scale_and_shift_of_scores_do_not_matter() -> None:
    scores, labels = logits(500, 3)
    row_shift = np.random.default_rng(0).normal(size=(500, 1))
    expected = fit_calibration(scores, labels).probabilities(scores)
    for changed in (1e-6 * scores, 1e4 * scores):
        np.testing.assert_allclose(fit_calibration(changed, labels).probabilities(changed), expected, atol=1e-6)
    shifted = scores + 3 * row_shift
    np.testing.assert_allclose(fit_calibration(shifted, labels).probabilities(shifted), expected, atol=1e-6)


def test_weights_count_as_repetitions() -> None:
    scores, labels = logits(100, 3)
    repeats = np.random.default_rng(0).integers(0, 4, 100)
    weighted = fit_calibration(scores, labels, sample_weight=repeats)
    repeated = fit_calibration(np.repeat(scores, repeats, axis=0), np.repeat(labels, repeats))
    np.testing.assert_allclose(weighted.probabilities(scores), repeated.probabilities(scores), atol=1e-6)


def test_separable_scores_stay_finite_and_modest() -> None:
    labels = np.repeat([0, 1], 20)
    scores = np.where(labels[:, None] == [0, 1], 1.0, -1.0)
    calibration = fit_calibration(scores, labels)
    # Platt's targets are 21/22: where all scores are alike, that is what comes out.
    assert calibration.probabilities(scores).max() == pytest.approx(21 / 22, abs=1e-6)


def test_scores_that_point_the_wrong_way_are_ignored_not_inverted() -> None:
    scores, labels = binary_scores()
    calibration = fit_calibration(-scores, labels)
    assert 0 < calibration.slope < 0.01
    probabilities = calibration.probabilities(-scores)
    np.testing.assert_allclose(probabilities[:, 1], labels.mean(), atol=0.02)


def test_constant_scores_give_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    probabilities = fit_calibration(np.zeros((100, 3)), labels).probabilities(np.zeros((1, 3)))
    np.testing.assert_allclose(probabilities, [[0.5, 0.3, 0.2]], atol=0.02)


def test_a_class_without_examples_gets_a_finite_bias() -> None:
    scores, labels = logits(200, 4)
    labels[labels == 3] = 0
    calibration = fit_calibration(scores, labels)
    assert np.isfinite(calibration.bias).all()
    assert calibration.probabilities(scores)[:, 3].mean() < 0.02


def test_log_loss_improves_on_examples_not_seen() -> None:
    scores, labels = logits(4000, 3)
    sharp = 3 * scores
    calibration = fit_calibration(sharp[:2000], labels[:2000])
    plain = np.exp(sharp - sharp.max(axis=1, keepdims=True))
    plain /= plain.sum(axis=1, keepdims=True)
    calibrated = calibration.probabilities(sharp[2000:]).astype(np.float64)
    assert log_loss(calibrated, labels[2000:]) < log_loss(plain[2000:], labels[2000:]) - 0.1


def test_a_class_that_the_scores_put_first_is_not_silenced_by_its_bias() -> None:
    """One wild score, of an example that its fold's model got wrong, makes all scores look nearly useless."""
    labels = np.repeat([0, 1], [16, 6])
    right = np.where(labels == 1, 1.0, -1.0)
    wild = right.copy()
    wild[0] = 10
    scores, training_scores = (np.stack([-s, s], axis=1).astype(np.float32) for s in (wild, right))
    fitted = fit_calibration(scores, labels, evidence=np.array([16, 6]))
    assert (fitted.labels(training_scores) == 0).all(), "the second class would never be the answer"
    folds = np.arange(len(labels)) % 5
    validation = Validation(folds, labels, groups=np.arange(len(labels)), number_of_classes=2)
    calibration = validation.calibrate(scores, training_scores=training_scores)
    assert (calibration.labels(training_scores) == labels).all()
    is_right, worth = validation.answers(scores, training_scores=training_scores, start=calibration)
    assert worth.tolist() == is_right.tolist()
    assert is_right.tolist() == [False, *[True] * 21]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_whatever_the_scores_every_class_that_they_put_first_is_an_answer(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes, count = random.integers(2, 6), random.integers(2, 30)
    scores = random.standard_normal((count, classes)) * 10.0 ** random.integers(-1, 2)
    bias = random.standard_normal(classes) * 3
    given_one = Calibration(10.0 ** random.integers(-1, 2), bias - bias.mean())
    found = given_one.heard(scores)
    assert set(scores.argmax(axis=1)) <= set(found.labels(scores))
    assert found.bias.sum() == pytest.approx(0, abs=1e-9) and found.slope == given_one.slope
    if set(scores.argmax(axis=1)) <= set(given_one.labels(scores)):
        assert found is given_one
