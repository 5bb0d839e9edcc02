"""What is worth a second look: each finding on pictures made for it, none on good ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.datasets import load_sample_images

from libraries.base.errors import StorageError
from libraries.base.tables import write_table
from libraries.data.quality import Measures, QualityRow, findings, measure, read_review, review, summary

Change = Callable[[Image.Image], Image.Image]


@pytest.fixture(scope="module")
def crops() -> list[Image.Image]:
    """40 photographs of 400 x 300, from scikit-learn's two."""
    generator = np.random.default_rng(0)
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    found = []
    for i in range(40):
        width = int(generator.integers(280, 560))
        left, top = int(generator.integers(0, 641 - width)), int(generator.integers(0, 428 - width * 3 // 4))
        box = (left, top, left + width, top + width * 3 // 4)
        found.append(sources[i % 2].crop(box).resize((400, 300), Image.Resampling.BICUBIC))
    return found


def found(image: Image.Image) -> set[str]:
    return set(findings(measure(np.asarray(image.convert("RGB")), size=image.size)))


def test_good_photographs_are_not_named(crops: list[Image.Image]) -> None:
    assert not any(found(crop) for crop in crops)
    assert not any(found(crop.convert("L")) for crop in crops)
    assert not any(found(crop.resize((1600, 1200))) for crop in crops), "scale does not matter"


@pytest.mark.parametrize(
    ("finding", "change", "least"),
    [
        ("blurred", lambda image: image.filter(ImageFilter.GaussianBlur(4)), 40),
        ("blurred", lambda image: ImageEnhance.Contrast(image.filter(ImageFilter.GaussianBlur(4))).enhance(0.5), 38),
        ("dark", lambda image: ImageEnhance.Brightness(image).enhance(0.2), 36),
        ("bright", lambda image: Image.blend(image, Image.new("RGB", image.size, (255, 255, 255)), 0.98), 40),
        ("uniform", lambda image: Image.blend(image, Image.new("RGB", image.size, (90, 90, 90)), 0.99), 40),
        ("small", lambda image: image.resize((60, 45)), 40),
        ("odd shape", lambda image: image.crop((0, 0, 400, 100)), 40),
    ],
)
def test_each_finding(crops: list[Image.Image], finding: str, change: Change, least: int) -> None:
    assert sum(finding in found(change(crop)) for crop in crops) >= least


def test_a_picture_of_one_colour_is_uniform_and_nothing_else() -> None:
    assert found(Image.new("RGB", (300, 300), (160, 90, 90))) == {"uniform"}
    assert found(Image.new("RGB", (1, 1), (160, 90, 90))) == {"uniform", "small"}


def test_sharpness_against_a_plain_loop() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    got = measure(np.dstack([gray] * 3), size=(30, 20))
    levels = gray.astype(float)
    laplacian = [
        levels[y - 1, x] + levels[y + 1, x] + levels[y, x - 1] + levels[y, x + 1] - 4 * levels[y, x]
        for y in range(1, 19)
        for x in range(1, 29)
    ]
    assert got.sharpness == pytest.approx(np.var(laplacian) / np.var(levels), rel=1e-5)
    assert got.is_gray and (got.width, got.height) == (30, 20)
    shares = [np.mean(gray == level) for level in range(256)]
    assert got.entropy == pytest.approx(-sum(s * np.log2(s) for s in shares if s), rel=1e-6)


def measures(**changes: float) -> Measures:
    good = {"width": 300, "height": 300, "sharpness": 0.1, "dark": 0.9, "bright": 0.1, "entropy": 7.0, "is_gray": False}
    return Measures(**{**good, **changes})


def test_the_few_of_another_colour_are_named() -> None:
    colour = {f"{i}.jpg": measures() for i in range(19)}
    rows = review({**colour, "gray.jpg": measures(is_gray=True)})
    assert [(row.path, row.finding) for row in rows] == [("gray.jpg", "odd colour")]
    assert review({**colour, "gray.jpg": measures(is_gray=True), "too.jpg": measures(is_gray=True)}) == []
    assert review({"gray.jpg": measures(is_gray=True)}) == []


def test_the_most_striking_come_first(tmp_path: Path) -> None:
    rows = review(
        {
            "soft.jpg": measures(sharpness=0.003),
            "softer.jpg": measures(sharpness=0.001, width=60, height=60),
            "bright.jpg": measures(bright=0.96),
            "brighter.jpg": measures(bright=0.99),
            "good.jpg": measures(),
        }
    )
    assert [(row.finding, row.path) for row in rows] == [
        ("blurred", "softer.jpg"),
        ("blurred", "soft.jpg"),
        ("bright", "brighter.jpg"),
        ("bright", "bright.jpg"),
        ("small", "softer.jpg"),
    ]
    assert summary(rows) == "Worth a second look: 2 blurred, 2 bright, 1 small (showImages.ipynb shows them)"
    assert summary([]) == "Worth a second look: nothing"
    write_table(tmp_path / "quality.csv", QualityRow, rows)
    assert read_review(tmp_path / "quality.csv") == {
        "blurred": ["softer.jpg", "soft.jpg"],
        "bright": ["brighter.jpg", "bright.jpg"],
        "small": ["softer.jpg"],
    }
    assert read_review(tmp_path / "none.csv") == {}


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "quality.csv").write_bytes(b"path\n\xff\x00")
    with pytest.raises(StorageError, match=r"quality\.csv cannot be read .* run scripts/1_prepareData\.py again"):
        read_review(tmp_path / "quality.csv")
