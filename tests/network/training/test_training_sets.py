"""The three sets that a network is trained with."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import StaleInput
from libraries.data.dataset import Example
from libraries.data.division import Division
from libraries.data.images import ResizeRule
from libraries.network.training import training_sets
from libraries.network.training.recipe import stored_size

Split = Literal["train", "test"]


def example(path: str, split: Split = "train") -> Example:
    return Example(path, path.split("/")[0], split, path, 8, 6, 100, path)


def saved(folder: Path, path: str, split: Split, shade: int) -> Example:
    """A gray picture on disk, and its example."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (50, 40), shade).save(folder / path)
    return replace(example(path, split), sha256=hashlib.sha256((folder / path).read_bytes()).hexdigest())


def load(folder: Path, *parts: list[Example]) -> training_sets.TrainingSets:
    rule = ResizeRule(32, "stretch", "bilinear", (0, 0, 0))
    return training_sets.load(Division(*parts), folder=folder, rule=rule, scratch=folder / "scratch")


def three_parts(folder: Path) -> list[list[Example]]:
    """Two images of each class per part; the shade is 100 for 'ä' and 200 for 'b', plus the number of the part."""
    sides: tuple[Split, ...] = ("train", "train", "test")
    return [
        [
            saved(folder, f"{label}/{part} {i}.png", side, shade + part)
            for label, shade in (("ä", 100), ("b", 200))
            for i in range(2)
        ]
        for part, side in enumerate(sides)
    ]


def test_images_are_loaded_with_their_labels(tmp_path: Path) -> None:
    sets = load(tmp_path, *three_parts(tmp_path))
    assert sets.names == ["b", "ä"]
    assert sets.left_out == []
    larger = stored_size(32)
    assert larger > 32, "crops keep detail"
    for part, (found, size) in enumerate(((sets.train, larger), (sets.validation, 32), (sets.test, 32))):
        assert found.images.shape == (4, size, size, 3)
        assert found.images.dtype == np.uint8
        assert found.labels.tolist() == [1, 1, 0, 0]
        assert found.images[:, 0, 0, 0].tolist() == [100 + part, 100 + part, 200 + part, 200 + part]


def test_damaged_image_is_left_out_with_its_reason(tmp_path: Path) -> None:
    parts = three_parts(tmp_path)
    damaged = b"no picture"
    (tmp_path / parts[0][1].path).write_bytes(damaged)
    parts[0][1] = replace(parts[0][1], sha256=hashlib.sha256(damaged).hexdigest())
    sets = load(tmp_path, *parts)
    (error,) = sets.left_out
    assert "ä/0 1.png: is not a whole" in str(error)
    assert sets.train.labels.tolist() == [1, 0, 0]
    assert sets.train.images[:, 0, 0, 0].tolist() == [100, 200, 200]
    assert len(sets.validation) == len(sets.test) == 4


def test_changed_image_is_stale(tmp_path: Path) -> None:
    parts = three_parts(tmp_path)
    Image.new("L", (50, 40), 7).save(tmp_path / parts[2][3].path)
    with pytest.raises(StaleInput, match=r"b/2 1\.png has changed .*run scripts/1_prepareData\.py again"):
        load(tmp_path, *parts)
