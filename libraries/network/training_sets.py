"""The user's images as three sets for training: what is learnt from, what chooses the epoch, what is only reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from libraries.base.errors import ImageError, InputError
from libraries.data.dataset import Example, draw, groups_per_class, load_example, split
from libraries.data.images import ResizeRule
from libraries.network.augmentation import stored_size
from libraries.network.imageset import ImageSet, decode_once


@dataclass(frozen=True)
class Division:
    """Examples to learn from, examples that choose the epoch, and those that are only reported on."""

    learn: list[Example]
    validate: list[Example]
    test: list[Example]

    def __len__(self) -> int:
        return len(self.learn) + len(self.validate) + len(self.test)


@dataclass(frozen=True)
class TrainingSets:
    """Decoded images; labels are indices into `names`, which is sorted.

    Attributes:
        groups: of validation images, per class: how many of them are independent.
    """

    names: list[str]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    groups: list[int]
    left_out: list[ImageError]


def divide(examples: Sequence[Example], *, validation_fraction: float, most: int | None, seed: int) -> Division:
    """Take the validation examples from the training examples, class by class; groups stay whole.

    Args:
        validation_fraction: part of the training examples that chooses the epoch.
        most: at most this many training examples are used in all; None for no limit.

    Raises:
        InputError: a class is too small to be divided.
    """
    training = [e for e in examples if e.split == "train"]
    if most is not None:
        training = draw(training, most=most, seed=seed)
    # Another seed than step 1 splits with: it would order the images of a class as they were ordered there.
    parts = split(training, ratio_train=1 - validation_fraction, seed=seed + 1)
    learn, validate = ([e for e in parts if e.split == side] for side in ("train", "test"))
    for label in sorted({e.label for e in examples}):
        if not all(any(e.label == label for e in part) for part in (learn, validate)):
            raise InputError(
                f"class '{label}' has too few training images to train a network: two are needed, of different groups; "
                "add images of it, or remove the class"
            )
    return Division(learn, validate, [e for e in examples if e.split == "test"])


def load(
    division: Division,
    *,
    folder: Path,
    rule: ResizeRule,
    scratch: Path,
    on_image: Callable[[], None] | None = None,
) -> TrainingSets:
    """Decode every image once; those to learn from somewhat larger than the network's input, so that crops keep detail.

    Args:
        folder: where the examples' paths begin.
        scratch: folder for pixels that do not fit into memory.
    """
    names = sorted({e.label for e in division.learn})
    sets: list[ImageSet] = []
    left_out: list[ImageError] = []
    sizes = (stored_size(rule.size), rule.size, rule.size)
    for examples, size in zip((division.learn, division.validate, division.test), sizes, strict=True):
        decoded, errors = decode_once(
            examples,
            [names.index(e.label) for e in examples],
            load=partial(load_example, folder=folder, rule=replace(rule, size=size)),
            size=size,
            scratch=scratch,
            on_image=on_image,
        )
        sets.append(decoded)
        left_out += errors
    train, validation, tested = sets
    return TrainingSets(names, train, validation, tested, groups_per_class(division.validate, names), left_out)
