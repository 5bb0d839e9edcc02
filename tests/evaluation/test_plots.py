"""Pictures: what they show, that nothing overlaps or is cut off, and any class name."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from libraries.base import figures
from libraries.base.errors import StorageError
from libraries.evaluation import metrics, plots


def example(*, n: int, k: int, absent: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice([c for c in range(k) if c not in absent], n)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), labels] += 2
    p = np.exp(scores)
    return labels, p / p.sum(axis=1, keepdims=True)


def names(k: int) -> list[str]:
    return [f"class number {c}" for c in range(k)]


def legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def assert_labels_apart(figure: Figure) -> None:
    """No two tick labels of one axis overlap, and all lie within the figure (3 pixels of tolerance)."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        for axis, low, high in ((axes.xaxis, "x0", "x1"), (axes.yaxis, "y0", "y1")):
            boxes = [t.get_window_extent(renderer) for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            boxes.sort(key=lambda box: getattr(box, low))
            for before, after in itertools.pairwise(boxes):
                assert getattr(before, high) <= getattr(after, low) + 3
            for box in boxes:
                assert box.x0 > -3 and box.y0 > -3 and box.x1 < width + 3 and box.y1 < height + 3


@pytest.mark.parametrize("k", [2, 7, 13, 30, 100])
def test_confusion_labels_stay_readable(k: int) -> None:
    labels, p = example(n=20 * k, k=k)
    figure = plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=names(k))
    assert_labels_apart(figure)
    confusion = figure.axes[1]
    matrix = metrics.confusion_matrix(labels, p.argmax(axis=1), number_of_classes=k)
    written = sum(int(text.get_text()) for text in confusion.texts)
    assert written == (matrix.sum() if k <= 30 else 0)  # in cells too small for numbers stand none


def test_two_classes_have_one_roc_curve_of_the_rarer_one() -> None:
    labels, p = example(n=100, k=2)
    labels[:60] = 1
    axes = plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=["rare", "frequent"]).axes[0]
    assert legend(axes) == [f"{metrics.auc(labels == 0, p[:, 0]):.3f}  rare"]
    curve = axes.lines[-1].get_xydata()
    np.testing.assert_allclose(curve.T, metrics.roc_curve(labels == 0, p[:, 0]))


def test_of_many_classes_the_weakest_stand_out() -> None:
    labels, p = example(n=600, k=20)
    axes = plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=names(20)).axes[0]
    aucs = {c: metrics.auc(labels == c, p[:, c]) for c in range(20)}
    weakest = sorted(aucs, key=aucs.__getitem__)[:5]
    assert [line.split("  ")[1] for line in legend(axes)[:5]] == [f"class number {c}" for c in weakest]
    assert legend(axes)[5].endswith("mean of the other 15")


def test_precision_recall_encloses_the_average_precision() -> None:
    labels, p = example(n=200, k=3)
    axes = plots.precision_recall(labels, p, names=names(3)).axes[0]
    for c, line in enumerate(axes.lines):
        x, y = line.get_xydata().T
        area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
        assert area == pytest.approx(metrics.average_precision(labels == c, p[:, c]), abs=1e-12)


def test_reliability_counts_every_image() -> None:
    labels, p = example(n=300, k=4)
    above, below = plots.reliability(labels, p).axes
    # stacked: the outlines of 'wrong' begin where those of 'right' end
    right, wrong = (sum(patch.get_height() for patch in container) for container in below.containers)
    assert (right, wrong) == (np.sum(p.argmax(axis=1) == labels), np.sum(p.argmax(axis=1) != labels))
    assert above.lines[1].get_xydata().shape == (15, 2)


@pytest.mark.parametrize("absent", [[1], [0, 2]])
def test_classes_without_test_images(absent: list[int], tmp_path: Path) -> None:
    labels, p = example(n=50, k=3, absent=absent)
    for number, figure in enumerate(
        [
            plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=names(3)),
            plots.precision_recall(labels, p, names=names(3)),
        ]
    ):
        figures.save(figure, tmp_path / f"{number}.png")


@pytest.mark.parametrize(
    "label", ["$x^2$", "$", "a\\$b", "_hidden", "日本語", "🙂", "مرحبا", "a" * 200, "%s {0} <b>", "two\nlines"]
)
def test_any_label(label: str, tmp_path: Path) -> None:
    labels, p = example(n=40, k=2)
    figure = plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=[label, "other"])
    figures.save(figure, tmp_path / "picture.png")
    shown = figure.axes[1].get_yticklabels()[0].get_text()
    assert len(shown) <= 24


def test_save_writes_a_whole_picture_or_nothing(tmp_path: Path) -> None:
    labels, p = example(n=40, k=2)
    path = tmp_path / "new folder" / "roc.png"
    figures.save(plots.roc_and_confusion(labels, p.argmax(axis=1), p, names=names(2)), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        pixels = np.asarray(image.convert("L"))
    assert pixels.min() < 60 and np.mean(pixels == 255) > 0.3  # neither empty nor black
    assert [file.name for file in path.parent.iterdir()] == ["roc.png"]
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        figures.save(plots.reliability(labels, p), tmp_path / "file" / "roc.png")
