"""What an image costs to decode, by its header: its memory; and files that would take minutes are refused.

Every rule of `check_header` counts something that costs time without being pixels: scans, strips, chunks, blocks,
tiles, pictures. The limits are far beyond what programs write, and keep decoding 50 megapixels from 32 MB to a few
seconds.

Memory was measured with Pillow 13 as the peak resident size, in bytes per pixel, beyond the picture itself: WebP 12 to
13 (two canvases and a copy), JPEG 2000 15, AVIF 5 (colours at a quarter of the resolution), HEIF 3.4 (likewise) to 5.6
(full resolution), and 2 per pixel and component for a JPEG with several scans, whatever its decoding scale.
"""

import re
import struct
from collections.abc import Callable
from typing import Any

from PIL import Image

from libraries.base.errors import ImageError
from libraries.data.boxes import check_boxes

MOST_SCANS = 100  # of a JPEG; programs write up to about 12
_MOST_ARITHMETIC_SCANS = 16  # fewer, since these compress so well that every scan may be a whole one
_MOST_SEGMENTS = 2_000  # of a JPEG before its first scan; long profiles and depth maps take a few hundred
_MOST_CHUNKS = 100_000  # of a PNG or WebP
_MOST_BLOCKS = 20_000  # of a GIF before its first picture, of up to 255 bytes each
_MOST_STRIPS = 100_000  # or tiles, of a TIFF
_MOST_RUNS = 4 * 2**20  # bytes of a run-length coded BMP, which Pillow decodes in Python
_MOST_PACKETS = 1_000_000  # of a JPEG 2000
_PPM_HEADER = 4_096  # bytes, with comments

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffed zero, no restart, no fill
_SOS, _EOI = 0xDA, 0xD9
_ALONE = {0x01, 0xD8}  # markers that no segment follows
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_OFFSETS_AND_LENGTHS = {273, 279, 324, 325}  # of strips and tiles
_DNG_VERSION, _NEW_SUBFILE_TYPE, _SUB_IFDS = 50706, 254, 330
_PPM_FIELDS = re.compile(rb"P[1-6f](?:(?:\s|#[^\r\n]*[\r\n])+[-+.\deE]+){2}\s")
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # bytes per pixel; all others: 4
_GRAY = {"1": 1, "I": 1, "F": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I;16N": 1}  # converted to one byte of gray
_WORKING = {"PNG": 0, "GIF": 0, "BMP": 0, "PPM": 0, "WEBP": 13, "HEIF": 6, "AVIF": 10, "JPEG2000": 16}
_UNKNOWN = 24
_PARTS = 8 * 2**20  # bytes: the parts in which pictures are converted, a decoder's tables
_ROWS, _TILE_WIDTH, _TILE_HEIGHT, _BITS, _SAMPLES = 278, 322, 323, 258, 277  # tags of a TIFF


def check_header(format: str, data: bytes, *, max_pixels: int) -> None:
    """Refuse a file that would take too long to decode for what it shows.

    Args:
        format: as Pillow names it.
        data: the file's content.
        max_pixels: the limit for images.

    Raises:
        ImageError: it is such a file.
    """
    if format in ("HEIF", "AVIF"):
        check_boxes(data, max_pixels=max_pixels)
    elif format in _WALKS:
        try:
            _WALKS[format](data)
        except (struct.error, IndexError):
            return  # cut off, which decoding it reports


def _refuse_more(count: int, most: int, what: str) -> None:
    if count > most:
        raise ImageError(f"has more than {most:,} {what}: save it again")


# JPEG (ITU-T T.81, annex B)


def _check_jpeg(data: bytes) -> None:
    """Count segments and scans. The data between markers is skipped by a search; one complete scan ends the walk."""
    at, segments, scans, most, components = 2, 0, 0, MOST_SCANS, 0
    while (match := _MARKER.search(data, at)) is not None:
        marker, at = data[match.start() + 1], match.end()
        if marker == _EOI:
            return
        if marker in _ALONE:
            continue
        if marker in _FRAMES:
            components = data[at + 7]
            most = _MOST_ARITHMETIC_SCANS if marker in _ARITHMETIC else MOST_SCANS
            is_progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
        elif marker == _SOS:
            scans += 1
            _refuse_more(scans, most, "scans")
            if components and not is_progressive and data[at + 2] == components:
                return
        segments += scans == 0
        _refuse_more(segments, _MOST_SEGMENTS, "segments before its first scan")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))


# PNG and WebP: chunks


def _check_png(data: bytes) -> None:
    at, count = 8, 0
    while at + 8 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        count += 1
        if count > _MOST_CHUNKS:
            _refuse_more(count, _MOST_CHUNKS, "chunks")


def _check_webp(data: bytes) -> None:
    at, count = 12, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
        count += 1
        if count > _MOST_CHUNKS:
            _refuse_more(count, _MOST_CHUNKS, "chunks")


# GIF


def _check_gif(data: bytes) -> None:
    """Count the blocks of the extensions before the first picture."""
    at, count = 13, 0
    if data[10] & 0x80:
        at += 3 << ((data[10] & 7) + 1)
    while at < len(data) and data[at] != 0x2C and data[at] != 0x3B:
        is_extension = data[at] == 0x21
        at += 2 if is_extension else 1
        count += 1
        while is_extension and data[at]:
            at += 1 + data[at]
            count += 1
            if count > _MOST_BLOCKS:
                break
        at += is_extension
        _refuse_more(count, _MOST_BLOCKS, "blocks before its first picture")


# TIFF (revision 6.0; BigTIFF: libtiff.gitlab.io/libtiff/specification/bigtiff.html)


def _check_tiff(data: bytes) -> None:
    """Count strips and tiles of the first picture; and check that it is not a preview in a raw camera file."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    at = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)[0]
    count = struct.unpack_from(order + ("Q" if is_big else "H"), data, at)[0]
    _refuse_more(count, 4_096, "fields")
    layout = order + ("HHQQ" if is_big else "HHII")
    at += 8 if is_big else 2
    fields = {}
    for tag, _, length, value in struct.iter_unpack(layout, data[at : at + count * struct.calcsize(layout)]):
        fields[tag] = value
        if tag in _OFFSETS_AND_LENGTHS:
            _refuse_more(length, _MOST_STRIPS, "strips or tiles")
    if _DNG_VERSION in fields or (_SUB_IFDS in fields and fields.get(_NEW_SUBFILE_TYPE) == 1):
        raise ImageError("is a raw camera file, which is not read: develop it to JPEG, PNG or TIFF")


# BMP


def _check_bmp(data: bytes) -> None:
    if struct.unpack_from("<I", data, 14)[0] >= 40 and struct.unpack_from("<I", data, 30)[0] in (1, 2):
        _refuse_more(len(data), _MOST_RUNS, "bytes of run-length code")


# PBM, PGM and PPM


def _check_ppm(data: bytes) -> None:
    """Check that the header is short: Pillow reads it byte by byte."""
    if _PPM_FIELDS.match(data[:_PPM_HEADER]) is None:
        raise ImageError(f"has no header in its first {_PPM_HEADER:,} bytes")


# JPEG 2000 (ITU-T T.800, annex A)


def _check_jpeg2000(data: bytes) -> None:
    """Limit the number of packets that tiles, layers, resolutions and precincts make."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return
    x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(">8I", data, at + 8)
    components = struct.unpack_from(">H", data, at + 40)[0]
    if not tile_width or not tile_height:
        return
    across, down = -(-(x1 - tile_x) // tile_width), -(-(y1 - tile_y) // tile_height)
    _refuse_more(across * down, 65_535, "tiles")
    at += 2
    while data[at : at + 2] not in (b"\xff\x90", b"\xff\xd9", b""):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker in (0xFF52, 0xFF53):  # COD, and COC of one component
            packets = _packets(data, at, marker, min(tile_width, x1 - x0), min(tile_height, y1 - y0), components)
            _refuse_more(packets * across * down, _MOST_PACKETS, "packets")
        at += 2 + max(2, length)


def _packets(data: bytes, at: int, marker: int, width: int, height: int, components: int) -> int:
    """Packets in a tile: one for each layer and precinct of each resolution of each component."""
    if marker == 0xFF52:
        style, layers, levels = data[at + 4], struct.unpack_from(">H", data, at + 6)[0], data[at + 9]
        sizes = data[at + 14 : at + 14 + levels + 1]
    else:
        skipped = 1 if components < 257 else 2
        style, layers, levels = data[at + 4 + skipped], 1, data[at + 5 + skipped]
        sizes = data[at + 10 + skipped : at + 10 + skipped + levels + 1]
    precincts = 0
    for level in range(min(levels, 32) + 1):
        size = sizes[level] if style & 1 and level < len(sizes) else 0xFF
        scale = levels - level
        precincts += -(-width // (1 << (scale + (size & 15)))) * -(-height // (1 << (scale + (size >> 4))))
    return int(layers * precincts * components)


_WALKS: dict[str, Callable[[bytes], None]] = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "WEBP": _check_webp,
    "GIF": _check_gif,
    "BMP": _check_bmp,
    "TIFF": _check_tiff,
    "PPM": _check_ppm,
    "JPEG2000": _check_jpeg2000,
}


def memory_of(image: Image.Image, data: bytes, *, pixels: int) -> int:
    """Peak memory of decoding [bytes], including all conversions and copies of the file.

    Args:
        image: opened and, where possible, set to a reduced scale, but not decoded.
        data: the file's content.
        pixels: at full scale.
    """
    parts = min(_PARTS, 32 * pixels)
    picture = image.width * image.height * (_STORED.get(image.mode, 4) + _converted(image))
    return 2 * len(data) + parts + picture + _working(image, data, pixels)


def _converted(image: Image.Image) -> int:
    """Bytes per pixel of the picture that the decoded one is converted to."""
    if image.mode in _GRAY:
        return _GRAY[image.mode]
    is_ready = image.mode in ("L", "RGB") and not image.has_transparency_data
    is_changed = "icc_profile" in image.info or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return 0 if is_ready and not is_changed else 4


def _working(image: Image.Image, data: bytes, pixels: int) -> int:
    """Bytes that the format's decoder needs in addition."""
    if image.format in ("JPEG", "MPO"):
        return 0 if _is_one_scan(image, data) else 2 * len(image.getbands()) * pixels
    if image.format == "TIFF":
        return _strip(image, getattr(image, "tag_v2", {}))
    return _WORKING.get(str(image.format), _UNKNOWN) * pixels


def _is_one_scan(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG's first scan, whose header Pillow has just read, has all components."""
    file = getattr(image, "fp", None)
    if "progressive" in image.info or file is None:
        return False
    begin = file.tell() - (8 + 2 * len(image.getbands()))  # the header, with its marker
    return data[begin : begin + 2] == b"\xff\xda"


def _strip(image: Image.Image, tags: Any) -> int:
    """Bytes of a TIFF's strip or tile, which is decoded as a whole."""
    try:
        bits = max(32, int(max(tags.get(_BITS, (1,)))) * int(tags.get(_SAMPLES, 1)))
        if _TILE_WIDTH in tags:
            return int(tags[_TILE_WIDTH]) * int(tags[_TILE_HEIGHT]) * bits // 8
        rows = min(int(tags.get(_ROWS, image.height)), image.height)
        return image.width * rows * bits // 8
    except (TypeError, ValueError, KeyError):
        return _UNKNOWN * image.width * image.height
