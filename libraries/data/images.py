"""Bytes of an image file → upright RGB → fitted to S x S: used by every step and by the service.

JPEGs are decoded at 1/2, 1/4 or 1/8 scale if enough detail remains (libjpeg drops the frequencies that the resize would
drop). Decoding and resizing release the GIL, so threads scale. For colour modes, see `decoding`.
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
    decode_as_stored,
    max_bytes_for,
    memory_to_decode,
    read,
)
from libraries.data.depth import FULL_RANGE, Depth, rgb_pixels

_EARLIER_DETAIL = 1.75  # of rules that earlier versions wrote
_BOX_DETAIL = 2.0  # all images but JPEGs, if large: what a box filter over whole pixels leaves, as `detail`
# For images that are stored scaled down: a sharper filter follows, so less is enough. On the sharpest photographs, this
# and a Hamming filter over all pixels differ from a Lanczos filter over all pixels by 1.1 to 1.9 grey levels on
# average; averaging areas, as other programs do, by 1.3 to 2.0.
_STORED_DETAIL = 1.25

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
        white_level: value that is white in files of more than 8 bits; the same for a whole data set (see `depth`).
        detail: what the fast first reduction of a JPEG, to 1/2, 1/4 or 1/8, leaves at least, in multiples of the final
            width and height. At 1, embeddings of photographs have a cosine of 0.997 to those from full scale, at 1.75
            of 1, and both classify equally well; very sharp photographs differ by 2.6 and 1.2 grey levels on average.
            1 takes about 0.6 of the time (python benchmarks/featurize.py).
    """

    size: int
    mode: ResizeMode = "pad"
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    white_level: int = FULL_RANGE
    detail: float = 1.0

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
        if not 1 <= self.detail <= 8:
            raise ParameterError(f"resize rule: detail is {self.detail!r}, must be from 1 to 8")

    def to_json(self) -> dict[str, Any]:
        """Its entry in model.json; what all rules had in earlier versions is left out, as it was there."""
        earlier = {"white_level": FULL_RANGE, "detail": _EARLIER_DETAIL}
        value = {**asdict(self), "fill": list(self.fill)}
        return {name: v for name, v in value.items() if name not in earlier or v != earlier[name]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ResizeRule":
        """The inverse of `to_json`."""
        return cls(**{"detail": _EARLIER_DETAIL, **value, "fill": tuple(value["fill"])})


TINY = (17, 16)  # width and height of the picture that near-duplicates are found with
# A JPEG is decoded at a scale that leaves this many times more. At 8, the difference hash of photographs differs from
# that of full decoding in 0.9 of 256 bits on average, 5 at most; at 4 in 2.5, at 1 in 11. It costs no more than at 4.
_TINY_DETAIL = 8
SMALL = 256  # pixels of the longer side of the picture that quality is measured on


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image file: upright size [pixels], SHA-256 and length of the file.

    Attributes:
        tiny: the whole upright picture as uint8 [16, 17] gray.
        small: the same as uint8 [h, w, 3], 256 pixels at most.
        depth: of a picture of more than 8 bits; measured if no white level was given.
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
        ImageError: not a readable regular file, or not a whole image within the limits.
    """
    return load_bytes(read(path, max_bytes=max_bytes_for(max_pixels)), rule, path=path, max_pixels=max_pixels)


def load_bytes(
    data: bytes, rule: ResizeRule, *, path: str | Path | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """The image in the bytes of a file, fitted: uint8 [S, S, 3], as from `load`. `path` is named in errors."""
    return load_with_size(data, rule, path=path, max_pixels=max_pixels)[0]


def load_with_size(
    data: bytes, rule: ResizeRule, *, path: str | Path | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Pixels, Size]:
    """As `load_bytes`, with the upright width and height of the original picture [pixels]."""
    enough = partial(_whole_at_least, rule=rule)
    stored = decode_as_stored(data, path=path, max_pixels=max_pixels, enough=enough, white_level=rule.white_level)
    return _fitted(stored, rule), _upright(stored)


def memory_to_load(data: bytes, rule: ResizeRule, *, max_pixels: int = MAX_PIXELS) -> int:
    """Peak memory of `load_bytes` [bytes], by the image's header; 0 for files that it refuses by their header."""
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
    """The image in the bytes of a file, scaled down if it is too large (else None), after its upright width and height.

    All of the file is decoded, so that damage is found; a JPEG at reduced scale if that suffices.

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
        return math.ceil(_STORED_DETAIL * width), math.ceil(_STORED_DETAIL * height)

    # The result has 8 bits. The other images are not known yet, so each has its own white level.
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
    """The edges of a fitted image within the upright original, in fractions of its width and height.

    With padding they are outside 0..1, with a crop inside.

    Args:
        size: upright width and height of the original [pixels].
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


def inspect(
    path: str | Path, *, data: bytes | None = None, white_level: int | None = None, max_pixels: int = MAX_PIXELS
) -> ImageFacts:
    """Size, identity and small pictures of an image file, after decoding all of it.

    Args:
        data: the file's content, if it has been read.
        white_level: of the data set; None: unknown yet, so the image's own depth is measured and used.

    Raises:
        ImageError: in the same cases as `load`.
    """
    if data is None:
        data = read(path, max_bytes=max_bytes_for(max_pixels))
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
    """The image; scaled down, as a JPEG already is, if its colours must be converted, which takes time per pixel."""
    width, height = decoded.image.size
    least_width, least_height = _enough_to_inspect(decoded.size)
    factor = min(width // least_width, height // least_height)
    return decoded.image if decoded.colours is None or factor < 2 else decoded.image.reduce(factor)


def _enough_to_inspect(size: Size) -> Size:
    least, scale = _TINY_DETAIL * max(TINY), SMALL / max(size)
    return max(least, math.ceil(scale * size[0])), max(least, math.ceil(scale * size[1]))


def tiny(image: Pixels) -> Pixels:
    """`ImageFacts.tiny`, uint8 [16, 17] gray, of an upright image in memory, uint8 [H, W, 3]."""
    return _tiny(Image.fromarray(image))


def pixel_sha256(path: str | Path, *, white_level: int = FULL_RANGE, max_pixels: int = MAX_PIXELS) -> str:
    """SHA-256 of an image's size and upright RGB pixels, equal for files of any format with the same picture.

    Raises:
        ImageError: as `load` does.
    """
    data = read(path, max_bytes=max_bytes_for(max_pixels))
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
    """The part of an image of this size that is used, and the width and height it is resized to."""
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
    return (
        math.ceil(rule.detail * width * size[0] / (right - left)),
        math.ceil(rule.detail * height * size[1] / (bottom - top)),
    )


def _tiny(upright: Image.Image) -> Pixels:
    """The whole picture as uint8 [16, 17] gray."""
    return np.array(upright.convert("L").resize(TINY, Image.Resampling.LANCZOS))


def _fitted(decoded: Stored, rule: ResizeRule) -> Pixels:
    """Resize as stored, then make it sRGB and upright (all rules are symmetric), then pad: uint8 [S, S, 3]."""
    box, size = _plan(decoded.size, rule)
    # Boxes have fractions of pixels: at reduced scale, the last column and row are partly beyond the image.
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
