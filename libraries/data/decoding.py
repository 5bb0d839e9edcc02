"""Bytes of an image file → the picture as it is stored there, in gray or RGB, and what sets it upright.

Every colour mode becomes 8-bit RGB, or gray:

- alpha, and transparent palette entries, are composited on white, which is what a browser shows;
- more than 8 bits keep an absolute scale, by one white level for all images that belong together (see `white_level`);
- CMYK JPEGs are taken as Adobe writes them (inverted), as browsers do; colour profiles are not applied;
- of an animation, the first frame counts.
"""

import io
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from libraries.base.errors import ImageError, ImageTooLarge
from libraries.data import depth
from libraries.data.memory import memory_of
from libraries.data.strips import in_strips
from libraries.data.white_level import FULL_RANGE, Depth

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000  # Pillow's own, fixed limit lies at 179 million
MAX_BYTES = 256 * 2**20

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # and no others: Pillow's EPS plugin, say, runs Ghostscript
_SCALABLE = ("JPEG", "MPO")  # MPO: what Pillow calls a JPEG with further pictures behind the first, as phones write it
_BACKGROUND = (255, 255, 255)  # seen through transparent pixels

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → what sets the image upright
SIDEWAYS = {UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}  # width and height change places

_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # width, height


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


class Header(NamedTuple):
    """What an image file says of itself: format and mode as Pillow names them, pixels as stored."""

    format: str
    mode: str
    width: int
    height: int


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


def memory_to_decode(data: bytes, *, max_pixels: int, enough: Callable[[Size], Size] | None) -> int:
    """Bytes of memory that `decode_as_stored` takes; 0 for what it refuses by its header."""
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                return 0
            if image.format in _SCALABLE and enough is not None:
                _reduce_scale(image, enough((width, height)))
            return memory_of(image, data, pixels=width * height)
    except Exception:  # damaged bytes make Pillow raise almost anything
        return 0


class Stored(NamedTuple):
    """An image as stored, perhaps at reduced scale, and what is needed to finish it."""

    image: Image.Image  # mode L or RGB; gray stays one channel, which makes the resize three times cheaper
    size: Size  # at full scale, as stored
    shrink: int  # full scale / the image's scale
    turn: Image.Transpose | None  # what sets it upright
    depth: Depth | None = None  # where it was measured, of a picture of more than 8 bits


def decode_as_stored(
    data: bytes,
    *,
    path: str | Path | None,
    max_pixels: int,
    enough: Callable[[Size], Size] | None,
    white_level: int | None = FULL_RANGE,
) -> Stored:
    """Decode; a JPEG at the smallest scale at which width and height are at least `enough(full size)`.

    Args:
        white_level: of a picture of more than 8 bits; None: by its own depth, which is measured.
    """
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
            has_deep_colours = depth.has_deep_colours(image)  # which cannot be seen any more
            image.load()
            measured = _depth(image, has_deep_colours) if white_level is None else None
            white = white_level or (measured and measured.level) or FULL_RANGE
            if has_deep_colours and white != FULL_RANGE:
                depth.scale_colours(image, data, white)
            return Stored(_gray_or_rgb(image, white), (width, height), shrink, _turn(image), measured)
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
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises almost anything, and is no reason to refuse the pixels
        return None


def turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


# Colour


def _gray_or_rgb(image: Image.Image, white_level: int) -> Image.Image:
    """An image of any mode as L or RGB (see the module's docstring)."""
    if depth.is_deep_gray(image):
        return depth.gray_in_8_bits(image, white_level)
    if image.has_transparency_data:
        return in_strips(image, "RGB", _on_white)
    if image.mode in ("L", "RGB"):
        return image
    mode = "L" if image.mode == "1" else "RGB"
    return in_strips(image, mode, lambda strip: strip.convert(mode))


def _on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    canvas = Image.new("RGB", picture.size, _BACKGROUND)
    canvas.paste(picture, mask=picture)
    return canvas


def _depth(image: Image.Image, has_deep_colours: bool) -> Depth | None:
    """How far a decoded picture of more than 8 bits reaches; None for one of 8 bits."""
    if has_deep_colours:
        return depth.colour_depth(image)
    return depth.gray_depth(image) if depth.is_deep_gray(image) else None
