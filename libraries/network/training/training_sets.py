"""The user's images as three sets: training, validation (chooses the epoch) and test (only reported).

Each image is decoded once and kept, in memory or, if the images are too many, in a scratch file.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from libraries.base.errors import ImageError
from libraries.base.pool import ordered_map
from libraries.data.dataset import groups_per_class, load_example
from libraries.data.division import Division
from libraries.data.images import ResizeRule
from libraries.network.training.recipe import stored_size
from libraries.network.training.world import ALONE, World

T = TypeVar("T")
IN_MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class ImageSet:
    """Decoded images and their classes.

    Attributes:
        images: uint8 [N, S, S, 3].
        labels: int64 [N], class indices.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "ImageSet":
        """A copy of the images at some indices."""
        return ImageSet(self.images[indices], self.labels[indices])


def decode_once(
    items: Sequence[T],
    labels: Sequence[int],
    *,
    load: Callable[[T], np.ndarray],
    size: int,
    scratch: Path,
    in_memory_bytes: int = IN_MEMORY_BYTES,
    on_image: Callable[[], None] | None = None,
    threads: int | None = None,
) -> tuple[ImageSet, list[ImageError]]:
    """Decode every image once, on all cores.

    Args:
        items: what `load` turns into an image, e.g. paths.
        labels: class index of each item.
        load: item → uint8 [size, size, 3], e.g. `libraries.data.images.load` with a rule of this size.
        scratch: folder for the pixels if they are more than `in_memory_bytes`: in an unnamed file, which disappears
            with the process.
        on_image: called after every image, for a progress bar.

    Returns:
        The images that could be decoded, in order, and the errors of the others.
    """
    shape = (len(items), size, size, 3)
    if np.prod(shape, dtype=np.int64) <= in_memory_bytes:
        images = np.empty(shape, np.uint8)
    else:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:  # the mapping keeps it open
            images = np.memmap(file, np.uint8, "w+", shape=shape)

    def decode(index: int) -> ImageError | None:
        try:
            images[index] = load(items[index])
        except ImageError as error:
            return error
        return None

    errors: list[ImageError | None] = []
    for _, error in ordered_map(decode, range(len(items)), workers=threads):
        errors.append(error)
        if on_image:
            on_image()
    good = [index for index, error in enumerate(errors) if error is None]
    for place, index in enumerate(good):  # close the gaps, in place
        if place != index:
            images[place] = images[index]
    return (
        ImageSet(images[: len(good)], np.asarray(labels, np.int64)[good]),
        [error for error in errors if error is not None],
    )


@dataclass(frozen=True)
class TrainingSets:
    """Decoded images; labels are indices into `names`, which is sorted.

    Attributes:
        groups: number of groups of validation images, per class: how many are independent.
        left_out: errors of the images that could not be decoded.
    """

    names: list[str]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    groups: list[int]
    left_out: list[ImageError]


def load(
    division: Division,
    *,
    folder: Path,
    rule: ResizeRule,
    scratch: Path,
    on_image: Callable[[], None] | None = None,
    world: World = ALONE,
) -> TrainingSets:
    """Decode every image once; training images somewhat larger than the network's input, so that crops keep detail.

    Args:
        folder: of the data set, which the examples' paths are relative to.
        scratch: folder for pixels that do not fit into memory.
        on_image: called after every image.
        world: this process decodes its share of each set.
    """
    names = sorted({e.label for e in division.training})
    sets: list[ImageSet] = []
    left_out: list[ImageError] = []
    sizes = (stored_size(rule.size), rule.size, rule.size)
    for given, size in zip((division.training, division.validation, division.test), sizes, strict=True):
        examples = world.share(given)
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
    return TrainingSets(names, train, validation, tested, groups_per_class(division.validation, names), left_out)
