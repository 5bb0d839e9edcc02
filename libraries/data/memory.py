"""How much memory an image takes to decode, by its header: so that no more are decoded at once than there is room for.

Measured with Pillow 13 as the largest resident size, in bytes per pixel, beyond the picture itself: WebP 12 to 13 (two
canvases and a copy), JPEG 2000 15, AVIF 5 (with a quarter of the colours), HEIF 3.4 (with a quarter) to 5.6 (with all),
and 2 per pixel and component for a JPEG that comes in several scans, whatever scale it is decoded at.
"""

from typing import Any

from PIL import Image

_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # bytes per pixel; all others: 4
_GRAY = {"1": 1, "I": 1, "F": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1}  # become gray of one byte
_WORKING = {"PNG": 0, "GIF": 0, "BMP": 0, "PPM": 0, "WEBP": 13, "HEIF": 6, "AVIF": 10, "JPEG2000": 16}
_UNKNOWN = 24
_PARTS = 8 * 2**20  # bytes: the parts in which pictures are converted, a decoder's tables
_ROWS, _TILE_WIDTH, _TILE_HEIGHT, _BITS, _SAMPLES = 278, 322, 323, 258, 277  # tags of a TIFF


def memory_of(image: Image.Image, data: bytes, *, pixels: int) -> int:
    """Bytes that decoding takes at its peak, all conversions and copies of the file included.

    Args:
        image: opened and, if it can be, set to a smaller scale, but not decoded.
        data: the file's content.
        pixels: at full scale.
    """
    parts = min(_PARTS, 32 * pixels)
    picture = image.width * image.height * (_STORED.get(image.mode, 4) + _converted(image))
    return 2 * len(data) + parts + picture + _working(image, data, pixels)


def _converted(image: Image.Image) -> int:
    """Bytes per pixel of the picture that is made of the decoded one."""
    if image.mode in _GRAY:
        return _GRAY[image.mode]
    is_ready = image.mode in ("L", "RGB") and not image.has_transparency_data
    is_changed = "icc_profile" in image.info or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return 0 if is_ready and not is_changed else 4


def _working(image: Image.Image, data: bytes, pixels: int) -> int:
    """Bytes that the format's decoder needs besides."""
    if image.format in ("JPEG", "MPO"):
        return 0 if _is_one_scan(image, data) else 2 * len(image.getbands()) * pixels
    if image.format == "TIFF":
        return _strip(image, getattr(image, "tag_v2", {}))
    return _WORKING.get(str(image.format), _UNKNOWN) * pixels


def _is_one_scan(image: Image.Image, data: bytes) -> bool:
    """Whether all of a JPEG's components come in its first scan, behind whose header Pillow stands now."""
    file = getattr(image, "fp", None)
    if "progressive" in image.info or file is None:
        return False
    begin = file.tell() - (8 + 2 * len(image.getbands()))  # the header, with its marker
    return data[begin : begin + 2] == b"\xff\xda"


def _strip(image: Image.Image, tags: Any) -> int:
    """Bytes of a TIFF's strip or tile, which is taken apart whole."""
    try:
        bits = max(32, int(max(tags.get(_BITS, (1,)))) * int(tags.get(_SAMPLES, 1)))
        if _TILE_WIDTH in tags:
            return int(tags[_TILE_WIDTH]) * int(tags[_TILE_HEIGHT]) * bits // 8
        rows = min(int(tags.get(_ROWS, image.height)), image.height)
        return image.width * rows * bits // 8
    except (TypeError, ValueError, KeyError):
        return _UNKNOWN * image.width * image.height
