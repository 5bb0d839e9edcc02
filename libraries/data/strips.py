"""Large pictures, part by part: a whole one as an array of wide numbers takes many times its memory."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

PIXELS = 2**16  # at a time: 0.5 MB as float64

Region = tuple[int, int, int, int]  # left, top, right, bottom


def strips(size: tuple[int, int]) -> Iterator[Region]:
    """Parts of `PIXELS` pixels at most, as wide as may be, that make up a picture of this width and height."""
    width, height = size
    across = min(width, PIXELS)
    down = max(1, PIXELS // width)
    for top, left in itertools.product(range(0, height, down), range(0, width, across)):
        yield left, top, min(left + across, width), min(top + down, height)


def in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The picture that `convert` makes, part by part, of a mode of Pillow."""
    converted = Image.new(mode, image.size)
    for region in strips(image.size):
        converted.paste(convert(image.crop(region)), region)
    return converted


def rgb_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A picture of mode L or RGB as uint8 [H, W, 3]."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for left, top, right, bottom in strips(image.size):
        pixels[top:bottom, left:right] = np.asarray(image.crop((left, top, right, bottom)).convert("RGB"))
    return pixels
