"""Bytes of an image file → upright RGB → fitted to S x S: the one way in for every step and for the service.

JPEGs are decoded at 1/2, 1/4 or 1/8 scale where enough detail remains (libjpeg drops the frequencies that the resize
would drop). Decoding and resizing release the GIL, so threads scale. Colour modes: see `decoding`.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from libraries.base.arrays import Pixels
from libraries.base.errors import ParameterError
from libraries.data.decoding import (
    MAX_PIXELS,
    SIDEWAYS,
    Size,
    Stored,
    bytes_of,
    decode_as_stored,
    memory_to_decode,
    read,
)
from libraries.data.depth import FULL_RANGE, Depth, rgb_pixels

# What the cheap first reduction must leave, in multiples of the final width and height. At 1.75 the scaled decoding of
# very sharp photographs differs from a full one by at most 1.2 grey levels in the mean; at 1.0 by 2.6, at 2.0 by 1.0.
_DETAIL = 1.75  # JPEG at reduced scale
_BOX_DETAIL = 2.0  # all else, when large: a box filter over whole pixels
# Pictures that are kept: with a sharper filter afterwards, less is enough. On the sharpest photographs that, and a
# Hamming filter over all pixels, differ by 1.1 to 1.9 grey levels in the mean from a Lanczos filter over all pixels;
# averaging areas, as others do, by 1.3 to 2.0.
_KEPT_DETAIL = 1.25

Box = tuple[float, float, float, float]  # left, top, right, bottom
ResizeMode = Literal["pad", "crop", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class ResizeRule:
    """How an image of any shape becomes S x S.

    Attributes:
        size: S, in pixels.
        mode: 'pad' keeps the whole image and its proportions, 'crop' the largest centred square, 'stretch' neither.
        interpolation: always antialiased when shrinking.
        fill: RGB of what 'pad' adds.
        white_level: what is white in files of more than 8 bits; of all images of a data set the same (`depth`).
    """

    size: int
    mode: ResizeMode = "pad"
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    white_level: int = FULL_RANGE

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ParameterError(f"resize rule: size is {self.size}, must be at least 1")
        if self.mode not in ("pad", "crop", "stretch"):
            raise ParameterError(f"resize rule: mode is {self.mode!r}, must be 'pad', 'crop' or 'stretch'")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ParameterError(
                f"resize rule: interpolation is {self.interpolation!r}, must be 'bilinear' or 'bicubic'"
            )
        if len(self.fill) != 3 or not all(0 <= level <= 255 for level in self.fill):
            raise ParameterError(f"resize rule: fill is {self.fill}, must be three numbers from 0 to 255")
        if not isinstance(self.white_level, int) or self.white_level < 1:
            raise ParameterError(f"resize rule: white_level is {self.white_level!r}, must be a whole number above 0")

    def to_json(self) -> dict[str, Any]:
        """As it stands in model.json; at full range nothing is said of it, as in earlier versions."""
        value = {**asdict(self), "fill": list(self.fill)}
        return {name: v for name, v in value.items() if (name, v) != ("white_level", FULL_RANGE)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ResizeRule":
        """The inverse of `to_json`."""
        return cls(**{**value, "fill": tuple(value["fill"])})


TINY = (17, 16)  # width and height of the picture by which near-duplicates are found
# A JPEG is decoded at a scale that leaves so many times as much. At 8 the difference hash of photographs differs from
# that of a full decode in 0.9 of 256 bits in the mean, 5 at most; at 4 in 2.5, at 1 in 11. It costs no more than at 4.
_TINY_DETAIL = 8
SMALL = 256  # pixels of the longer side of the picture by which quality is measured


@dataclass(frozen=True)
class ImageFacts:
    """What is worth knowing of an image file: upright size in pixels, SHA-256 and length of the file.

    Attributes:
        tiny: the whole upright picture as uint8 [16, 17] gray.
        small: the same as uint8 [h, w, 3], 256 pixels at most.
        depth: of a picture of more than 8 bits, how far it reaches; measured where no white level was given.
    """

    width: int
    height: int
    sha256: str
    bytes: int
    tiny: Pixels = field(compare=False, repr=False)
    small: Pixels = field(compare=False, repr=False)
    depth: Depth | None = None


def load(path: str | Path, rule: ResizeRule, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The image in a file, fitted: uint8 [S, S, 3].

    Raises:
        ImageError: no readable regular file, or not a whole image within the limits.
    """
    return load_bytes(read(path, max_bytes=bytes_of(max_pixels)), rule, path=path, max_pixels=max_pixels)


def load_bytes(
    data: bytes, rule: ResizeRule, *, path: str | Path | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """The image in the bytes of a file, fitted: uint8 [S, S, 3], the same as `load` gives. `path` is for the error."""
    return load_with_size(data, rule, path=path, max_pixels=max_pixels)[0]


def load_with_size(
    data: bytes, rule: ResizeRule, *, path: str | Path | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Pixels, Size]:
    """As `load_bytes`, and the width and height of the whole picture, upright."""
    enough = partial(_whole_at_least, rule=rule)
    stored = decode_as_stored(data, path=path, max_pixels=max_pixels, enough=enough, white_level=rule.white_level)
    return _fitted(stored, rule), _upright(stored)


def memory_to_load(data: bytes, rule: ResizeRule, *, max_pixels: int = MAX_PIXELS) -> int:
    """Bytes of memory that `load_bytes` takes at its peak, by the image's header; 0 for what it refuses by that."""
    return memory_to_decode(data, max_pixels=max_pixels, enough=partial(_whole_at_least, rule=rule))


def decode(
    data: bytes,
    *,
    path: str | Path | None = None,
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    white_level: int = FULL_RANGE,
) -> Pixels:
    """The image in the bytes of a file: uint8 [H, W, 3], upright.

    Args:
        data: the file's content.
        path: named in the error.
        at_least: a JPEG may come out at 1/2, 1/4 or 1/8 scale as long as its shorter side has this many pixels.
            To get S x S, use `load_bytes`: it keeps more detail.
        max_pixels: larger images are refused by their header, before anything is decoded.
        white_level: that of the data set, or of the bundle's resize rule.

    Raises:
        ImageError: not a whole image within the limits.
    """
    enough = None if at_least is None else lambda size: (at_least, at_least)
    decoded = decode_as_stored(data, path=path, max_pixels=max_pixels, enough=enough, white_level=white_level)
    return rgb_pixels(decoded.finished(decoded.image))


def scaled_down(data: bytes, *, max_side: int, max_pixels: int = MAX_PIXELS) -> tuple[Size, Image.Image | None]:
    """Upright width and height of the image in the bytes of a file; and the image, smaller, should it be too large.

    All of the file is decoded, so that damage is found; a JPEG at reduced scale where that suffices.

    Args:
        data: the file's content.
        max_side: an image whose longer side has more pixels is scaled down to it, upright, mode L or RGB.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Raises:
        ImageError: not a whole image within the limits.
    """

    def enough(size: Size) -> Size:
        if max(size) <= max_side:
            return 1, 1
        width, height = _within(size, max_side)
        return math.ceil(_KEPT_DETAIL * width), math.ceil(_KEPT_DETAIL * height)

    # What is kept has 8 bits: no other image is known yet, so each has its own white level.
    decoded = decode_as_stored(data, path=None, max_pixels=max_pixels, enough=enough, white_level=None)
    size, small = decoded.size, None
    if max(size) > max_side:
        box = (0, 0, size[0] / decoded.shrink, size[1] / decoded.shrink)
        size = _within(size, max_side)
        kind = Image.Resampling.BICUBIC if decoded.shrink > 1 else Image.Resampling.HAMMING  # the latter is faster
        small = decoded.image.resize(size, kind, box=box, reducing_gap=_BOX_DETAIL)
        small = decoded.finished(small)
    return (size if decoded.turn not in SIDEWAYS else size[::-1]), small


def fit(image: Pixels, rule: ResizeRule) -> Pixels:
    """An image in memory, uint8 [H, W, 3], fitted: uint8 [S, S, 3]."""
    height, width, _ = image.shape
    return _fitted(Stored(Image.fromarray(image), (width, height)), rule)


def area(size: Size, rule: ResizeRule) -> Box:
    """Where the edges of a fitted image lie in the upright picture it is of, in fractions of its width and height.

    Padding reaches beyond 0..1, a crop stays inside.
    """
    (left, top, right, bottom), (width, height) = _plan(size, rule)
    x, y = (rule.size - width) // 2, (rule.size - height) // 2  # of the used part, in the fitted image
    across, down = (right - left) / width, (bottom - top) / height  # pixels of the picture per fitted pixel
    return (
        (left - x * across) / size[0],
        (top - y * down) / size[1],
        (left + (rule.size - x) * across) / size[0],
        (top + (rule.size - y) * down) / size[1],
    )


def inspect(path: str | Path, *, white_level: int | None = None, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Size, identity and small pictures of an image file, after decoding all of it.

    Args:
        white_level: None where that of the data set is yet to be found: the image's own depth is measured and taken.

    Raises:
        ImageError: exactly when `load` would.
    """
    data = read(path, max_bytes=bytes_of(max_pixels))
    # At reduced scale every byte of a JPEG still passes through the entropy decoder, which is what finds damage.
    decoded = decode_as_stored(
        data, path=path, max_pixels=max_pixels, enough=_enough_to_inspect, white_level=white_level
    )
    width, height = _upright(decoded)
    upright = decoded.finished(_reduced(decoded))
    small = upright.convert("RGB")
    small.thumbnail((SMALL, SMALL), Image.Resampling.BICUBIC, reducing_gap=_BOX_DETAIL)
    digest = hashlib.sha256(data).hexdigest()
    return ImageFacts(width, height, digest, len(data), _tiny(upright), np.array(small), decoded.depth)


def _reduced(decoded: Stored) -> Image.Image:
    """The image; smaller, as a JPEG is by now, if its colours have to be converted, which takes time for each pixel."""
    width, height = decoded.image.size
    least_width, least_height = _enough_to_inspect(decoded.size)
    factor = min(width // least_width, height // least_height)
    return decoded.image if decoded.colours is None or factor < 2 else decoded.image.reduce(factor)


def _enough_to_inspect(size: Size) -> Size:
    least, scale = _TINY_DETAIL * max(TINY), SMALL / max(size)
    return max(least, math.ceil(scale * size[0])), max(least, math.ceil(scale * size[1]))


def tiny(image: Pixels) -> Pixels:
    """An upright image in memory, uint8 [H, W, 3], as `inspect` makes it tiny: uint8 [16, 17] gray."""
    return _tiny(Image.fromarray(image))


def pixel_sha256(path: str | Path, *, white_level: int = FULL_RANGE, max_pixels: int = MAX_PIXELS) -> str:
    """SHA-256 of an image's size and upright RGB pixels, equal for files of any format that hold the same picture.

    Raises:
        ImageError: as `load` does.
    """
    data = read(path, max_bytes=bytes_of(max_pixels))
    pixels = decode(data, path=path, white_level=white_level, max_pixels=max_pixels)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


# Fitting


def _upright(decoded: Stored) -> Size:
    return decoded.size if decoded.turn not in SIDEWAYS else decoded.size[::-1]


def _within(size: Size, side: int) -> Size:
    """A size of the same proportions whose longer side is `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _plan(size: Size, rule: ResizeRule) -> tuple[Box, Size]:
    """Which part of an image of this size is used, and the width and height it is resized to."""
    width, height = size
    square = (rule.size, rule.size)
    if rule.mode == "stretch":
        return (0, 0, width, height), square
    if rule.mode == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return (left, top, left + side, top + side), square
    return (0, 0, width, height), _within(size, rule.size)


def _whole_at_least(size: Size, rule: ResizeRule) -> Size:
    """The least width and height of the whole image that leave enough detail for this rule."""
    (left, top, right, bottom), (width, height) = _plan(size, rule)
    return math.ceil(_DETAIL * width * size[0] / (right - left)), math.ceil(_DETAIL * height * size[1] / (bottom - top))


def _tiny(upright: Image.Image) -> Pixels:
    """The whole picture as uint8 [16, 17] gray."""
    return np.array(upright.convert("L").resize(TINY, Image.Resampling.LANCZOS))


def _fitted(decoded: Stored, rule: ResizeRule) -> Pixels:
    """Resize as stored, then make it sRGB and upright (all rules are symmetric), then pad: uint8 [S, S, 3]."""
    box, size = _plan(decoded.size, rule)
    # Boxes are exact to the fraction of a pixel: at reduced scale the last column and row are partly beyond the image.
    left, top, right, bottom = (edge / decoded.shrink for edge in box)
    small = decoded.image.resize(
        size,
        Image.Resampling[rule.interpolation.upper()],
        box=(left, top, right, bottom),
        reducing_gap=_BOX_DETAIL,
    )
    picture = decoded.finished(small).convert("RGB")
    if picture.size != (rule.size, rule.size):
        canvas = Image.new("RGB", (rule.size, rule.size), rule.fill)
        canvas.paste(picture, ((rule.size - picture.width) // 2, (rule.size - picture.height) // 2))
        picture = canvas
    return np.array(picture)
