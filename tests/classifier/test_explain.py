"""Heatmaps where the answer is known: a pattern in one corner, which alone makes the class."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx.utils
import pytest

from libraries.base.errors import InputError
from libraries.base.storage import Artefact
from libraries.classifier import explain
from libraries.classifier.bundle import Classifier, Prediction, write_bundle
from libraries.classifier.explain import (
    AGAINST,
    FOR,
    GRID,
    Heatmap,
    heatmap,
    heatmap_of_fitted,
    margin,
    nearest,
    occlusion,
    paint,
)
from libraries.classifier.sweep import sweep
from libraries.data.images import ResizeRule, fit
from libraries.network.artefact import resize_rule, write_network
from libraries.network.backbones import load_pretrained
from libraries.network.engine import Engine

SIZE = 192
PATCH = 0.3  # the pattern's side, of the picture's longer one
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
LABELS = ["checks", "plain", "rings"]
SIGHTS = [("checks", (192, 192)), ("rings", (192, 192)), ("checks", (192, 240)), ("rings", (240, 192))]


def picture(label: str, corner: tuple[int, int], seed: int, *, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Gray noise, and in one corner a pattern if it is to be of a class that has one: uint8 [H, W, 3]."""
    side = round(PATCH * max(height, width))
    y, x = np.mgrid[-28 : 28 : side * 1j, -28 : 28 : side * 1j]
    patterns = {"checks": np.sin(x / 3) * np.sin(y / 3), "rings": np.sin(np.hypot(x, y) / 2)}
    gray = np.random.default_rng(seed).normal(128, 12, (height, width))
    if label in patterns:
        top, left = corner[0] * (height - side), corner[1] * (width - side)
        gray[top : top + side, left : left + side] += 90 * np.sign(patterns[label])
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Artefact:
    """An SVM on EfficientNet-Lite0, trained on patterns in any corner."""
    root = tmp_path_factory.mktemp("corners")
    network = Artefact("dnn", root / "dnn" / "model.json", "scripts/2_refineDNN.py", {})
    backbone = load_pretrained("EfficientNet_Lite0", input_size=SIZE)
    write_network(network, backbone, rule=resize_rule(backbone, "pad"))
    corners = list(CORNERS.values())
    examples = [(label, corners[i % 4]) for i in range(16) for label in LABELS]
    images = np.stack([picture(label, corner, seed) for seed, (label, corner) in enumerate(examples)])
    embeddings = Engine(network.folder / "model.onnx").run(images)["embedding"]
    y = [LABELS.index(label) for label, _ in examples]
    swept = sweep(embeddings, y, number_of_classes=3, c_values=[0.1, 1, 10], normalisations=["sqrt_l2"], folds=3)
    made = Artefact("model", root / "model" / "model.json", "scripts/4_trainSVM.py", {}, (network,))
    chosen = {"calibration": swept.calibrations[swept.best], "linear": swept.models[swept.best]}
    write_bundle(made, network, labels=LABELS, settings={}, **chosen)
    return made


@pytest.fixture(scope="module")
def mapped(bundle: Artefact) -> Classifier:
    return Classifier(bundle.folder)


@pytest.fixture(scope="module")
def unmapped(bundle: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The same classifier in a bundle without evidence, as if the network had no map."""
    copy = replace(bundle, manifest=tmp_path_factory.mktemp("unmapped") / "model.json")
    outputs = ["embedding", "scores", "probabilities"]
    onnx.utils.extract_model(bundle.folder / "model.onnx", copy.folder / "model.onnx", ["images"], outputs)
    kept = ("labels", "resize", "embedding_size")
    copy.commit([copy.folder / "model.onnx"], **{k: v for k, v in bundle.read().items() if k in kept})
    return Classifier(copy.folder)


@pytest.fixture(scope="module", params=["class activation map", "occlusion"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    """By the method that its heatmaps are made with."""
    chosen: Classifier = request.getfixturevalue("mapped" if request.param == "class activation map" else "unmapped")
    assert heatmap(chosen, picture("plain", (0, 0), 0), "plain").method == request.param
    return chosen


def strongest(found: Heatmap) -> tuple[float, float]:
    """Where the largest value lies, from the top and from the left, in fractions of the picture."""
    row, column = np.unravel_index(found.values.argmax(), found.values.shape)
    left, top, right, bottom = found.area
    height, width = found.values.shape
    return top + (bottom - top) * (row + 0.5) / height, left + (right - left) * (column + 0.5) / width


@pytest.mark.parametrize(("label", "shape"), SIGHTS, ids=str)
@pytest.mark.parametrize("corner", CORNERS.values(), ids=CORNERS)
def test_the_pattern_is_where_the_evidence_is(
    classifier: Classifier, corner: tuple[int, int], label: str, shape: tuple[int, int]
) -> None:
    """The strongest evidence lies in the pattern, and in its corner where the network sees it smaller, with padding."""
    height, width = shape
    image = picture(label, corner, 1000, height=height, width=width)
    (prediction,) = classifier.predict([image])
    assert prediction.label == label
    y, x = strongest(heatmap(classifier, image, label))
    farthest = PATCH if height == width else 0.49
    assert abs(y - corner[0]) <= farthest
    assert abs(x - corner[1]) <= farthest


def test_what_speaks_for_one_label_speaks_against_the_others(classifier: Classifier) -> None:
    image = picture("checks", (0, 0), 1000)
    found = {label: heatmap(classifier, image, label).values for label in LABELS}
    np.testing.assert_allclose(sum(found.values()), 0, atol=1e-4 * np.abs(found["checks"]).max())


def test_the_map_is_the_margin_of_the_logits(mapped: Classifier) -> None:
    image = picture("rings", (0, 1), 1000)
    logits = np.log(mapped.predict([image])[0].probabilities)
    for i, label in enumerate(LABELS):
        expected = logits[i] - np.delete(logits, i).mean()
        assert heatmap(mapped, image, label).values.mean() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_occlusion_is_what_covering_by_hand_costs(unmapped: Classifier) -> None:
    image = picture("rings", (0, 1), 1000)  # as large as the network's input
    cell = SIZE // GRID

    def rings(pixels: np.ndarray) -> float:
        logits = np.log(unmapped.classify(pixels).probabilities)
        return float(margin(logits, LABELS.index("rings")))

    found = occlusion(unmapped, image, LABELS.index("rings"))
    assert found.shape == (GRID, GRID)
    assert found.dtype == np.float32
    for row, column in ((0, 0), (0, GRID - 1), (3, 4), (GRID - 1, GRID - 1)):
        covered = image.copy()
        rows, columns = (slice(max(cell * i - cell // 2, 0), cell * (i + 1) + cell // 2) for i in (row, column))
        covered[rows, columns] = unmapped.rule.fill
        assert found[row, column] == pytest.approx(rings(image) - rings(covered), abs=1e-4)


def test_covering_what_is_padding_already_costs_nothing(unmapped: Classifier) -> None:
    found = heatmap(unmapped, picture("rings", (0, 0), 1000, height=80, width=160), "rings")
    assert found.area == (0.0, -0.5, 1.0, 1.5)
    np.testing.assert_array_equal(found.values[0], 0)  # with half a part of the second row
    assert np.abs(found.values[2:6]).max() > 0.1


@pytest.mark.parametrize("size", [1, 3, 8, 33, 224])
def test_occlusion_asks_so_many_times_and_covers_every_pixel_whatever_the_size(size: int) -> None:
    """Each time one part, together with half of its neighbours."""
    fitted = np.full((size, size, 3), 200, np.uint8)
    asked: list[np.ndarray] = []

    class Asked:
        rule = ResizeRule(size, fill=(1, 2, 3))

        def predict_stream(self, items: list[int | None], load: Any) -> Any:
            for item in items:
                asked.append(load(item))
                probabilities = np.array([0.0, 1.0], np.float32)  # a zero has no logarithm
                yield item, Prediction("", probabilities, probabilities, probabilities)

    found = occlusion(Asked(), fitted, 1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, 0)
    assert len(asked) == 1 + GRID * GRID
    np.testing.assert_array_equal(asked[0], fitted)
    covered = np.array([(image == (1, 2, 3)).all(axis=2) for image in asked[1:]])
    assert covered.any(axis=0).all()
    assert covered.mean(axis=(1, 2)).max() <= (2 / GRID + 1 / size) ** 2
    assert (fitted == 200).all(), "the image handed in stays as it is"


def test_a_fitted_image_gives_the_same(classifier: Classifier) -> None:
    image = picture("rings", (1, 0), 1000, height=100, width=200)
    whole = heatmap(classifier, image, "rings")
    again = heatmap_of_fitted(classifier, fit(image, classifier.rule), "rings", size=(200, 100))
    np.testing.assert_array_equal(again.values, whole.values)
    assert (again.label, again.area, again.method) == (whole.label, whole.area, whole.method)
    assert whole.values.dtype == np.float32


def test_a_label_that_is_none_is_refused(classifier: Classifier) -> None:
    with pytest.raises(InputError, match='no label "stripes": it knows checks, plain, rings'):
        heatmap(classifier, picture("rings", (1, 0), 1000), "stripes")


@pytest.mark.parametrize("wrong", [(20, 20), (20, 20, 4), (20, 20, 3, 1)], ids=str)
def test_what_is_no_image_is_refused(classifier: Classifier, wrong: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"an image is uint8 \[H, W, 3\], found uint8"):
        heatmap(classifier, np.zeros(wrong, np.uint8), "rings")
    with pytest.raises(InputError, match="found float64"):
        heatmap(classifier, np.zeros((20, 20, 3)), "rings")  # type: ignore[arg-type]


def test_margins() -> None:
    logits = np.array([[1.0, 2.0], [3.0, 5.0], [5.0, 8.0]], np.float32)
    np.testing.assert_array_equal(margin(logits, 1), [0.0, 0.0])
    np.testing.assert_array_equal(margin(logits, 2), [3.0, 4.5])
    np.testing.assert_array_equal(margin(logits[:2], 0), [-2.0, -3.0])


def test_neither_pytorch_nor_matplotlib_is_imported() -> None:
    code = (
        "import sys, libraries.classifier.explain;"
        "print([m for m in ('torch', 'timm', 'sklearn', 'matplotlib', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Painted over a picture


def test_painted_evidence_lies_where_it_was_found() -> None:
    values = np.array([[2.0, 0.0], [0.0, -1.0]], np.float32)
    found = Heatmap("a", values, (0.0, 0.0, 1.0, 1.0), "occlusion")
    painted = paint(found, (0.0, 0.0, 1.0, 1.0), side=64)
    assert painted.shape == (64, 64, 4)
    assert painted[5, 5].tolist() == [*FOR, 255]
    assert painted[-6, -6, :3].tolist() == list(AGAINST)
    assert int(painted[-6, -6, 3]) == pytest.approx(128, abs=6), "half as strong"
    assert painted[5, -6, 3] < 20


def test_painted_evidence_keeps_its_place_in_a_padded_picture_and_ends_where_the_map_ends() -> None:
    found = Heatmap("a", np.ones((4, 4), np.float32), (0.25, 0.0, 0.75, 1.0), "occlusion")  # the middle of a wide one
    painted = paint(found, (0.0, -0.5, 1.0, 1.5), side=80)  # padded above and below
    rows, columns = np.nonzero(painted[..., 3])
    assert (rows.min(), rows.max()) == (20, 59)
    assert (columns.min(), columns.max()) == (20, 59)
    assert (painted[25:55, 25:55, 3] == 255).all()


@pytest.mark.parametrize("rows", [7, 64, 8192])
def test_same_as_sorting_all_cosines(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(explain, "_ROWS", rows)
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(200, 16)).astype(np.float32)
    queries = generator.normal(size=(9, 16)).astype(np.float32) * 100
    cosines = (queries @ embeddings.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(embeddings, axis=1))
    assert np.array_equal(nearest(embeddings, queries, count=5)[0], np.argsort(-cosines, axis=1)[:, :5])


def test_an_image_is_most_like_itself_at_any_brightness() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    assert nearest(embeddings, 3 * embeddings, count=1)[0][:, 0].tolist() == [0, 1, 2, 3]


def test_no_more_than_there_are_and_zeros_do_no_harm() -> None:
    embeddings = np.array([[0, 0], [1, 0]], np.float32)
    assert nearest(embeddings, np.array([[1, 1], [0, 0]], np.float32), count=3)[0].tolist() == [[1, 0], [0, 1]]
