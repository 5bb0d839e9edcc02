"""The user's images as three sets for training: what is learnt from, what chooses the epoch, what is only reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from libraries.base.errors import ImageError, InputError
from libraries.data.dataset import Example, draw, load_example, split
from libraries.data.images import ResizeRule
from libraries.network.augmentation import stored_size
from libraries.network.imageset import ImageSet, decode_once


@dataclass(frozen=True)
class TrainingSets:
    """Decoded images; labels are indices into `names`, which is sorted."""

    names: list[str]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    left_out: list[ImageError]


def choose(
    examples: Sequence[Example], *, validation_fraction: float, most: int | None, seed: int
) -> tuple[list[Example], list[Example], list[Example]]:
    """The examples to learn from, those that choose the epoch, and the test examples; groups stay whole.

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
    return learn, validate, [e for e in examples if e.split == "test"]


def load(
    learn: Sequence[Example],
    validate: Sequence[Example],
    test: Sequence[Example],
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
    names = sorted({e.label for e in learn})
    sets: list[ImageSet] = []
    left_out: list[ImageError] = []
    for examples, size in ((learn, stored_size(rule.size)), (validate, rule.size), (test, rule.size)):
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
    return TrainingSets(names, train, validation, tested, left_out)
