"""Pictures part by part are the same as whole ones."""

import numpy as np
import pytest
from PIL import Image

from libraries.data import depth


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 4), (40, 3), (3, 40), (1, 100)])
def test_strips_cover_every_pixel_once(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "STRIP_PIXELS", 8)
    seen = np.zeros(size[::-1], int)
    for left, top, right, bottom in depth.strips(size):
        assert 0 < (right - left) * (bottom - top) <= 8
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()


def test_conversion_and_pixels_are_those_of_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "STRIP_PIXELS", 64)
    pixels = np.random.default_rng(0).integers(0, 256, (37, 21, 3), np.uint8)
    palette = Image.fromarray(pixels).quantize(200)
    converted = depth.in_strips(palette, "RGB", lambda strip: strip.convert("RGB"))
    assert converted.mode == "RGB"
    assert np.array_equal(np.asarray(converted), np.asarray(palette.convert("RGB")))
    assert np.array_equal(depth.rgb_pixels(Image.fromarray(pixels)), pixels)
    gray = Image.fromarray(pixels[..., 0])
    assert np.array_equal(depth.rgb_pixels(gray), np.asarray(gray.convert("RGB")))
