"""Downloaded bytes → the file that is kept: an intact image, not larger than wanted."""

from dataclasses import dataclass
from typing import IO

from PIL import Image

from libraries.base.errors import DownloadError, ImageError
from libraries.data.formats import HEAD, Format, recognise
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
    kind = recognise(data[:HEAD])
    if not isinstance(kind, Format):
        raise DownloadError("not an image", detail=f"begins with {data[:16]!r}" if kind is None else kind.of_one())
    try:
        (width, height), smaller = scaled_down(data, max_pixels=max_pixels, max_side=max_side)
    except ImageError as error:
        reason = "too many pixels" if "pixels" in error.reason else "damaged image"
        raise DownloadError(reason, detail=error.reason) from None
    if smaller is None:
        return Kept(kind.suffixes[0], width, height, data, None)
    return Kept(".jpg", width, height, b"", smaller)
