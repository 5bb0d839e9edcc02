"""What an image takes to decode, told by its header."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.data.images import ResizeRule, memory_to_load

RULE = ResizeRule(32)
PIXELS = 400 * 300


def per_pixel(image: Image.Image, kind: str, **options: Any) -> float:
    """Bytes per pixel, without the copies of the file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return (memory_to_load(buffer.getvalue(), RULE) - 2 * len(buffer.getvalue())) / PIXELS


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
    assert memory_to_load(buffer.getvalue(), RULE, max_pixels=PIXELS - 1) == 0
