"""Images decoded once and held ready for training: in memory, or in a scratch file where they are too many for it."""

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from libraries.base.errors import ImageError

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
        """The images at some indices, as an ImageSet of its own (copied)."""
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
        load: item → uint8 [size, size, 3], e.g. `libraries.data.images.load` with a rule of this size.
        scratch: folder for the pixels where they are more than `in_memory_bytes`: in a file without a name, which is
            gone when the process is.
        on_image: called after every image, for a progress bar.

    Returns:
        the images that decoded, in order, and the errors of those that did not.
    """
    shape = (len(items), size, size, 3)
    if np.prod(shape, dtype=np.int64) <= in_memory_bytes:
        images = np.empty(shape, np.uint8)
    else:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:  # the mapping keeps it
            images = np.memmap(file, np.uint8, "w+", shape=shape)

    def decode(index: int) -> ImageError | None:
        try:
            images[index] = load(items[index])
        except ImageError as error:
            return error
        return None

    errors: list[ImageError | None] = []
    with ThreadPoolExecutor(threads) as pool:
        for error in pool.map(decode, range(len(items))):
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
