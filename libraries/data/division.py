"""Which training images a network is trained on, and which choose its epoch and tell how far it can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

from libraries.base.errors import InputError
from libraries.data.dataset import Example, draw, split


@dataclass(frozen=True)
class Division:
    """Examples for training, validation (they choose the epoch) and test (only reported)."""

    training: list[Example]
    validation: list[Example]
    test: list[Example]

    def __len__(self) -> int:
        return len(self.training) + len(self.validation) + len(self.test)


def divide(examples: Sequence[Example], *, validation_fraction: float, most: int | None, seed: int) -> Division:
    """Take the validation examples from the training examples, class by class; groups stay together.

    Args:
        validation_fraction: of the training examples.
        most: total number of examples for training and validation, at most; None for no limit.

    Raises:
        InputError: a class is too small to be divided.
    """
    given = [e for e in examples if e.split == "train"]
    if most is not None:
        given = draw(given, most=most, seed=seed)
    # Not step 1's seed, which would order the images of a class as in the split there.
    parts = split(given, ratio_train=1 - validation_fraction, seed=seed + 1)
    training, validation = ([e for e in parts if e.split == side] for side in ("train", "test"))
    for label in sorted({e.label for e in examples}):
        if not all(any(e.label == label for e in part) for part in (training, validation)):
            raise InputError(
                f"class '{label}' has too few training images to train a network: two are needed, in different groups; "
                "add images of it, or remove the class"
            )
    return Division(training, validation, [e for e in examples if e.split == "test"])
