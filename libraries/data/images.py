"""Bytes of an image file → upright RGB → fitted to S x S: the one way in for every step and for the service.

Every colour mode becomes 8-bit RGB:

- alpha, and transparent palette entries, are composited on white, which is what a browser shows;
- 16-bit gray keeps its absolute scale (65535 → 255), so that images of one camera stay comparable, and so do 32-bit
  integers within 0..65535 and floats within 0..1 or 0..255; other ranges are stretched from minimum to maximum;
- CMYK JPEGs are taken as Adobe writes them (inverted), as browsers do; colour profiles are not applied;
- of an animation, the first frame counts.

JPEGs are decoded at 1/2, 1/4 or 1/8 scale where enough detail remains (libjpeg drops the frequencies that the resize
would drop). Decoding and resizing release the GIL, so threads scale.
"""

import hashlib
import io
import math
import re
import stat
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from libraries.base.errors import ImageError, ImageTooLarge, ParameterError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000  # Pillow's own, fixed limit lies at 179 million
MAX_BYTES = 256 * 2**20

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # and no others: Pillow's EPS plugin, say, runs Ghostscript
_SCALABLE = ("JPEG", "MPO")  # MPO: what Pillow calls a JPEG with further pictures behind the first, as phones write it
_BACKGROUND = (255, 255, 255)  # seen through transparent pixels

# What the cheap first reduction must leave, in multiples of the final width and height. At 1.75 the scaled decoding of
# very sharp photographs differs from a full one by at most 1.2 grey levels in the mean; at 1.0 by 2.6, at 2.0 by 1.0.
_DETAIL = 1.75  # JPEG at reduced scale
_BOX_DETAIL = 2.0  # all else, when large: a box filter over whole pixels
# Pictures that are kept: with a sharper filter afterwards, less is enough. On the sharpest photographs that, and a
# Hamming filter over all pixels, differ by 1.1 to 1.9 grey levels in the mean from a Lanczos filter over all pixels;
# averaging areas, as others do, by 1.3 to 2.0.
_KEPT_DETAIL = 1.25

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → what sets the image upright
_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}  # width and height change places

_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class ResizeRule:
    """How an image of any shape becomes S x S.

    Attributes:
        size: S, in pixels.
        mode: 'pad' keeps the whole image and its proportions, 'crop' the largest centred square, 'stretch' neither.
        interpolation: always antialiased when shrinking.
        fill: RGB of what 'pad' adds.
    """

    size: int
    mode: Literal["pad", "crop", "stretch"] = "pad"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

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

    def to_json(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return {**asdict(self), "fill": list(self.fill)}

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
    """

    width: int
    height: int
    sha256: str
    bytes: int
    tiny: Pixels = field(compare=False, repr=False)
    small: Pixels = field(compare=False, repr=False)


class Header(NamedTuple):
    """What an image file says of itself: format and mode as Pillow names them, pixels as stored."""

    format: str
    mode: str
    width: int
    height: int


def load(path: str | Path, rule: ResizeRule) -> Pixels:
    """The image in a file, fitted: uint8 [S, S, 3].

    Raises:
        ImageError: no readable regular file, or not a whole image within the limits.
    """
    return load_bytes(read(path), rule, path=path)


def load_bytes(
    data: bytes, rule: ResizeRule, *, path: str | Path | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """The image in the bytes of a file, fitted: uint8 [S, S, 3], the same as `load` gives. `path` is for the error."""

    def enough(size: Size) -> Size:
        return _whole_at_least(size, rule)

    return _fitted(_decoded(data, path=path, max_pixels=max_pixels, enough=enough), rule)


def decode(
    data: bytes, *, path: str | Path | None = None, at_least: int | None = None, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """The image in the bytes of a file: uint8 [H, W, 3], upright.

    Args:
        data: the file's content.
        path: named in the error.
        at_least: a JPEG may come out at 1/2, 1/4 or 1/8 scale as long as its shorter side has this many pixels.
            To get S x S, use `load_bytes`: it keeps more detail.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Raises:
        ImageError: not a whole image within the limits.
    """
    enough = None if at_least is None else lambda size: (at_least, at_least)
    decoded = _decoded(data, path=path, max_pixels=max_pixels, enough=enough)
    return np.array(_turned(decoded.image, decoded.turn).convert("RGB"))


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

    decoded = _decoded(data, path=None, max_pixels=max_pixels, enough=enough)
    size, small = decoded.size, None
    if max(size) > max_side:
        box = (0, 0, size[0] / decoded.shrink, size[1] / decoded.shrink)
        size = _within(size, max_side)
        kind = Image.Resampling.BICUBIC if decoded.shrink > 1 else Image.Resampling.HAMMING  # the latter is faster
        small = decoded.image.resize(size, kind, box=box, reducing_gap=_BOX_DETAIL)
        small = _turned(small, decoded.turn)
    return (size if decoded.turn not in _SIDEWAYS else size[::-1]), small


def fit(image: Pixels, rule: ResizeRule) -> Pixels:
    """An image in memory, uint8 [H, W, 3], fitted: uint8 [S, S, 3]."""
    height, width, _ = image.shape
    return _fitted(_Decoded(Image.fromarray(image), (width, height), shrink=1, turn=None), rule)


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


def header(data: bytes, *, path: str | Path | None = None) -> Header:
    """What the bytes of an image file begin with; nothing is decoded.

    Raises:
        ImageError: no image of a known format.
    """
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return Header(str(image.format), image.mode, image.width, image.height)
    except Exception as error:  # damaged bytes make Pillow raise almost anything
        raise ImageError(f"is no {', '.join(_FORMATS)} image", path) from error


def inspect(path: str | Path) -> ImageFacts:
    """Size, identity and small pictures of an image file, after decoding all of it.

    Raises:
        ImageError: exactly when `load` would.
    """
    data = read(path)
    # At reduced scale every byte of a JPEG still passes through the entropy decoder, which is what finds damage.
    decoded = _decoded(data, path=path, max_pixels=MAX_PIXELS, enough=_enough_to_inspect)
    width, height = decoded.size if decoded.turn not in _SIDEWAYS else reversed(decoded.size)
    small = _turned(decoded.image, decoded.turn).convert("RGB")
    small.thumbnail((SMALL, SMALL), Image.Resampling.BICUBIC, reducing_gap=_BOX_DETAIL)
    digest = hashlib.sha256(data).hexdigest()
    return ImageFacts(width, height, digest, len(data), _tiny(decoded), np.array(small))


def _enough_to_inspect(size: Size) -> Size:
    least, scale = _TINY_DETAIL * max(TINY), SMALL / max(size)
    return max(least, math.ceil(scale * size[0])), max(least, math.ceil(scale * size[1]))


def tiny(image: Pixels) -> Pixels:
    """An upright image in memory, uint8 [H, W, 3], as `inspect` makes it tiny: uint8 [16, 17] gray."""
    height, width, _ = image.shape
    return _tiny(_Decoded(Image.fromarray(image), (width, height), shrink=1, turn=None))


def pixel_sha256(path: str | Path) -> str:
    """SHA-256 of an image's size and upright RGB pixels, equal for files of any format that hold the same picture.

    Raises:
        ImageError: as `load` does.
    """
    pixels = decode(read(path), path=path)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


# From file to pixels


def read(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file; no pipe that waits, no device that never ends.

    Raises:
        ImageError: there is no such file, it is too large, or cannot be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder", path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file", path)
        if status.st_size > max_bytes:
            raise ImageTooLarge(f"has {status.st_size:,} bytes, more than the {max_bytes:,} allowed", path)
        return path.read_bytes()
    except FileNotFoundError as error:
        broken = f"is a broken link to {path.readlink()}" if path.is_symlink() else "does not exist"
        raise ImageError(broken, path) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path) from error


class _Decoded(NamedTuple):
    """An image as stored, perhaps at reduced scale, and what is needed to finish it."""

    image: Image.Image  # mode L or RGB; gray stays one channel, which makes the resize three times cheaper
    size: Size  # at full scale, as stored
    shrink: int  # full scale / the image's scale
    turn: Image.Transpose | None  # what sets it upright


def _decoded(
    data: bytes, *, path: str | Path | None, max_pixels: int, enough: Callable[[Size], Size] | None
) -> _Decoded:
    """Decode; a JPEG at the smallest scale at which width and height are at least `enough(full size)`."""
    if not data:
        raise ImageError("is empty (0 bytes)", path)
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(f"has {len(data):,} bytes, more than the {MAX_BYTES:,} allowed", path)
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageTooLarge(f"has {width:,} x {height:,} pixels, more than the {max_pixels:,} allowed", path)
            shrink = 1
            if image.format in _SCALABLE and enough is not None:
                shrink = _reduce_scale(image, enough((width, height)))
            image.decodermaxblock = len(data)  # in one go: by default Pillow comes back after every 64 KB
            image.load()
            return _Decoded(_gray_or_rgb(image), (width, height), shrink, _turn(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # beyond Pillow's own limit
        raise ImageTooLarge(f"has more than the {max_pixels:,} pixels allowed", path) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"is no whole {', '.join(_FORMATS)} image (begins with {data[:16]!r})", path) from error
    except Exception as error:  # damaged bytes make Pillow raise almost anything: OSError, SyntaxError, TypeError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}", path) from error


def _silence_pillow() -> None:
    """Keep Pillow's warnings off: what matters is raised as ImageError.

    The usual `warnings.catch_warnings` restores global state at its end, which goes wrong between threads.
    """
    if warnings.filters[:1] != [_PILLOW_WARNINGS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _reduce_scale(image: Image.Image, enough: Size) -> int:
    """Set a JPEG that is not yet decoded to the smallest scale with at least `enough` width and height."""
    width = image.width
    drafted = image.draft(image.mode, enough)
    return 1 if drafted is None else round(width / drafted[1][2])


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises almost anything, and is no reason to refuse the pixels
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


# Colour


def _gray_or_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as L or RGB (see the module's docstring)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, _BACKGROUND)
        canvas.paste(picture, mask=picture)
        return canvas
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Gray values of another type, uint16, int32 or float32 [H, W], as uint8 [H, W]."""
    if values.dtype.kind == "u":
        return np.rint(values * np.float32(1 / 257)).astype(np.uint8)
    tops = (1.0, 255.0) if values.dtype.kind == "f" else (65535.0,)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    for top in tops:
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top)).astype(np.uint8)
    return np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)


# Fitting


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


def _tiny(decoded: _Decoded) -> Pixels:
    """The whole picture, upright, as uint8 [16, 17] gray."""
    gray = _turned(decoded.image, decoded.turn).convert("L")
    return np.array(gray.resize(TINY, Image.Resampling.LANCZOS))


def _fitted(decoded: _Decoded, rule: ResizeRule) -> Pixels:
    """Resize as stored, then set upright (all rules are symmetric), then pad: uint8 [S, S, 3]."""
    box, size = _plan(decoded.size, rule)
    # Boxes are exact to the fraction of a pixel: at reduced scale the last column and row are partly beyond the image.
    left, top, right, bottom = (edge / decoded.shrink for edge in box)
    small = decoded.image.resize(
        size,
        Image.Resampling[rule.interpolation.upper()],
        box=(left, top, right, bottom),
        reducing_gap=_BOX_DETAIL,
    )
    picture = _turned(small, decoded.turn).convert("RGB")
    if picture.size != (rule.size, rule.size):
        canvas = Image.new("RGB", (rule.size, rule.size), rule.fill)
        canvas.paste(picture, ((rule.size - picture.width) // 2, (rule.size - picture.height) // 2))
        picture = canvas
    return np.array(picture)
