"""Few images or groups of a class: as good as scikit-learn's LinearSVC with its defaults, and no class forgotten."""

from typing import Any

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from libraries.classifier.calibration import fit_calibration
from libraries.classifier.cross_validation import SweepRow, choose_from_few
from libraries.classifier.sweep import Sweep, sweep

C_VALUES = (1e-4, 1e-2, 1.0, 100.0)
TOLERANCE = 0.03  # of accuracy, mean of the seeds
SEEDS = 3


def embeddings(labels: Any, *, classes: int, seed: int, noise: float = 0.7, objects: Any = None) -> Any:
    """Like a network's: positive, correlated; examples of one object have most of their noise in common."""
    generator, features = np.random.default_rng(seed), np.random.default_rng(1000 + seed)
    centres, mixing = features.normal(size=(classes, 16)), features.normal(size=(16, 32)) / 4
    own = generator.normal(size=(len(labels), 16))
    if objects is not None:
        own = 0.3 * own + generator.normal(size=(max(objects) + 1, 16))[objects]
    return np.maximum((centres[labels] + noise * own) @ mixing + 0.5, 0).astype(np.float32)


def accuracies(result: Sweep, data: dict[str, Any]) -> tuple[float, float, float]:
    """Of the sweep's choice, and of LinearSVC(C=1) on embeddings of length 1 and as they are."""
    x, y, x_test, y_test = data["x"], data["y"], data["x_test"], data["y_test"]
    unit, unit_test = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, x_test))
    theirs = [
        float((LinearSVC(C=1.0, random_state=0).fit(a, y).predict(b) == y_test).mean())
        for a, b in ((unit, unit_test), (x, x_test))
    ]
    scores = result.models[result.best].scores(x_test)
    return float((result.calibrations[result.best].labels(scores) == y_test).mean()), theirs[0], theirs[1]


def compared(members: Any, *, objects: Any = None, test: int = 8, noise: float = 0.7) -> tuple[float, float, float]:
    """Means over the seeds, for so many training examples of each class, in so many groups."""
    rows = []
    for seed in range(SEEDS):
        classes = len(members)
        y, y_test = np.repeat(np.arange(classes), members), np.repeat(np.arange(classes), test)
        group = (
            None if objects is None else [f"{c} {i % objects[c]}" for c in range(classes) for i in range(members[c])]
        )
        thing = (
            None if group is None else np.r_[np.unique(group, return_inverse=True)[1], 1000 + np.arange(len(y_test))]
        )
        both = embeddings(np.r_[y, y_test], classes=classes, seed=seed, noise=noise, objects=thing)
        data = {"x": both[: len(y)], "y": y, "x_test": both[len(y) :], "y_test": y_test}
        result = sweep(data["x"], y, number_of_classes=classes, c_values=C_VALUES, groups=group, seed=seed)
        rows.append(accuracies(result, data))
    return tuple(np.mean(rows, axis=0).tolist())  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")  # scikit-learn's, of one example a class
@pytest.mark.parametrize(
    "members",
    [
        pytest.param([1] * 16, id="one each"),
        pytest.param([2] * 16, id="two each"),
        pytest.param([3] * 6, id="three each"),
        pytest.param([5] * 6, id="five each"),
        pytest.param([10] * 6, id="ten each"),
        pytest.param([2] * 2, id="two classes of two"),
        pytest.param([5] * 2, id="two classes of five"),
        pytest.param([1, 12, 12, 12], id="one class of one"),
        pytest.param([3, 20, 20], id="one class of three"),
    ],
)
def test_as_good_as_linear_svc(members: list[int]) -> None:
    ours, of_unit, as_is = compared(members)
    assert ours >= max(of_unit, as_is) - TOLERANCE


@pytest.mark.parametrize(
    "objects", [[1, 6, 6], [1, 1, 1], [1, 5], [2, 2, 2]], ids=["one class", "all", "of two", "two groups each"]
)
def test_as_good_as_linear_svc_where_groups_are_few(objects: list[int]) -> None:
    ours, of_unit, as_is = compared([12] * len(objects), objects=objects, noise=0.4)
    assert ours >= max(of_unit, as_is) - TOLERANCE


def test_without_anything_to_leave_out_the_usual_row_and_the_highest_score_decide() -> None:
    y = np.arange(20)
    x = embeddings(y, classes=20, seed=0)
    result = sweep(x, y, number_of_classes=20, c_values=C_VALUES)
    row = result.rows[result.best]
    assert (row.normalisation, row.C) == ("sqrt_l2", 1.0)
    assert row.validation_accuracy is row.validation_std is None
    assert row.train_accuracy == 1
    other = embeddings(np.tile(y, 5), classes=20, seed=1)
    scores = result.models[result.best].scores(other)
    calibration = result.calibrations[result.best]
    np.testing.assert_array_equal(calibration.labels(scores), scores.argmax(axis=1))
    sure = calibration.probabilities(result.models[result.best].scores(x)).max(axis=1)
    assert 0.5 < sure.mean() < 0.75, "Platt's target of a single example is 2/3"


def test_a_class_without_training_examples_is_never_the_answer() -> None:
    """Test images alone may have it. Where there is nothing to leave out, and where there is."""
    for members in ([1, 1, 0, 1], [8, 8, 0, 8]):
        y = np.repeat(np.arange(4), members)
        result = sweep(embeddings(y, classes=4, seed=2), y, number_of_classes=4, c_values=C_VALUES)
        for model, calibration in zip(result.models, result.calibrations, strict=True):
            scores = model.scores(embeddings(np.repeat(np.arange(4), 20), classes=4, seed=3))
            assert 2 not in calibration.labels(scores)


@pytest.mark.parametrize("evidence", [0, 1, 3])
@pytest.mark.parametrize("useless", [False, True])
def test_calibration_buries_no_class_of_little_evidence(evidence: int, useless: bool) -> None:
    """Scores put class 2 first for a third of the examples; of its own ones, hardly any are there to speak for it."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(90, 3))
    labels = generator.integers(0, 2, 90) if useless else np.where(scores[:, 0] > scores[:, 1], 0, 1)
    labels[:evidence] = 2
    calibration = fit_calibration(scores, labels, evidence=[40, 40, evidence])
    found = np.bincount(calibration.labels(scores), minlength=3)
    assert found[2] >= np.bincount(scores.argmax(axis=1), minlength=3)[2] / 5
    assert calibration.slope > 0


def test_enough_evidence_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(90, 3)), generator.integers(0, 3, 90)
    free, told = fit_calibration(scores, labels), fit_calibration(scores, labels, evidence=np.bincount(labels))
    assert free.slope == told.slope
    np.testing.assert_array_equal(free.bias, told.bias)


def test_another_row_is_chosen_only_where_it_is_clearly_better() -> None:
    rows = [
        SweepRow("sqrt_l2", 1.0, 1.0, 0.5, 0.1),
        SweepRow("l2", 0.1, 1.0, 0.6, 0.1),
        SweepRow("l2", 1.0, 1.0, 0.8, 0.1),
    ]
    right = [(np.arange(20) < n).astype(float) for n in (10, 12, 16)]
    alone = np.arange(20)
    assert choose_from_few(rows, right, groups=alone, dimensions=8) == 2
    assert choose_from_few(rows[:2], right[:2], groups=alone, dimensions=8) == 0
    assert choose_from_few(rows, right, groups=alone // 10, dimensions=8) == 0, "one group is one observation"
