import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import DownloadError
from libraries.web.download.saving import keep

Make = Callable[..., bytes]


def kept(data: bytes, *, max_pixels: int = 4_000_000, max_side: int = 1000) -> tuple[str, int, int, bytes]:
    result = keep(data, max_pixels=max_pixels, max_side=max_side)
    file = io.BytesIO()
    result.write(file)
    return result.suffix, result.width, result.height, file.getvalue()


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif")],
)
def test_images_within_the_limit_stay_as_they_are(make_picture: Make, form: str, suffix: str) -> None:
    data = make_picture(width=1000, height=1000, form=form)
    assert kept(data) == (suffix, 1000, 1000, data)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "smaller"),
    [((1001, 500), (1000, 500)), ((600, 1800), (333, 1000)), ((4400, 2200), (1000, 500)), ((3000, 1), (1000, 1))],
)
def test_large_images_become_smaller_jpegs(
    make_picture: Make, form: str, size: tuple[int, int], smaller: tuple[int, int]
) -> None:
    data = make_picture(width=size[0], height=size[1], form=form)
    suffix, width, height, content = kept(data, max_pixels=10_000_000)
    assert (suffix, width, height) == (".jpg", *smaller)
    with Image.open(io.BytesIO(content)) as image, Image.open(io.BytesIO(data)) as original:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", smaller)
        reference = np.asarray(original.convert("RGB").resize(smaller, Image.Resampling.LANCZOS), np.float32)
        # 8-bit grey levels: JPEG at quality 95, and decoding at half scale for the largest
        assert np.abs(np.asarray(image, np.float32) - reference).mean() < 1.5


def test_a_fine_pattern_is_averaged_not_sampled() -> None:
    stripes = np.zeros((100, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "PNG")
    *_, content = kept(file.getvalue())
    assert np.abs(np.asarray(Image.open(io.BytesIO(content)), np.float32)[:, 10:-10] - 127.5).max() < 6


def test_a_gray_picture_stays_gray_and_a_transparent_one_is_put_on_white() -> None:
    for mode, colour, expected in (("L", 77, "L"), ("RGBA", (200, 0, 0, 0), "RGB"), ("P", 0, "RGB")):
        file = io.BytesIO()
        Image.new(mode, (1400, 700), colour).save(file, "PNG")
        *size, content = kept(file.getvalue())[1:]
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode, list(image.size)) == ("JPEG", expected, size)
            level = {"L": 77, "RGBA": 255, "P": 0}[mode]
            assert np.abs(np.asarray(image, np.int16) - level).max() <= 2


def test_a_turned_photograph_is_upright_when_scaled(make_picture: Make) -> None:
    exif = Image.Exif()
    exif[274] = 6
    small, large = (make_picture(width=width, height=width // 2, exif=exif) for width in (400, 1600))
    assert kept(small) == (".jpg", 200, 400, small)
    suffix, width, height, content = kept(large)
    with Image.open(io.BytesIO(content)) as image:
        assert (suffix, width, height) == (".jpg", *image.size) == (".jpg", 500, 1000)
        assert 274 not in image.getexif()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [2001, 10_500, 30_000, 2**31 - 1])
def test_bombs_are_recognized_by_their_headers(side: int) -> None:
    with pytest.raises(DownloadError) as raised:
        kept(png_header(side, side))
    assert (raised.value.reason, raised.value.passing) == ("too many pixels", False)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html><html></html>", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", b"%!PS-Adobe"]
)
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(DownloadError, match="not an image"):
        kept(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_half_an_image(make_picture: Make, form: str) -> None:
    data = make_picture(width=200, height=200, form=form)
    with pytest.raises(DownloadError, match="damaged image"):
        kept(data[: len(data) // 2])
