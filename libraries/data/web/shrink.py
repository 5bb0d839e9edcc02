"""Downloaded bytes → the file that is kept: an intact image, not larger than wanted."""

from dataclasses import dataclass
from typing import IO

from PIL import Image

from libraries.base.errors import DownloadError, ImageError
from libraries.data.images import scaled_down

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Kept:
    """What is kept of a download.

    Attributes:
        suffix: of the file's format.
        width: in pixels, when upright.
        height: likewise.
        data: the bytes that came, which stay as they are;
        smaller: or, instead, a smaller image.
    """

    suffix: str
    width: int
    height: int
    data: bytes
    smaller: Image.Image | None

    def write(self, file: IO[bytes]) -> None:
        """Write the file's content. Where it has to be encoded: into a true file, for then others may compute, too."""
        if self.smaller is None:
            file.write(self.data)
        else:
            self.smaller.save(file, "JPEG", quality=JPEG_QUALITY)


def keep(data: bytes, *, max_pixels: int, max_side: int) -> Kept:
    """The bytes as they are, or, if the image's longer side has more than `max_side` pixels, a smaller JPEG of it.

    Raises:
        DownloadError: not an image, more than `max_pixels` (seen from the header, before decoding), or damaged.
    """
    suffix = suffix_of(data)
    if suffix is None:
        raise DownloadError("not an image", detail=f"begins with {data[:16]!r}")
    try:
        (width, height), smaller = scaled_down(data, max_pixels=max_pixels, max_side=max_side)
    except ImageError as error:
        reason = "too many pixels" if "pixels" in error.reason else "damaged image"
        raise DownloadError(reason, detail=error.reason) from None
    if smaller is None:
        return Kept(suffix, width, height, data, None)
    return Kept(".jpg", width, height, b"", smaller)


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
