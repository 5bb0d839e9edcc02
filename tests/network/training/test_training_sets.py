"""The three sets that a network is trained with."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import InputError, StaleInput
from libraries.data.dataset import Example
from libraries.data.images import ResizeRule
from libraries.network.training import training_sets
from libraries.network.training.recipe import stored_size

Split = Literal["train", "test"]


def example(path: str, split: Split = "train", *, group: str | None = None) -> Example:
    return Example(path, path.split("/")[0], split, group or path, 8, 6, 100, path)


def examples(*, train: int = 40, test: int = 10) -> list[Example]:
    """Class 'a' has `train` and `test` images, class 'b' half as many."""
    return [
        example(f"{label}/{split} {i}.png", split)
        for label, share in (("a", 1), ("b", 2))
        for split, count in (("train", train), ("test", test))
        for i in range(count // share)
    ]


def parts_of(given: list[Example], **options: Any) -> tuple[list[Example], list[Example], list[Example]]:
    division = training_sets.divide(given, **options)
    assert len(division) == len(division.training) + len(division.validation) + len(division.test)
    return division.training, division.validation, division.test


def chosen(
    given: list[Example], *, fraction: float = 0.2, most: int | None = None, seed: int = 0
) -> list[Counter[str]]:
    parts = parts_of(given, validation_fraction=fraction, most=most, seed=seed)
    return [Counter(e.label for e in part) for part in parts]


def test_sets_are_stratified_disjoint_and_leave_the_test_set_alone() -> None:
    given = examples()
    learn, validate, test = parts_of(given, validation_fraction=0.2, most=None, seed=0)
    assert chosen(given) == [{"a": 32, "b": 16}, {"a": 8, "b": 4}, {"a": 10, "b": 5}]
    assert test == [e for e in given if e.split == "test"]
    paths = [e.path for part in (learn, validate) for e in part]
    assert sorted(paths) == sorted(e.path for e in given if e.split == "train")
    again = parts_of(given, validation_fraction=0.2, most=None, seed=0)
    assert again == (learn, validate, test)
    other = parts_of(given, validation_fraction=0.2, most=None, seed=1)
    assert {e.path for e in other[1]} != {e.path for e in validate}


def test_groups_stay_whole() -> None:
    given = [example(f"{label}/{i}.png", group=f"{label}{i % 10}") for label in "ab" for i in range(50)]
    learn, validate, _ = parts_of(given, validation_fraction=0.2, most=None, seed=0)
    assert {e.group for e in learn}.isdisjoint(e.group for e in validate)
    assert chosen(given) == [{"a": 40, "b": 40}, {"a": 10, "b": 10}, {}]


def test_most_limits_the_training_images_and_keeps_the_shares() -> None:
    assert chosen(examples(), most=30, fraction=0.2) == [{"a": 16, "b": 8}, {"a": 4, "b": 2}, {"a": 10, "b": 5}]
    assert chosen(examples(), most=1000) == chosen(examples(), most=None)


def test_every_class_keeps_an_image_on_each_side() -> None:
    assert chosen(examples(), most=2, fraction=0.01)[:2] == [{"a": 1, "b": 1}, {"a": 1, "b": 1}]


@pytest.mark.parametrize(
    "few",
    [
        [example("c/1.png")],
        [example(f"c/{i}.png", group="one object") for i in range(9)],
        [example("c/1.png", "test")],
    ],
    ids=["one image", "one group", "test images only"],
)
def test_class_that_cannot_be_divided_is_named(few: list[Example]) -> None:
    with pytest.raises(InputError, match=r"class 'c' has too few training images .* add images of it, or remove"):
        training_sets.divide(examples() + few, validation_fraction=0.2, most=None, seed=0)


def saved(folder: Path, path: str, split: Split, shade: int) -> Example:
    """A gray picture on disk, and its example."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (50, 40), shade).save(folder / path)
    return replace(example(path, split), sha256=hashlib.sha256((folder / path).read_bytes()).hexdigest())


def load(folder: Path, *parts: list[Example]) -> training_sets.TrainingSets:
    rule = ResizeRule(32, "stretch", "bilinear", (0, 0, 0))
    return training_sets.load(training_sets.Division(*parts), folder=folder, rule=rule, scratch=folder / "scratch")


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
