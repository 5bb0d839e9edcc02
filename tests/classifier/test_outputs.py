"""What a sweep leaves behind: the table, the picture, and the arrays of the chosen SVM."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from libraries.base import figures
from libraries.classifier import svm
from libraries.classifier.outputs import MeasuredRow, save_model, sweep_figure, sweep_rows, untried_line
from libraries.classifier.sweep import Sweep, sweep

SWEEP = [
    MeasuredRow(normalisation, c, 0.9, 0.8 + c / 100, 0.01, None, (normalisation, c) == ("l2", 0.1))
    for normalisation in ("standardize", "l2")
    for c in (1.0, 0.01, 0.1)
]


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    """60 embeddings float32 [60, 6] of three overlapping classes, and their labels."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    centres = generator.normal(size=(3, 6))
    return (centres[labels] + generator.normal(0, 0.8, (60, 6))).astype(np.float32), labels


@pytest.fixture(scope="module")
def result(examples: tuple[np.ndarray, np.ndarray]) -> Sweep:
    return sweep(*examples, number_of_classes=3, c_values=(0.01, 1.0), folds=3)


def test_table_has_a_row_per_fit_with_its_test_accuracy(result: Sweep, examples: tuple[np.ndarray, np.ndarray]) -> None:
    rows = sweep_rows(result, *examples)
    assert [(r.normalisation, r.C) for r in rows] == [(n, c) for n in svm.NORMALISATIONS for c in (0.01, 1.0)]
    expected = [
        (calibration.probabilities(model.scores(examples[0])).argmax(axis=1) == examples[1]).mean()
        for model, calibration in zip(result.models, result.calibrations, strict=True)
    ]
    assert [r.test_accuracy for r in rows] == expected
    assert len({r.test_accuracy for r in rows}) > 1
    assert [i for i, r in enumerate(rows) if r.chosen] == [result.best]
    wrong = sweep_rows(result, examples[0], (examples[1] + 1) % 3)
    assert all(w.test_accuracy <= 1 - r.test_accuracy for w, r in zip(wrong, rows, strict=True))


def test_table_without_test_images_leaves_their_accuracy_open(result: Sweep) -> None:
    rows = sweep_rows(result, np.empty((0, 6), np.float32), np.empty(0, np.int64))
    assert len(rows) == 6
    assert {r.test_accuracy for r in rows} == {None}
    assert all(0 < r.validation_accuracy <= 1 for r in rows)


def test_what_was_not_tried_is_told() -> None:
    assert untried_line({}) == ""
    assert untried_line({"l2": [10.0, 100.0], "standardise": [0.1]}) == (
        "Not tried, as it had become worse: l2 with C = 10, 100; standardise with C = 0.1"
    )


def test_saved_model_is_read_with_numpy_alone(tmp_path: Path, result: Sweep) -> None:
    model, calibration = result.models[result.best], result.calibrations[result.best]
    labels = ["Straße", "日本 語", "c"]
    save_model(tmp_path / "svm.npz", model, calibration, labels=labels)
    with np.load(tmp_path / "svm.npz", allow_pickle=False) as saved:
        assert saved["labels"].tolist() == labels
        for part, value in (("svm", model), ("calibration", calibration)):
            for field in fields(value):
                np.testing.assert_array_equal(saved[f"{part}_{field.name}"], getattr(value, field.name))
        assert saved["svm_weights"].dtype == np.float32
        assert len(saved.files) == 8


def test_saved_model_is_the_same_bytes_every_time(tmp_path: Path, result: Sweep) -> None:
    for name in ("a.npz", "b.npz"):
        save_model(tmp_path / name, result.models[0], result.calibrations[0], labels=["a", "b", "c"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_sweep_marks_the_choice() -> None:
    axes = sweep_figure(SWEEP).axes[0]
    (ring,) = [line for line in axes.lines if line.get_label().startswith("chosen")]
    np.testing.assert_allclose(ring.get_xydata(), [[0.1, 0.801]])
    assert legend(axes) == ["training", "validation", "test", "standardize", "l2", "chosen: C = 0.1"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.01, 0.1, 1.0])  # sorted


def test_picture_of_a_single_row(tmp_path: Path) -> None:
    figures.save(sweep_figure(SWEEP[-1:]), tmp_path / "sweep.png")
