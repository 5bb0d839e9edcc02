"""Bytes of an image file → the picture as it is stored there, in gray or RGB, and what makes it sRGB and upright.

Which formats are read says `formats`. Every colour mode becomes 8-bit RGB, or gray:

- alpha, and transparent palette entries, are composited on white, which is what a browser shows;
- more than 8 bits keep an absolute scale, by one white level for all images that belong together (see `depth`);
- CMYK JPEGs are taken as Adobe writes them (inverted), as browsers do;
- colour profiles are heeded (see `colour`), but not those of 16-bit, 32-bit and float grays: these are measurements;
- of an animation the first frame counts, of several pictures in a HEIC file the primary one. HEIC and AVIF say by
  themselves how they are turned; what EXIF says besides does not count there, as their standard has it.

Nothing is registered with Pillow, and none of its limits, which hold for the whole process, is changed: each format is
opened by its own class.
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

from libraries.base.errors import PIXELS, ImageError, ImageTooLarge
from libraries.data import depth
from libraries.data.colour import Conversion, to_srgb
from libraries.data.depth import FULL_RANGE, Depth, in_strips
from libraries.data.formats import HEAD, NAMES, Foreign, Format, recognise
from libraries.data.headers import check_header, memory_of
from libraries.data.netpbm import NetpbmImageFile

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20


class _Tiff(TiffImageFile):
    """A TIFF without Pillow's own limit of 179 million pixels, which knows no way out for a single image."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        super().load_prepare()


_CLASSES: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,  # also of MPO: a JPEG with further pictures behind the first, as phones write it
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": _Tiff,
    "AVIF": AvifImageFile,
    "JPEG2000": Jpeg2KImageFile,
    "PPM": NetpbmImageFile,
}  # and HEIF, of another package
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
    format = _format(data, path)
    _silence_pillow()
    try:
        check_header(format.name, data, max_pixels=MAX_PIXELS)
        with _opened(format, data) as image:
            return Header(str(image.format), image.mode, image.width, image.height)
    except Exception as error:  # damaged bytes make Pillow raise almost anything
        raise ImageError(f"is no whole {format.name} image", path) from error


def _format(data: bytes, path: str | Path | None) -> Format:
    """The format of an image file, whatever its name.

    Raises:
        ImageError: it is none that is read.
    """
    kind = recognise(data[:HEAD])
    if isinstance(kind, Format):
        return kind
    if isinstance(kind, Foreign):
        raise ImageError(kind.of_one(), path)
    raise ImageError(f"is no whole {NAMES} image (begins with {data[:16]!r})", path)


def _opened(format: Format, data: bytes) -> ImageFile.ImageFile:
    """The image in a file's bytes, not yet decoded."""
    if format.name == "HEIF":
        from pillow_heif import HeifImageFile  # loads a large library

        opened: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
        return opened
    return _CLASSES[format.name](io.BytesIO(_as_still(data) if format.name == "AVIF" else data))


def _as_still(data: bytes) -> bytes:
    """An AVIF file that shows its picture, and not the film that it may have besides."""
    return data[:8] + b"avif" + data[12:] if data[8:12] == b"avis" else data


def memory_to_decode(data: bytes, *, max_pixels: int, enough: Callable[[Size], Size] | None) -> int:
    """Bytes of memory that `decode_as_stored` takes; 0 for what it refuses by its header."""
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
    """An image as stored, perhaps at reduced scale, and what is needed to finish it."""

    image: Image.Image  # mode L or RGB; gray stays one channel, which makes the resize three times cheaper
    size: Size  # at full scale, as stored
    shrink: int = 1  # full scale / the image's scale
    turn: Image.Transpose | None = None  # what sets it upright
    colours: Conversion | None = None  # what makes it sRGB
    depth: Depth | None = None  # where it was measured, of a picture of more than 8 bits

    def finished(self, image: Image.Image) -> Image.Image:
        """The image, or what was made of it, in sRGB and upright.

        Best when small: before a resize the conversion gives what it gives after it, to about 0.3 grey levels in the
        mean, and takes longer than to decode a JPEG.
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
        white_level: of a picture of more than 8 bits; None: by its own depth, which is measured.
    """
    if not data:
        raise ImageError("is empty (0 bytes)", path)
    if len(data) > bytes_of(max_pixels):
        raise _too_long(len(data), bytes_of(max_pixels), path)
    format = _format(data, path)
    _silence_pillow()
    try:
        check_header(format.name, data, max_pixels=max_pixels)
        with _opened(format, data) as image:
            width, height = image.size
            if width * height > max_pixels:
                found = f"{width:,} x {height:,} pixels"
                raise ImageTooLarge(f"has {found}, more than the {max_pixels:,} allowed", limit=PIXELS)
            shrink = 1
            if format.name == "JPEG" and enough is not None:
                shrink = _reduce_scale(image, enough((width, height)))
            image.decodermaxblock = len(data)  # in one go: by default Pillow comes back after every 64 KB
            has_deep_colours = depth.has_deep_colours(image)  # which cannot be seen any more
            image.load()
            measured = _depth(image, has_deep_colours) if white_level is None else None
            white = white_level or (measured and measured.level) or FULL_RANGE
            if has_deep_colours and white != FULL_RANGE:
                depth.scale_colours(image, data, white)
            size = (width, height) if shrink > 1 else image.size  # a damaged HEIC may turn out to be of another
            picture, colours = _gray_or_rgb(image, white)
            return Stored(picture, size, shrink, _turn(image), colours, measured)
    except ImageError as error:
        raise error.at(path) from error.__cause__
    except Image.DecompressionBombError as error:  # by Pillow's own limit, for a canvas of GIF or WebP
        raise ImageError(f"has more pixels than a {format.name} may have here: save it as PNG", path) from error
    except Exception as error:  # damaged bytes make Pillow raise almost anything: OSError, SyntaxError, TypeError ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be decoded: {reason}", path) from error


def bytes_of(max_pixels: int) -> int:
    """How long a file may be whose image has at most so many pixels."""
    return MAX_BYTES * max(1, -(-max_pixels // MAX_PIXELS))


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


# Colour


def _gray_or_rgb(image: Image.Image, white_level: int) -> tuple[Image.Image, Conversion | None]:
    """An image of any mode as L or RGB (see the module's docstring), and what makes that sRGB."""
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
    """How far a decoded picture of more than 8 bits reaches; None for one of 8 bits."""
    if has_deep_colours:
        return depth.colour_depth(image)
    return depth.gray_depth(image) if depth.is_deep_gray(image) else None
