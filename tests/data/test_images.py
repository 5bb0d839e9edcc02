"""Every kind of file that may come in, every kind that must be refused, and what fitting does to the pixels."""

import contextlib
import hashlib
import io
import itertools
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin
from pillow_heif import from_pillow
from sklearn.datasets import load_sample_images

from libraries.base.errors import ImageError, ParameterError
from libraries.data import decoding, images
from libraries.data.images import ImageFacts, ResizeRule, area, decode, fit, inspect, load, load_bytes


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    if format == "HEIF":  # which is not registered with Pillow
        from_pillow(image).save(file, **{"quality": 95, "chroma": 444, **options})
    else:
        image.save(file, format, **options)
    return file.getvalue()


def smooth(width: int = 48, height: int = 32) -> Image.Image:
    """A colour gradient without symmetry: red grows to the right, green downwards, one corner is blue."""
    y, x = np.mgrid[:height, :width]
    blue = np.where((x < width / 3) & (y < height / 3), 200.0, 20.0)
    return Image.fromarray(np.stack([255 * x / width, 255 * y / height, blue], 2).astype(np.uint8))


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Two sharp photographs, 640 x 427."""
    return [Image.fromarray(image) for image in load_sample_images().images]


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int))


# Colour modes


RGB = smooth()
GRAY = RGB.convert("L")
RAMP = np.rint(np.linspace(0, 65535, 48 * 32)).reshape(32, 48)
RAMP_8 = np.rint(RAMP / 257).astype(np.uint8)


def on_white(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(RAMP_8))
    return image


def palette_with_alpha() -> Image.Image:
    image = RGB.quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def of_gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


MODES: dict[str, tuple[bytes, np.ndarray, int]] = {  # file, expected RGB, largest difference allowed
    "rgb png": (encoded(RGB, "PNG"), np.asarray(RGB), 0),
    "rgb bmp": (encoded(RGB, "BMP"), np.asarray(RGB), 0),
    "rgb tiff": (encoded(RGB, "TIFF"), np.asarray(RGB), 0),
    "rgb lzw tiff": (encoded(RGB, "TIFF", compression="tiff_lzw"), np.asarray(RGB), 0),
    "rgb webp": (encoded(RGB, "WEBP", lossless=True), np.asarray(RGB), 0),
    "gray png": (encoded(GRAY, "PNG"), of_gray(GRAY), 0),
    "gray jpeg": (encoded(GRAY, "JPEG", quality=100), of_gray(GRAY), 3),
    "1 bit png": (encoded(GRAY.convert("1"), "PNG"), of_gray(GRAY.convert("1").convert("L")), 0),
    "1 bit tiff": (
        encoded(GRAY.convert("1"), "TIFF", compression="group4"),
        of_gray(GRAY.convert("1").convert("L")),
        0,
    ),
    "palette png": (encoded(RGB.quantize(16), "PNG"), np.asarray(RGB.quantize(16).convert("RGB")), 0),
    "palette bmp": (encoded(RGB.quantize(16), "BMP"), np.asarray(RGB.quantize(16).convert("RGB")), 0),
    "palette gif": (encoded(RGB.quantize(16), "GIF"), np.asarray(RGB.quantize(16).convert("RGB")), 0),
    "palette with alpha": (encoded(palette_with_alpha(), "PNG"), on_white(palette_with_alpha()), 1),
    "gray with alpha": (encoded(with_alpha(GRAY), "PNG"), on_white(with_alpha(GRAY)), 1),
    "rgba png": (encoded(with_alpha(RGB), "PNG"), on_white(with_alpha(RGB)), 1),
    "rgba webp": (encoded(with_alpha(RGB), "WEBP", lossless=True, exact=True), on_white(with_alpha(RGB)), 1),
    "rgba tiff": (encoded(with_alpha(RGB), "TIFF"), on_white(with_alpha(RGB)), 1),
    "cmyk tiff": (encoded(RGB.convert("CMYK"), "TIFF"), np.asarray(RGB), 2),
    "cmyk jpeg, Adobe's inverted": (
        encoded(RGB.convert("CMYK"), "JPEG", quality=100, subsampling=0),
        np.asarray(RGB),
        16,
    ),
    "lab tiff": (encoded(Image.new("LAB", (48, 32), (128, 128, 128)), "TIFF"), np.full((32, 48, 3), 119), 2),
    "16 bit png": (encoded(Image.fromarray(RAMP.astype(np.uint16)), "PNG"), of_gray(RAMP_8), 0),
    "16 bit tiff": (encoded(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"), of_gray(RAMP_8), 0),
    "32 bit tiff in 0..65535": (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), of_gray(RAMP_8), 0),
    "32 bit tiff, negative": (encoded(Image.fromarray((RAMP * 9 - 1000).astype(np.int32)), "TIFF"), of_gray(RAMP_8), 1),
    "float tiff in 0..1": (encoded(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"), of_gray(RAMP_8), 0),
    "float tiff in 0..255": (encoded(Image.fromarray((RAMP / 257).astype(np.float32)), "TIFF"), of_gray(RAMP_8), 0),
    "float tiff, any range": (encoded(Image.fromarray((RAMP * 1e30).astype(np.float32)), "TIFF"), of_gray(RAMP_8), 1),
}


@pytest.mark.parametrize("name", MODES)
def test_every_colour_mode_becomes_rgb(name: str) -> None:
    data, expected, tolerance = MODES[name]
    pixels = decode(data)
    assert pixels.dtype == np.uint8
    assert difference(pixels, expected).max() <= tolerance
    assert pixels.flags.writeable and pixels.flags.c_contiguous  # PyTorch warns of anything else
    rule = ResizeRule(20, detail=2.0)  # JPEGs at full scale
    assert difference(load_bytes(data, rule), fit(pixels, rule)).max() <= 1


def test_ycck_jpeg() -> None:
    """Adobe's other four-colour JPEG: luma and chroma of the inverted inks, marked by the transform flag 2."""
    inks = Image.merge("CMYK", [Image.new("L", (16, 16), level) for level in (200, 90, 40, 30)])
    data = bytearray(encoded(inks, "JPEG", quality=100, subsampling=0))
    flag = data.index(b"Adobe") + 11
    data[flag] = 2
    y, cb, cr, k = (255 - level for level in (200, 90, 40, 30))  # what is stored is now read as Y Cb Cr K
    r, g, b = y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)
    # libjpeg turns YCC into CMY = 255 - RGB; Pillow, inverting, into inks RGB and 255 - K; paper is what inks leave
    expected = [(255 - np.clip(level, 0, 255)) * k / 255 for level in (r, g, b)]
    assert np.abs(decode(bytes(data)).reshape(-1, 3) - expected).max() <= 3


def test_constant_and_non_finite_floats() -> None:
    assert not decode(encoded(Image.new("F", (4, 4), 1e6), "TIFF")).any()
    values = np.array([[0, np.nan], [np.inf, 1]], np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"))[..., 0].tolist() == [[0, 0], [0, 255]]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ((200, 30, 30), (30, 200, 30), (30, 30, 200))]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert difference(decode(data), np.asarray(frames[0])).max() <= 4


# Orientation


TURNS = [(format, orientation) for format in ("JPEG", "PNG", "WEBP", "TIFF") for orientation in range(1, 9)]


def rotated(image: Image.Image, format: str, orientation: int) -> bytes:
    """A file that shows `image` when its EXIF orientation is obeyed."""
    turn = decoding.UPRIGHT.get(orientation)
    inverse = {
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    }
    stored = image if turn is None else image.transpose(inverse.get(turn, turn))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    return encoded(stored, format, exif=exif, **options)


@pytest.mark.parametrize(("format", "orientation"), TURNS)
def test_exif_orientation_is_applied(format: str, orientation: int, tmp_path: Path) -> None:
    upright = smooth(203, 117)
    data = rotated(upright, format, orientation)
    assert difference(decode(data), np.asarray(upright)).mean() < 1
    for mode in ("pad", "crop", "stretch"):
        rule = ResizeRule(31, mode)  # type: ignore[arg-type]
        error = difference(load_bytes(data, rule), fit(np.asarray(upright), rule))
        assert error.mean() < 1 and np.percentile(error, 99) <= 12  # a JPEG is decoded at reduced scale here
    (tmp_path / "a").write_bytes(data)
    facts = inspect(tmp_path / "a")
    assert (facts.width, facts.height) == (203, 117)


def test_orientation_matches_pillow() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = encoded(RGB, "PNG", exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert np.array_equal(decode(data), np.asarray(expected))


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40]
)
def test_damaged_exif_leaves_the_image_as_it_is(exif: bytes) -> None:
    plain = encoded(RGB, "JPEG")
    assert np.array_equal(decode(encoded(RGB, "JPEG", exif=exif)), decode(plain))


# What is refused


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (body, b"IDAT" + zlib.compress(b"\0" * 999))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    return data[:at] + struct.pack(layout, *values) + data[at + struct.calcsize(layout) :]


def tiff_of(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def webp_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body

    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + (47).to_bytes(3, "little") + (31).to_bytes(3, "little") + bytes(4)
    body = chunk(b"VP8X", bytes([2, 0, 0, 0]) + size) + chunk(b"ANIM", bytes(6))
    return chunk(b"RIFF", b"WEBP" + body + chunk(b"ANMF", frame + encoded(RGB, "WEBP", lossless=True)[12:]))


def gif_frame_of(width: int, height: int) -> bytes:
    """A small screen with a first frame that is much larger."""
    data = encoded(GRAY, "GIF")
    return patched(data, data.index(b",\0\0\0\0") + 5, "<HH", width, height)


def bombs(side: int) -> dict[str, bytes]:
    jpeg = encoded(RGB, "JPEG")
    return {
        "png": png_header(side, side),
        "jpeg": patched(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", side, side),
        "gif": patched(encoded(GRAY, "GIF"), 6, "<HH", side, side),
        "gif frame": gif_frame_of(side, side),
        "bmp": patched(encoded(RGB, "BMP"), 18, "<ii", side, side),
        "tiff": tiff_of(side, side),
        "webp": webp_of(min(side, 16_383), min(side, 16_383)),
    }


BOMBS = {f"{name} {side}": data for side in (11_000, 30_000) for name, data in bombs(side).items()}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(self: object) -> None:
        raise AssertionError("a bomb was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(ImageError, match=r"pixels"):
        decode(BOMBS[name])


def test_the_limit_on_pixels_is_exact() -> None:
    data = encoded(RGB, "PNG")
    assert decode(data, max_pixels=48 * 32).shape == (32, 48, 3)
    with pytest.raises(ImageError, match="48 x 32 pixels, more than the 1,535 allowed"):
        decode(data, max_pixels=48 * 32 - 1)


WHOLE = {
    "jpeg": encoded(smooth(300, 200), "JPEG"),
    "progressive jpeg": encoded(smooth(300, 200), "JPEG", progressive=True),
    "cmyk jpeg": encoded(smooth(300, 200).convert("CMYK"), "JPEG"),
    "png": encoded(smooth(300, 200), "PNG"),
    "lossy webp": encoded(RGB, "WEBP"),
    "lossless webp": encoded(RGB, "WEBP", lossless=True),
    "gif": encoded(RGB, "GIF"),
    "bmp": encoded(RGB, "BMP"),
    "raw tiff": encoded(RGB, "TIFF"),
    "lzw tiff": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "deflate tiff": encoded(RGB, "TIFF", compression="tiff_deflate"),
    "heic": encoded(smooth(300, 200), "HEIF"),
    "heic of parts": encoded(smooth(300, 200), "HEIF", tile_size=128),
    "avif": encoded(smooth(300, 200), "AVIF", speed=10),
    "jpeg 2000": encoded(smooth(300, 200), "JPEG2000"),
    "ppm": encoded(RGB, "PPM"),
    "ppm of numbers": b"P2\n3 20\n100\n" + b"# one\n0 50 100\n" * 20,
}


@pytest.mark.parametrize("part", [0.02, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("name", WHOLE)
def test_truncated_files_are_refused(name: str, part: float, tmp_path: Path) -> None:
    data = WHOLE[name][: int(part * len(WHOLE[name]))]
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    for attempt in (lambda: decode(data, path=path), lambda: load(path, ResizeRule(16)), lambda: inspect(path)):
        with pytest.raises(ImageError) as caught:
            attempt()
        assert caught.value.path == path and str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg"])
@pytest.mark.parametrize("at_least", [None, 20])
def test_a_jpeg_that_misses_its_last_bytes_is_refused_at_any_scale(name: str, at_least: int | None) -> None:
    for missing in (1, 2, 3, 10, 100):
        with pytest.raises(ImageError, match="truncated"):
            decode(WHOLE[name][:-missing], at_least=at_least)


NOT_IMAGES = {
    "text": (b"This is not an image.", "is not a whole JPEG, PNG"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "is not a whole"),
    "zeros": (bytes(4096), "is not a whole"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n",
        "is a PostScript document, which is not read: export it as PNG",
    ),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing, which is not read: export it as PNG"),
    "ico": (encoded(RGB.resize((16, 16)), "ICO"), "is an icon, which is not read"),
    "pdf": (b"%PDF-1.7\n", "is a PDF document, which is not read"),
    "jpeg magic alone": (b"\xff\xd8\xff\xe0", "cannot be decoded"),
    "png magic alone": (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
    "heic brand alone": (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400),
        "is a HEIC or AVIF file that holds no picture",
    ),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    content, reason = NOT_IMAGES[name]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"picture\.jpg: {reason}"):
        load(path, ResizeRule(16))


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_bytes_never_raise_anything_else(name: str) -> None:
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        data = np.frombuffer(WHOLE[name], np.uint8).copy()
        at = random.integers(0, len(data) if random.random() < 0.5 else 64, size=random.integers(1, 8))
        data[at] = random.integers(0, 256, size=len(at))
        try:
            outcomes.add(decode(data.tobytes(), max_pixels=1_000_000).dtype.name)
        except ImageError as error:
            outcomes.add("refused")
            assert "\n" not in str(error)
    assert "refused" in outcomes and outcomes <= {"refused", "uint8"}


# Files


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, reason: str) -> None:
        for attempt in (lambda: load(path, ResizeRule(16)), lambda: inspect(path)):
            with pytest.raises(ImageError, match=reason) as caught:
                attempt()
            assert caught.value.path == path

    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.jpg", "does not exist")
    refused(tmp_path / "null\0.jpg", "cannot be read")
    refused(tmp_path / ("long" * 200), "cannot be read")
    (tmp_path / "empty.jpg").touch()
    refused(tmp_path / "empty.jpg", r"is empty \(0 bytes\)")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(decoding.MAX_BYTES + 1)  # sparse: takes no room
    refused(tmp_path / "large.jpg", "268,435,457 bytes, more than the 268,435,456 allowed")
    (tmp_path / "secret.jpg").write_bytes(WHOLE["jpeg"])

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read everything: chmod would not do
    refused(tmp_path / "secret.jpg", "cannot be read: Permission denied")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs Unix")
def test_pipes_devices_and_broken_links(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "good.jpg").write_bytes(WHOLE["jpeg"])
    (tmp_path / "link.jpg").symlink_to("good.jpg")
    reasons = {
        tmp_path / "pipe.jpg": "is not a regular file",
        Path("/dev/zero"): "is not a regular file",
        tmp_path / "broken.jpg": r"is a broken link to gone\.jpg",
        tmp_path / "loop.jpg": "cannot be read",
    }
    for path, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            load(path, ResizeRule(16))
    assert np.array_equal(load(tmp_path / "link.jpg", ResizeRule(16)), load(tmp_path / "good.jpg", ResizeRule(16)))


@pytest.mark.parametrize("name", ["Käse & Brötchen 食.jpg", "no suffix", "wrong.png"])
def test_inspect_gives_the_facts(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE["jpeg"])
    digest = hashlib.sha256(WHOLE["jpeg"]).hexdigest()
    facts = inspect(path)
    assert facts == inspect(str(path)) == ImageFacts(300, 200, digest, len(WHOLE["jpeg"]), facts.tiny, facts.small)
    assert facts.tiny.shape == (16, 17) and facts.tiny.dtype == np.uint8
    assert facts.small.shape == (171, 256, 3) and facts.small.dtype == np.uint8


# Warnings


def jpeg_with_damaged_exif() -> bytes:
    # a directory of one entry whose value is beyond the end: Pillow warns of corrupt EXIF data
    return encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0" + struct.pack("<HHII", 0x010F, 2, 900, 4000))


def png_with_bad_animation() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add(b"acTL", struct.pack(">II", 0, 0))
    return encoded(RGB, "PNG", pnginfo=info)


LOUD: dict[str, Callable[[], bytes]] = {
    "transparent palette": lambda: encoded(palette_with_alpha(), "PNG"),
    "damaged exif": jpeg_with_damaged_exif,
    "bad animation": png_with_bad_animation,
    "nearly a bomb": lambda: png_header(10_000, 9_500),
}


@pytest.mark.parametrize("name", LOUD)
def test_pillow_warnings_never_leak(name: str) -> None:
    data = LOUD[name]()

    def attempt(_: int) -> str:
        with contextlib.suppress(ImageError):
            return str(decode(data).shape)
        return "refused"

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        outcomes = set(pool.map(attempt, range(1 if name == "nearly a bomb" else 32)))
        filters = len(warnings.filters)
        attempt(0)
        assert len(warnings.filters) == filters  # the filter is set once
    assert not caught
    assert outcomes == ({"refused"} if name == "nearly a bomb" else {"(32, 48, 3)"})


def test_damaged_exif_makes_pillow_warn_otherwise() -> None:
    with pytest.warns(UserWarning, match="EXIF|[Tt]ag"):
        Image.open(io.BytesIO(jpeg_with_damaged_exif())).getexif()


def test_truncated_images_stay_refused_everywhere() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# Fitting


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (31, 97), (50, 50), (300, 200), (1, 1), (2, 1), (97, 3)])
def test_fit_is_what_pillow_does(size: tuple[int, int], interpolation: str) -> None:
    picture = smooth(*size)
    method = Image.Resampling[interpolation.upper()]
    exact = max(size) < 4 * 48  # beyond, a box filter goes before
    square = (48, 48)
    expected = {
        "stretch": picture.resize(square, method),
        "crop": ImageOps.fit(picture, square, method),
        "pad": ImageOps.pad(picture, square, method, color=(9, 8, 7)),
    }
    for mode, reference in expected.items():
        rule = ResizeRule(48, mode, interpolation, (9, 8, 7))  # type: ignore[arg-type]
        fitted = fit(np.asarray(picture), rule)
        assert fitted.dtype == np.uint8 and fitted.flags.writeable and fitted.flags.c_contiguous
        if mode == "pad":  # Pillow rounds the place of the picture, half to even; here it is rounded down
            inside = (np.asarray(reference) != (9, 8, 7)).any(axis=2).sum()
            assert abs(int((fitted != (9, 8, 7)).any(axis=2).sum()) - int(inside)) <= 48
        elif exact:
            assert np.array_equal(fitted, np.asarray(reference))
        else:
            assert difference(fitted, np.asarray(reference)).mean() < 0.5


def test_pad_keeps_proportions_and_centres() -> None:
    white = np.full((20, 80, 3), 255, np.uint8)
    fitted = fit(white, ResizeRule(40, "pad", fill=(1, 2, 3)))
    assert (fitted[15:25] == 255).all()
    assert (fitted[:15] == (1, 2, 3)).all() and (fitted[25:] == (1, 2, 3)).all()


def test_crop_takes_the_middle() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (fit(image, ResizeRule(10, "crop")) == 255).all()


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_single_pixel_and_a_panorama(mode: str, format: str) -> None:
    rule = ResizeRule(224, mode)  # type: ignore[arg-type]
    pixel = load_bytes(encoded(Image.new("RGB", (1, 1), (90, 90, 90)), format), rule)
    assert difference(pixel, np.full((224, 224, 3), 90)).max() <= 1
    for size in ((10_000, 10), (10, 10_000)):
        fitted = load_bytes(encoded(Image.new("RGB", size, (255, 255, 255)), format), rule)
        filled = (fitted == 255).all(axis=2)
        assert filled.sum() == (224 if mode == "pad" else 224 * 224)  # pad: a line
        if mode == "pad":
            assert filled[112 if size[0] > size[1] else slice(None)].sum() in (0, 224)


def test_gray_stays_one_channel_until_the_end_with_the_same_result(photographs: list[Image.Image]) -> None:
    gray = photographs[0].convert("L")
    for rule in (ResizeRule(224), ResizeRule(300, "crop", "bilinear")):
        fitted = load_bytes(encoded(gray, "PNG"), rule)
        assert np.array_equal(fitted, fit(np.asarray(gray.convert("RGB")), rule))


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (31, 97), (50, 50), (300, 200)])
def test_area_is_where_a_fitted_image_is_in_the_picture(size: tuple[int, int], mode: str) -> None:
    """A bright spot, found in the fitted image, is where it is in the picture, to half a fitted pixel."""
    rule = ResizeRule(48, mode, "bilinear")  # type: ignore[arg-type]
    left, top, right, bottom = area(size, rule)
    for x, y in itertools.product((0.45, 0.52, 0.6), repeat=2):  # fractions; a crop sees the middle alone
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        column, row = int(x * size[0]), int(y * size[1])
        picture[row, column] = 255
        light = fit(picture, rule)[:, :, 0].astype(float)
        columns, rows = (np.arange(48) + 0.5) / 48 @ light.T, (np.arange(48) + 0.5) / 48 @ light
        found = left + (right - left) * columns.sum() / light.sum(), top + (bottom - top) * rows.sum() / light.sum()
        expected = (column + 0.5) / size[0], (row + 0.5) / size[1]
        np.testing.assert_allclose(found, expected, atol=0.5 / 48)


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("pad", (200, 100), (0.0, -0.5, 1.0, 1.5)),
        ("pad", (100, 200), (-0.5, 0.0, 1.5, 1.0)),
        ("pad", (100, 100), (0.0, 0.0, 1.0, 1.0)),
        ("crop", (200, 100), (0.25, 0.0, 0.75, 1.0)),
        ("crop", (100, 400), (0.0, 0.375, 1.0, 0.625)),
        ("stretch", (200, 100), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_areas(mode: str, size: tuple[int, int], expected: tuple[float, ...]) -> None:
    assert area(size, ResizeRule(64, mode)) == expected  # type: ignore[arg-type]


# Scaled decoding


SIDES = (32, 50, 64, 96, 112, 133, 140, 150, 160, 213, 224, 300)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(("detail", "mean", "most"), [(1.75, 1.3, 14), (1.0, 2.7, 30)])
def test_scaled_decoding_is_close_to_full_decoding(
    mode: str, interpolation: str, detail: float, mean: float, most: float, photographs: list[Image.Image]
) -> None:
    """Against full decoding and Pillow's antialiased resize: mean and 99.9th percentile, in grey levels."""
    for (number, photograph), quality in itertools.product(enumerate(photographs), (75, 95)):
        data = encoded(photograph, "JPEG", quality=quality, subsampling=2 if quality == 75 else 0)
        full = Image.open(io.BytesIO(data))
        for side in SIDES[number::2]:
            rule = ResizeRule(side, mode, interpolation, detail=detail)  # type: ignore[arg-type]
            box, size = images._plan(full.size, rule)
            reference = np.asarray(full.resize(size, Image.Resampling[interpolation.upper()], box=box))
            top, left = (side - size[1]) // 2, (side - size[0]) // 2
            ours = load_bytes(data, rule)[top : top + size[1], left : left + size[0]]
            error = difference(ours, reference)
            assert error.mean() < mean, (side, error.mean())
            assert np.percentile(error, 99.9) <= most, (side, np.percentile(error, 99.9))


def test_scaled_decoding_is_used(photographs: list[Image.Image]) -> None:
    """At 224 a 640 x 427 photograph is decoded at half scale, a four times larger one at an eighth."""
    small = encoded(photographs[0], "JPEG")
    large = encoded(photographs[0].resize((2560, 1708)), "JPEG")
    for data, detail, shrink in ((small, 1.75, 1), (small, 1.0, 2), (large, 1.75, 4), (large, 1.0, 8)):
        rule = ResizeRule(224, detail=detail)
        enough = partial(images._whole_at_least, rule=rule)
        assert decoding.decode_as_stored(data, path=None, max_pixels=10**8, enough=enough).shrink == shrink


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (333, 1000), (17, 9)])
def test_decode_keeps_at_least_what_is_asked(size: tuple[int, int], photographs: list[Image.Image]) -> None:
    data = encoded(photographs[1].resize(size), "JPEG")
    for at_least in (1, 9, 40, 41, 53, 54, 106, 107, 213, 214, 500):
        height, width, _ = decode(data, at_least=at_least).shape
        assert min(width, height) >= min(at_least, *size)
        assert min(width, height) <= max(2 * at_least, math.ceil(min(size) / 8))  # and no waste
        assert abs(width / height - size[0] / size[1]) <= 0.1 * size[0] / size[1] + 1
    assert decode(data).shape == (size[1], size[0], 3)


# The rule


def test_rule_survives_json() -> None:
    rule = ResizeRule(300, "crop", "bilinear", (1, 2, 3))
    assert ResizeRule.from_json(rule.to_json()) == rule
    assert rule.to_json() == {
        "size": 300,
        "mode": "crop",
        "interpolation": "bilinear",
        "fill": [1, 2, 3],
        "detail": 1.0,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", 0), ("mode", "letterbox"), ("interpolation", "nearest"), ("fill", (0, 0)), ("fill", (0, 0, 256))],
)
def test_bad_rules_are_refused(key: str, value: object) -> None:
    with pytest.raises(ParameterError, match=f"resize rule: {key} is"):
        ResizeRule.from_json({**ResizeRule(224).to_json(), key: value})
