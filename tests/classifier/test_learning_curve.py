"""Accuracy against training images: the last point is the classifier, parts are nested and fair, advice is measured."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libraries.classifier import learning_curve as curves
from libraries.classifier import svm
from libraries.classifier.calibration import Calibration, fit_calibration
from libraries.classifier.learning_curve import LearningCurve, learning_curve
from libraries.classifier.svm import LinearModel

NAMES = ["a", "b", "c"]
C = 1.0


def clouds(sizes: list[int], *, spread: float, test: int = 60, seed: int = 0) -> dict[str, Any]:
    """Embeddings of three classes around directions of their own, `sizes` for training and `test` for testing."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(3), sizes), np.repeat(np.arange(3), test)])
    centres = np.eye(3, 20)
    embeddings = (centres[labels] + spread * generator.normal(size=(len(labels), 20))).astype(np.float32)
    is_train = np.arange(len(labels)) < sum(sizes)
    return {
        "embeddings": embeddings,
        "labels": labels,
        "is_train": is_train,
        "groups": [f"{i}" for i in range(len(labels))],
    }


def trained(data: dict[str, Any]) -> tuple[LinearModel, Calibration]:
    """The SVM on all training images."""
    x, y = (data[name][data["is_train"]] for name in ("embeddings", "labels"))
    path = svm.fit_path(x, y, number_of_classes=3, c_values=[C], normalisation="standardise")
    model = next(path)
    return model, fit_calibration(model.scores(x), y)


def curve_of(data: dict[str, Any], **changes: Any) -> LearningCurve:
    model, calibration = trained(data)
    options = {"names": NAMES, "model": model, "c": C, "calibration": calibration}
    return learning_curve(**data, **options | changes)


def test_last_point_is_the_classifier_and_parts_are_halves() -> None:
    data = clouds([64, 64, 64], spread=0.5)
    curve = curve_of(data)
    train = data["is_train"]
    model, calibration = trained(data)
    predicted = calibration.labels(model.scores(data["embeddings"][~train]))
    assert curve.accuracy[-1] == pytest.approx(np.mean(predicted == data["labels"][~train]), abs=1e-12)
    assert curve.images.tolist() == [6, 12, 24, 48, 96, 192]
    assert curve.accuracy.shape == (6, curves.MOST_REPEATS)
    assert curve.accuracy_per_class.mean(axis=2) == pytest.approx(curve.accuracy), "as many test images of each class"
    assert curve.accuracy[0].mean() + 0.1 < curve.accuracy[-1].mean(), "six images teach less than 192"
    assert np.ptp(curve.accuracy[1]) > 0 == np.ptp(curve.accuracy[-1])


def test_same_seed_same_curve() -> None:
    data = clouds([30, 20, 10], spread=0.5)
    first, second, other = curve_of(data, seed=1), curve_of(data, seed=1), curve_of(data, seed=2)
    assert np.array_equal(first.accuracy_per_class, second.accuracy_per_class)
    assert np.array_equal(first.gain_per_class, second.gain_per_class)
    assert not np.array_equal(first.accuracy, other.accuracy)


def test_parts_are_nested_stratified_and_keep_groups_whole() -> None:
    labels = np.repeat([0, 1], [40, 20])
    groups = [f"{label} {i // 4}" for i, label in enumerate(labels)]
    positions = curves._positions(labels, groups, seed=0, repeat=0)
    for fraction in (1 / 64, 0.25, 0.5, 1.0):
        chosen = positions <= fraction
        members = Counter(groups[i] for i in np.flatnonzero(chosen))
        assert set(members.values()) == {4}
        for label, count in ((0, 40), (1, 20)):
            assert chosen[labels == label].sum() == max(4, int(fraction * count) // 4 * 4)


def test_the_class_that_lacks_images_is_named() -> None:
    curve = curve_of(clouds([200, 200, 6], spread=0.45))
    assert int(np.argmax(curve.gain_per_class.mean(axis=1))) == 2
    assert "More images of ‘c’ would help most: the second half of its 6 training images" in curve.advice()[1]


def test_no_class_lacks_images_where_nothing_is_wrong() -> None:
    curve = curve_of(clouds([40, 40, 40], spread=0.01))
    assert (curve.accuracy[-1] == 1).all()
    lacking = replace(curve, gain_per_class=np.tile([[0.0], [0.3], [0.1]], curve.gain_per_class.shape[1]))
    assert lacking.advice()[1] == "No class stands out as the one that lacks images."


def test_plateau_is_told_where_images_are_enough() -> None:
    overall, by_class = curve_of(clouds([400, 400, 400], spread=0.2)).advice()
    assert "near its plateau" in overall
    assert by_class == "No class stands out as the one that lacks images."


def test_growth_is_told_where_it_goes_on() -> None:
    overall = curve_of(clouds([16, 16, 16], spread=0.6)).advice()[0]
    assert "48 instead of 24" in overall
    assert "still grows" in overall


def test_no_more_is_promised_than_is_wrong_now() -> None:
    curve = curve_of(clouds([16, 16, 16], spread=0.01))
    accuracy = np.full((2, curve.accuracy.shape[1]), 0.4)
    accuracy[1] = 1.0
    perfect = replace(curve, accuracy=accuracy, images=np.array([4, 10]))
    assert perfect.advice()[0] == (
        "10 training images instead of 4 took the accuracy from 40.0% to 100.0%. It is near its plateau: more images "
        "like these would help little."
    )
    accuracy[1] = 0.9
    good = replace(perfect, accuracy=accuracy)
    assert good.advice()[0].endswith("It still grows: twice as many may add about 10.0 points.")
    assert replace(good, images=np.array([5, 10])).advice()[0] == (
        "Twice the training images, 10 instead of 5, took the accuracy from 40.0% to 90.0%. It still grows: twice as "
        "many again may add about 10.0 points."
    )


def test_too_few_images_for_a_curve() -> None:
    curve = curve_of(clouds([2, 2, 2], spread=0.1))
    assert curve.images.tolist() == [6]
    assert curve.advice() == ["There are too few training images to tell how the accuracy grows with them."]


def test_class_without_test_images_is_unknown() -> None:
    data = clouds([30, 30, 30], spread=0.3)
    keep = data["is_train"] | (data["labels"] != 1)
    data = {key: np.asarray(value)[keep] for key, value in data.items()}
    curve = curve_of(data)
    assert np.isnan(curve.accuracy_per_class[:, :, 1]).all()
    assert np.isfinite(curve.accuracy).all()
    assert np.isfinite(curve.gain_per_class).all()
    assert {row.accuracy_per_class["b"] for row in curve.rows()} == {None}
    assert all(curve.advice())


def test_work_is_bounded_by_fewer_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_WORK", 1.0)
    monkeypatch.setattr(curves, "MOST_CLASSES", 1)
    curve = curve_of(clouds([60, 60, 12], spread=0.5))
    assert curve.accuracy.shape[1] == 1
    assert np.isfinite(curve.gain_per_class).all(axis=1).sum() == 1, "of the weakest class"
    assert all(curve.advice())


def test_no_class_is_measured_where_none_could_be_notable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "NOTABLE", 0.4)  # of three classes, one can add a third
    curve = curve_of(clouds([60, 60, 12], spread=0.5))
    assert np.isnan(curve.gain_per_class).all()
    assert all(curve.advice())


def test_classes_of_one_group_and_without_training_images_come_first() -> None:
    """Nothing is said of what their images add, since nothing of it can be measured."""
    data = clouds([40, 40, 12], spread=0.3)
    data["groups"] = [f"{i}" if label < 2 else "one object" for i, label in enumerate(data["labels"])]
    curve = curve_of(data)
    assert curve.groups_per_class.tolist() == [40, 40, 1]
    assert np.isnan(curve.gain_per_class[2]).all()
    assert curve.advice()[0].startswith("‘c’: training images of one group only.")
    assert not any(
        "No class stands out" in sentence or "images of ‘c’ would help" in sentence for sentence in curve.advice()
    )
    without = replace(
        curve,
        groups_per_class=np.array([40, 0, 0]),
        images_per_class=np.array([40, 0, 0]),
        gain_per_class=np.full((3, 1), np.nan),
    )
    (advice,) = without.advice()
    assert advice.startswith("‘b’, ‘c’: no training images"), "and nothing of a plateau, which would contradict it"
    alone = replace(curve, images_per_class=np.array([40, 40, 1]))
    assert alone.advice()[0].startswith("‘c’: a single training image. More come first")


def test_progress_counts_every_fit_once() -> None:
    calls: list[tuple[int, int]] = []
    curve_of(clouds([16, 16, 16], spread=0.5), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, len(calls)) for i in range(1, len(calls) + 1)]
