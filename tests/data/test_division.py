"""The part of the training images that a network is trained on."""

from collections import Counter
from typing import Any, Literal

import pytest

from libraries.base.errors import InputError
from libraries.data.dataset import Example
from libraries.data.division import divide

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
    division = divide(given, **options)
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
        divide(examples() + few, validation_fraction=0.2, most=None, seed=0)
