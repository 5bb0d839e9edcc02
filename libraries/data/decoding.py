"""Bytes of an image file → the picture as it is stored there, in gray or RGB, and how to make it sRGB and upright.

`formats` lists the formats that are read. Every colour mode becomes 8-bit RGB, or gray:

- alpha, and transparent palette entries, are composited on white, as a browser shows them;
- more than 8 bits keep an absolute scale, with one white level for a whole data set (see `depth`);
- CMYK JPEGs are taken as Adobe writes them (inverted), as browsers do;
- colour profiles are applied (see `colour`), except to 16-bit, 32-bit and float grays: these are measurements;
- of an animation, the first frame is used; of a HEIC file with several pictures, the primary one. HEIC and AVIF store
  their own orientation; as their standard requires, EXIF's is ignored there.

Nothing is registered with Pillow, and none of its process-wide limits is changed: each format is opened by its own
class.
"""

import io
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from libraries.base.errors import PIXEL_LIMIT, ImageError, ImageTooLarge
from libraries.data import depth
from libraries.data.colour import Conversion, to_srgb
from libraries.data.depth import FULL_RANGE, Depth, in_strips
from libraries.data.formats import HEAD, NAMES, Foreign, Format, recognise
from libraries.data.headers import check_header, memory_of
from libraries.data.netpbm import NetpbmImageFile

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


class _Tiff(TiffImageFile):
    """A TIFF without Pillow's own limit of 179 million pixels, which cannot be lifted for a single image."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        super().load_prepare()


_CLASSES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,  # also for MPO: a JPEG followed by further pictures, as phones write it
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": _Tiff,
    "AVIF": AvifImageFile,
    "JPEG2000": Jpeg2KImageFile,
    "PPM": NetpbmImageFile,
}  # and HEIF, from another package
_BACKGROUND = (255, 255, 255)  # seen through transparent pixels

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → what makes the image upright
SIDEWAYS = {UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}  # these swap width and height

_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

Size = tuple[int, int]  # width, height


def read(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file; pipes and devices, which may never end, are refused.

    Raises:
        ImageError: there is no such file, it is too large, or it cannot be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder", path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file", path)
        if status.st_size > max_bytes:
            raise _too_long(status.st_size, max_bytes, path)
        return path.read_bytes()
    except FileNotFoundError as error:
        broken = f"is a broken link to {path.readlink()}" if path.is_symlink() else "does not exist"
        raise ImageError(broken, path) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path) from error


def _too_long(length: int, allowed: int, path: str | Path | None) -> ImageTooLarge:
    return ImageTooLarge(f"has {length:,} bytes, more than the {allowed:,} allowed", path)


class Header(NamedTuple):
    """What an image file declares: format and mode as Pillow names them, and the size as stored [pixels]."""

    format: str
    mode: str
    width: int
    height: int


def header(data: bytes, *, path: str | Path | None = None) -> Header:
    """The header of an image file, from its bytes; nothing is decoded.

    Raises:
        ImageError: it is not an image of a known format.
    """
    format = _format(data, path)
    _silence_pillow()
    try:
        check_header(format.name, data, max_pixels=MAX_PIXELS)
        with _opened(format, data) as image:
            return Header(str(image.format), image.mode, image.width, image.height)
    except Exception as error:  # damaged bytes make Pillow raise almost anything
        raise ImageError(f"is not a whole {format.name} image", path) from error


def _format(data: bytes, path: str | Path | None) -> Format:
    """The format of an image file, whatever its name.

    Raises:
        ImageError: it is not a format that is read.
    """
    kind = recognise(data[:HEAD])
    if isinstance(kind, Format):
        return kind
    if isinstance(kind, Foreign):
        raise ImageError(kind.of_one(), path)
    raise ImageError(f"is not a whole {NAMES} image (begins with {data[:16]!r})", path)


def _opened(format: Format, data: bytes) -> ImageFile.ImageFile:
    """The image in a file's bytes, not yet decoded."""
    if format.name == "HEIF":
        from pillow_heif import HeifImageFile  # loads a large library

        opened: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
        return opened
    return _CLASSES[format.name](io.BytesIO(_as_still(data) if format.name == "AVIF" else data))


def _as_still(data: bytes) -> bytes:
    """An AVIF file that shows its picture, and not an animation that it may also contain."""
    return data[:8] + b"avif" + data[12:] if data[8:12] == b"avis" else data


def memory_to_decode(data: bytes, *, max_pixels: int, enough: Callable[[Size], Size] | None) -> int:
    """Bytes of memory that `decode_as_stored` needs; 0 for files that it refuses by their header."""
    _silence_pillow()
    try:
        format = _format(data, None)
        check_header(format.name, data, max_pixels=max_pixels)
        with _opened(format, data) as image:
            width, height = image.size
            if width * height > max_pixels:
                return 0
            if format.name == "JPEG" and enough is not None:
                _reduce_scale(image, enough((width, height)))
            return memory_of(image, data, pixels=width * height)
    except Exception:  # damaged bytes make Pillow raise almost anything
        return 0


class Stored(NamedTuple):
    """An image as stored, perhaps at a reduced scale, and what is needed to finish it."""

    image: Image.Image  # mode L or RGB; gray stays one channel, which makes the resize three times cheaper
    size: Size  # at full scale, as stored
    shrink: int = 1  # full scale / the image's scale
    turn: Image.Transpose | None = None  # makes it upright
    colours: Conversion | None = None  # makes it sRGB
    depth: Depth | None = None  # of a picture of more than 8 bits, if it was measured

    def finished(self, image: Image.Image) -> Image.Image:
        """The image, or a resized version of it, in sRGB and upright.

        Best after resizing: converting the colours before differs by about 0.3 grey levels on average, and takes longer
        than decoding a JPEG.
        """
        if self.colours is not None:
            image = self.colours(image)
        return image if self.turn is None else image.transpose(self.turn)


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
        white_level: of a picture of more than 8 bits; None: measured from the picture itself.

    Raises:
        ImageError: not a whole image within the limits.
    """
    if not data:
        raise ImageError("is empty (0 bytes)", path)
    if len(data) > max_bytes_for(max_pixels):
        raise _too_long(len(data), max_bytes_for(max_pixels), path)
    format = _format(data, path)
    _silence_pillow()
    try:
        check_header(format.name, data, max_pixels=max_pixels)
        with _opened(format, data) as image:
            _check_size(image.size, max_pixels)
            to_reduce = enough if format.name == "JPEG" else None
            return _decoded(image, data, enough=to_reduce, white_level=white_level)
    except ImageError as error:
        raise error.at(path) from error.__cause__
    except Image.DecompressionBombError as error:  # Pillow's own limit, for a canvas of GIF or WebP
        raise ImageError(f"has more pixels than a {format.name} may have here: save it as PNG", path) from error
    except Exception as error:  # damaged bytes make Pillow raise almost anything: OSError, SyntaxError, TypeError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}", path) from error


def _check_size(size: Size, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        pixels = f"{width:,} x {height:,} pixels"
        raise ImageTooLarge(f"has {pixels}, more than the {max_pixels:,} allowed", limit=PIXEL_LIMIT)


def _decoded(
    image: ImageFile.ImageFile, data: bytes, *, enough: Callable[[Size], Size] | None, white_level: int | None
) -> Stored:
    """Decode an opened image; `enough` is None where its scale cannot be reduced."""
    full_size = image.size
    shrink = 1 if enough is None else _reduce_scale(image, enough(full_size))
    image.decodermaxblock = len(data)  # in one go; by default Pillow decodes 64 KB at a time
    has_deep_colours = depth.has_deep_colours(image)  # before loading, which hides it
    image.load()
    measured = _depth(image, has_deep_colours) if white_level is None else None
    white = white_level or (measured and measured.level) or FULL_RANGE
    if has_deep_colours and white != FULL_RANGE:
        depth.scale_colours(image, data, white)
    size = full_size if shrink > 1 else image.size  # loading a damaged HEIC may change it
    picture, colours = _gray_or_rgb(image, white)
    return Stored(picture, size, shrink, _turn(image), colours, measured)


def max_bytes_for(max_pixels: int) -> int:
    """The largest file [bytes] that is read for an image of at most `max_pixels`."""
    return MAX_BYTES * max(1, -(-max_pixels // MAX_PIXELS))


def _silence_pillow() -> None:
    """Turn off Pillow's warnings: what matters is raised as ImageError.

    `warnings.catch_warnings` would restore global state at its end, which is not thread-safe.
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
    except Exception:  # damaged EXIF may raise anything, and is no reason to refuse the pixels
        return None


# Colour


def _gray_or_rgb(image: Image.Image, white_level: int) -> tuple[Image.Image, Conversion | None]:
    """An image of any mode as L or RGB (see the module's docstring), and its conversion to sRGB."""
    if depth.is_deep_gray(image):
        return depth.gray_in_8_bits(image, white_level), None
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and (convert := to_srgb(profile, "CMYK")) is not None:
        return in_strips(image, "RGB", convert), None
    picture = _without_transparency(image)
    return picture, to_srgb(profile, picture.mode)


def _without_transparency(image: Image.Image) -> Image.Image:
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
    """The depth of a decoded picture of more than 8 bits; None for one of 8 bits."""
    if has_deep_colours:
        return depth.colour_depth(image)
    return depth.gray_depth(image) if depth.is_deep_gray(image) else None
