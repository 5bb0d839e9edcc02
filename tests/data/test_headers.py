"""Files that would decode for minutes are refused by their header, and no others."""

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile
from pillow_heif import from_pillow

from libraries.base.errors import ImageError, ImageTooLarge
from libraries.data import boxes
from libraries.data.boxes import check_boxes
from libraries.data.headers import check_header
from libraries.data.images import decode
from tests.data.test_images import WHOLE, encoded, smooth

GRAY = Image.new("L", (16, 16))


def with_segments(count: int, *, kind: bytes = b"\xff\xe1", body: bytes = b"Exif\0\0x") -> bytes:
    """A JPEG with so many further segments."""
    jpeg = encoded(GRAY, "JPEG")
    return jpeg[:2] + (kind + struct.pack(">H", 2 + len(body)) + body) * count + jpeg[2:]


def with_scans(count: int, *, frame: bytes = b"\xc2") -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    jpeg = encoded(smooth(), "JPEG", progressive=True).replace(b"\xff\xc2", b"\xff" + frame)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def with_chunks(count: int, kind: bytes, body: bytes = b"") -> bytes:
    png = encoded(GRAY, "PNG")
    at = png.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:at] + chunk * count + png[at:]


def with_frames(count: int) -> bytes:
    """A WebP with so many frames."""
    frame = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(16) + frame
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + bytes(6) + b"ANIM" + struct.pack("<I", 6)
    body += bytes(6) + frame * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_blocks(count: int) -> bytes:
    """A GIF with so many comments before its picture."""
    gif = encoded(GRAY, "GIF")
    at = gif.index(b",\0\0\0\0")
    return gif[:at] + b"!\xfe\x01a\0" * count + gif[at:]


def tiff(*fields: tuple[int, int, int], big: bool = False) -> bytes:
    """The header of a TIFF with these fields: tag, count, value."""
    form, count = ("<HHQQ", "<Q") if big else ("<HHII", "<H")
    entries = b"".join(struct.pack(form, tag, 4, number, value) for tag, number, value in sorted(fields))
    start = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    return start + struct.pack(count, len(fields)) + entries + bytes(8)


SHAPE = ((256, 1, 1000), (257, 1, 1000), (258, 1, 8), (259, 1, 1), (262, 1, 1), (277, 1, 1))


def runs(length: int) -> bytes:
    """A BMP of runs of one pixel."""
    header = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, length, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + length, 0, 0, 1078) + header + bytes(1024) + b"\1\5" * (length // 2)


def codestream(*, tile: int = 4096, layers: int = 1, precinct: int | None = None, levels: int = 5) -> bytes:
    """The header of a JPEG 2000 of 4096 x 4096 pixels."""
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, 4096, 4096, 0, 0, tile, tile, 0, 0, 1, 7, 1, 1)
    precincts = b"" if precinct is None else bytes([precinct]) * (levels + 1)
    style = bytes([precinct is not None, 0]) + struct.pack(">H", layers) + bytes([0, levels, 4, 4, 0, 1]) + precincts
    style = struct.pack(">H", 2 + len(style)) + style
    return b"\xff\x4f\xff\x51" + size + b"\xff\x52" + style + b"\xff\x90" + bytes(100)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg, scans": (lambda: with_scans(101), "more than 100 scans"),
    "jpeg, arithmetic scans": (lambda: with_scans(17, frame=b"\xca"), "more than 16 scans"),
    "jpeg, metadata": (lambda: with_segments(2_001), "more than 2,000 segments"),
    "jpeg, comments": (lambda: with_segments(2_001, kind=b"\xff\xfe", body=b""), "more than 2,000 segments"),
    "png, private chunks": (lambda: with_chunks(100_001, b"prVt"), "more than 100,000 chunks"),
    "png, data": (lambda: with_chunks(100_001, b"IDAT"), "more than 100,000 chunks"),
    "webp, frames": (lambda: with_frames(100_001), "more than 100,000 chunks"),
    "gif, comments": (lambda: with_blocks(10_001), "more than 20,000 blocks"),
    "tiff, strips": (lambda: tiff(*SHAPE, (273, 100_001, 8), (279, 100_001, 8)), "more than 100,000 strips"),
    "tiff, tiles": (lambda: tiff(*SHAPE, (324, 10**6, 8), (325, 10**6, 8)), "more than 100,000 strips or tiles"),
    "big tiff, tiles": (lambda: tiff(*SHAPE, (324, 10**6, 8), big=True), "more than 100,000 strips or tiles"),
    "tiff, fields": (lambda: tiff(*((tag, 1, 0) for tag in range(5_000))), "more than 4,096 fields"),
    "bmp, runs": (lambda: runs(5 * 2**20), "more than 4,194,304 bytes of run-length code"),
    "ppm, comments": (lambda: b"P2\n" + b"#\n" * 4_000 + b"1 1 255 0 ", "no header in its first 4,096 bytes"),
    "jpeg 2000, tiles": (lambda: codestream(tile=1), "more than 65,535 tiles"),
    "jpeg 2000, precincts": (lambda: codestream(precinct=0), "more than 1,000,000 packets"),
    "jpeg 2000, layers": (lambda: codestream(layers=65_535, precinct=0x77), "more than 1,000,000 packets"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_decode_for_long_is_refused_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(self: object, *_: object) -> None:
        raise AssertionError("it was opened")

    make, reason = HOSTILE[name]
    data = make()
    monkeypatch.setattr(ImageFile.ImageFile, "__init__", opened)
    with pytest.raises(ImageError, match=reason):
        decode(data)


USUAL: dict[str, Callable[[], bytes]] = {
    "a jpeg of 100 scans": lambda: with_scans(85),
    "a jpeg with a long profile": lambda: encoded(smooth(), "JPEG", icc_profile=bytes(3 * 10**6)),
    "a jpeg in another": lambda: with_segments(1, body=b"Exif\0\0" + b"\xff\xda" * 200),
    "a jpeg whose end has markers": lambda: encoded(smooth(), "JPEG") + b"\xff\xda" * 200,
    "a png of small pieces": lambda: with_chunks(5_000, b"prVt"),
    "an animation": lambda: encoded(smooth(), "WEBP", save_all=True, append_images=[smooth()] * 50),
    "a gif with a long comment": lambda: encoded(smooth(), "GIF", comment=b"x" * 100_000),
    "a tiff of one row to a strip": lambda: encoded(smooth(40, 3_000), "TIFF", tiffinfo={278: 1}),
    "a bmp of runs": lambda: runs(1_000) + b"\0\1",
    "a tiled jpeg 2000": lambda: encoded(smooth(300, 200), "JPEG2000", tile_size=(64, 64)),
    **{name: lambda data=data: data for name, data in WHOLE.items()},
}


@pytest.mark.parametrize("name", USUAL)
def test_what_programs_write_passes(name: str) -> None:
    data = USUAL[name]()
    formats = {"\xff": "JPEG", "\x89": "PNG", "R": "WEBP", "G": "GIF", "B": "BMP", "I": "TIFF", "M": "TIFF", "P": "PPM"}
    format = formats.get(chr(data[0]), "HEIF" if data[4:8] == b"ftyp" else "JPEG2000")
    check_header(format, data, max_pixels=10**6)


def test_the_walk_costs_little() -> None:
    """Against the decoding of a small progressive JPEG, which is what it walks through the longest."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8))
    data = encoded(noise, "JPEG", progressive=True, quality=90)
    seconds = {}
    for what, do in (("walk", lambda: check_header("JPEG", data, max_pixels=10**8)), ("decode", lambda: decode(data))):
        times = []
        for _ in range(5):
            begun = time.process_time()
            do()
            times.append(time.process_time() - begun)
        seconds[what] = min(times)
    assert seconds["walk"] < seconds["decode"] / 4


# HEIC and AVIF


def heic(**options: object) -> bytes:
    return encoded(smooth(300, 200), "HEIF", **options)


def test_a_picture_of_parts_and_one_with_transparency_pass() -> None:
    check_boxes(heic(tile_size=64), max_pixels=300 * 200)
    for format in ("HEIF", "AVIF"):
        check_boxes(encoded(smooth().convert("RGBA"), format), max_pixels=48 * 32)


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_a_picture_larger_than_it_says_is_refused(format: str) -> None:
    data = bytearray(encoded(smooth(300, 200), format))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 16, 16)
    with pytest.raises(ImageError):
        decode(bytes(data))


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_a_film_in_the_place_of_a_picture_is_refused(format: str) -> None:
    """The stream of the picture comes many times, in the one piece of the file that is said to be the picture."""
    data = encoded(smooth(), format)
    primary, items = boxes._items(data)
    ((begin, end),) = items[primary].extents
    stream = data[begin:end]
    at = data.index(struct.pack(">I", len(stream)), data.index(b"iloc"))  # the length of the piece
    changed = data[:at] + struct.pack(">I", 20 * len(stream)) + data[at + 4 : end] + stream * 19 + data[end:]
    with pytest.raises(ImageError, match="is a video"):
        decode(changed)


def test_parts_with_too_many_pixels_are_refused() -> None:
    """A picture that says to be small, of parts that are large."""
    data = heic(tile_size=128)
    with pytest.raises(ImageTooLarge, match="parts with more than twice"):
        large = data.replace(struct.pack(">II", 128, 128), struct.pack(">II", 4096, 4096))
        check_boxes(large, max_pixels=10**6)


def test_too_many_parts_are_refused() -> None:
    data = bytearray(heic())
    at = data.index(b"iinf") + 8
    data[at : at + 2] = struct.pack(">H", 5_000)
    with pytest.raises(ImageError, match="more than 1,000 parts"):
        check_boxes(bytes(data), max_pixels=10**6)


def test_of_an_animation_in_avif_only_the_picture_is_read() -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ((200, 30, 30), (30, 200, 30))]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:] * 5)
    assert data[8:12] == b"avis"
    assert np.abs(decode(data).astype(int) - np.asarray(frames[0])).max() <= 6


def test_damaged_boxes_raise_nothing_else() -> None:
    random = np.random.default_rng(0)
    wholes = [heic(tile_size=128), encoded(smooth().convert("RGBA"), "AVIF"), _two_pictures()]
    for turn in range(600):
        data = np.frombuffer(wholes[turn % 3], np.uint8).copy()
        at = random.integers(0, min(len(data), 1_200), random.integers(1, 5))
        data[at] = random.integers(0, 256, len(at))
        try:
            check_boxes(data.tobytes(), max_pixels=10**6)
        except ImageError as error:
            assert "\n" not in str(error)


def _two_pictures() -> bytes:
    file, buffer = from_pillow(smooth()), io.BytesIO()
    file.add_from_pillow(smooth(30, 20))
    file.save(buffer, quality=50)
    return buffer.getvalue()
