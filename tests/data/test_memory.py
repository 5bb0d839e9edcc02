"""What decoding takes is at most what is said of it by the header; no kind of picture takes many times its size."""

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.data.decoding import MAX_PIXELS, memory_to_decode
from libraries.data.headers import memory_of
from libraries.data.images import ResizeRule, memory_to_load
from libraries.service.service import Limits

SIDE = 1500
PIXELS = SIDE * SIDE

# Forked for every file, so that what one has left does not serve the next.
MEASURE = """
import io, json, os, sys
from PIL import Image
from libraries.data.images import ResizeRule, decode, load_bytes

def status(name):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(name))

small = io.BytesIO()
Image.new("RGB", (64, 64)).save(small, "JPEG")
decode(small.getvalue()), load_bytes(small.getvalue(), ResizeRule(64))
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        data = file.read()
    for how in (lambda: load_bytes(data, ResizeRule(64, white_level=4095)), lambda: decode(data)):
        reading, writing = os.pipe()
        if os.fork() == 0:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the peak is what is taken now
            before = status("VmRSS")
            how()
            os.write(writing, str(status("VmHWM") - before).encode())
            os._exit(0)
        os.wait()
        print(os.read(reading, 100).decode())
"""


def files() -> dict[str, bytes]:
    """A picture of a gradient, of every mode, as formats keep it that take more than its pixels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    gray = ((x + y) // 16 % 256).astype(np.uint8)
    rgb = Image.fromarray(np.dstack([gray, gray[::-1], gray.T]))
    rgba, palette = rgb.copy(), rgb.quantize(16)
    rgba.putalpha(Image.fromarray(gray))
    palette.info["transparency"] = bytes(range(0, 256, 16))
    one_strip = {"compression": "tiff_adobe_deflate", "strip_size": 2**30}
    return {
        "I;16": encoded(Image.fromarray(gray.astype(np.uint16)), "TIFF"),
        "I;16B": encoded(Image.fromarray(gray.astype(">u2")), "TIFF"),
        "I": encoded(Image.fromarray(gray.astype(np.int32)), "TIFF", **one_strip),
        "F": encoded(Image.fromarray(gray.astype(np.float32) / 255), "TIFF", **one_strip),
        "F, stretched": encoded(Image.fromarray(gray.astype(np.float32) * 1e9), "TIFF", **one_strip),
        "1": encoded(Image.fromarray(gray).convert("1"), "TIFF", compression="group4"),
        "L": encoded(Image.fromarray(gray), "JPEG", progressive=True),
        "P with transparency": encoded(palette, "PNG"),
        "P": encoded(rgb.quantize(16), "GIF"),
        "LA": encoded(rgba.convert("LA"), "PNG", compress_level=1),
        "RGBA": encoded(rgba, "PNG", compress_level=1),
        "RGBA, WebP": encoded(rgba, "WEBP", lossless=True, method=0, quality=0),
        "RGB, WebP": encoded(rgb, "WEBP", method=0),
        "RGB, TIFF": encoded(rgb, "TIFF", **one_strip),
        "RGB, progressive": encoded(rgb, "JPEG", progressive=True, subsampling=0),
        "CMYK": encoded(rgb.convert("CMYK"), "TIFF", **one_strip),
        "CMYK, progressive": encoded(rgb.convert("CMYK"), "JPEG", progressive=True, subsampling=0),
        "YCbCr": encoded(rgb.convert("YCbCr"), "TIFF", compression="jpeg"),
        "LAB": encoded(Image.merge("LAB", rgb.split()), "TIFF", **one_strip),
    }


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_decoding_takes_no_more_than_is_said(tmp_path: Path) -> None:
    made = files()
    paths = [tmp_path / str(number) for number in range(len(made))]
    for path, data in zip(paths, made.values(), strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    peaks = iter(map(int, done.stdout.split()))
    found = {}
    for name, data in made.items():
        reduced, full = memory_to_load(data, ResizeRule(64)), memory_to_decode(data, max_pixels=MAX_PIXELS, enough=None)
        for in_full, most in ((False, reduced), (True, full + 7 * PIXELS)):  # as RGB, and the array of it
            peak = next(peaks)
            assert peak <= most, (name, in_full, peak / PIXELS, most / PIXELS)
            found[name, in_full] = peak / PIXELS
    for name, most in (("I;16", 10), ("I;16B", 10), ("I", 15), ("F", 15), ("F, stretched", 15)):
        assert found[name, False] <= most, "whole arrays of wide numbers would take twice as much"


# By the header alone

RULE = ResizeRule(32)
SMALL_PIXELS = 400 * 300


def per_pixel(image: Image.Image, kind: str, **options: Any) -> float:
    """Bytes per pixel, without the copies of the file and the parts in which it is converted."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return (memory_to_load(buffer.getvalue(), RULE) - 2 * len(buffer.getvalue()) - 32 * SMALL_PIXELS) / SMALL_PIXELS


def blank(mode: str) -> Image.Image:
    return Image.new(mode, (400, 300))


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("L", "PNG", 1),
        ("RGB", "PNG", 4),
        ("RGBA", "PNG", 8),
        ("LA", "PNG", 8),
        ("1", "PNG", 2),
        ("I;16", "PNG", 3),
        ("P", "GIF", 5),
        ("RGB", "WEBP", 17),
        ("RGB", "BMP", 4),
    ],
)
def test_modes_and_formats(mode: str, kind: str, expected: float) -> None:
    assert per_pixel(blank(mode), kind) == pytest.approx(expected)


def test_a_jpeg_takes_little_at_reduced_scale_unless_it_comes_in_several_scans() -> None:
    assert per_pixel(blank("RGB"), "JPEG") < 0.3
    assert 6 <= per_pixel(blank("RGB"), "JPEG", progressive=True) < 6.3
    assert 8 <= per_pixel(blank("CMYK"), "JPEG", progressive=True) < 8.6


def test_a_tiff_is_taken_apart_by_strips_or_tiles() -> None:
    floats = Image.fromarray(np.zeros((300, 400), np.float32))
    few = per_pixel(floats, "TIFF", compression="tiff_deflate", tiffinfo={278: 10})
    whole = per_pixel(floats, "TIFF", compression="tiff_deflate", tiffinfo={278: 300})
    assert 5 < few < 5.2 and whole == pytest.approx(9)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_refused_by_its_header_takes_nothing(data: bytes) -> None:
    assert memory_to_load(data, RULE) == 0


def test_what_has_too_many_pixels_is_refused_by_its_header_too() -> None:
    buffer = io.BytesIO()
    blank("RGB").save(buffer, "PNG")
    assert memory_to_load(buffer.getvalue(), RULE, max_pixels=SMALL_PIXELS - 1) == 0


def test_a_service_takes_the_largest_pictures_of_phones() -> None:
    heic = SimpleNamespace(
        **{"format": "HEIF", "mode": "RGB", "width": 8064, "height": 6048},
        **{"info": {}, "tile": [], "has_transparency_data": False},
    )
    assert memory_of(heic, bytes(8 * 2**20), pixels=8064 * 6048) <= Limits().memory
