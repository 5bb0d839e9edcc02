"""Downloaded bytes → the file that is kept: an intact image, not larger than wanted."""

import io
from dataclasses import dataclass

from PIL import Image

from libraries.base.errors import DownloadError, ImageError
from libraries.data.images import decode

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Kept:
    """A file's content, the suffix of its true format, and its size in pixels when upright."""

    content: bytes
    suffix: str
    width: int
    height: int


def keep(data: bytes, *, max_pixels: int, max_side: int) -> Kept:
    """The bytes as they are, or, if the image's longer side has more than `max_side` pixels, a smaller JPEG of it.

    Raises:
        DownloadError: not an image, more than `max_pixels` (seen from the header, before decoding), or damaged.
    """
    suffix = suffix_of(data)
    if suffix is None:
        raise DownloadError("not an image", detail=f"begins with {data[:16]!r}")
    try:
        # A JPEG may come out at a fraction of its scale, but never near or below `max_side`.
        pixels = decode(data, max_pixels=max_pixels, at_least=2 * max_side)
    except ImageError as error:
        reason = "too many pixels" if "pixels" in error.reason else "damaged image"
        raise DownloadError(reason, detail=error.reason) from None
    height, width, _ = pixels.shape
    longer = max(width, height)
    if longer <= max_side:
        return Kept(data, suffix, width, height)
    width, height = (max(1, round(side * max_side / longer)) for side in (width, height))
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=JPEG_QUALITY)
    return Kept(file.getvalue(), ".jpg", width, height)


def suffix_of(data: bytes) -> str | None:
    """The suffix for the format that the first bytes tell, whatever the URL or the server said."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    for start, suffix in (
        (b"\xff\xd8\xff", ".jpg"),
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"GIF8", ".gif"),
        (b"BM", ".bmp"),
        (b"II*\0", ".tif"),
        (b"MM\0*", ".tif"),
    ):
        if data.startswith(start):
            return suffix
    return None
