"""Pictures in the colours of other profiles become sRGB, and nothing else changes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images

from libraries.data import colour
from libraries.data.decoding import decode_as_stored
from libraries.data.images import ResizeRule, decode, inspect, load_bytes, scaled_down
from tests.data.profiles import ADOBE_RGB, DISPLAY_P3, PROPHOTO, SRGB, gray_profile, press_profile
from tests.data.test_images import difference, encoded, smooth

WIDE = {"Display P3": DISPLAY_P3, "Adobe RGB": ADOBE_RGB, "ProPhoto": PROPHOTO}
COLOUR = (150, 120, 90)  # within sRGB in all of them

# The same colour by the formulas of their standards: linear light, the matrix to XYZ and on to sRGB, its curve.
IN_SRGB = {
    "Display P3": np.array([156, 119, 85]),
    "Adobe RGB": np.array([162, 121, 88]),
    "ProPhoto": np.array([195, 131, 103]),
}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("name", WIDE)
def test_wide_colours_become_srgb_in_every_format(name: str, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format != "PNG" else {}
    image = Image.new("RGB", (40, 30), COLOUR)
    image.info["icc_profile"] = WIDE[name]  # from where pillow-heif takes it
    data = encoded(image, format, icc_profile=WIDE[name], **options)
    expected = np.broadcast_to(IN_SRGB[name], (30, 40, 3))
    assert difference(decode(data), expected).max() <= 3
    assert difference(load_bytes(data, ResizeRule(8, "stretch")), expected[:8, :8]).max() <= 3


@pytest.mark.parametrize("profile", [SRGB, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_srgb_in_any_writing_changes_nothing(profile: bytes) -> None:
    assert colour.to_srgb(profile, "RGB") is None
    data = encoded(smooth(), "PNG", icc_profile=profile)
    assert np.array_equal(decode(data), np.asarray(smooth()))


def test_a_known_profile_is_only_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    first = colour.to_srgb(DISPLAY_P3, "RGB")
    monkeypatch.setattr(colour, "_conversion", None)
    assert first is not None and colour.to_srgb(bytes(bytearray(DISPLAY_P3)), "RGB") is first


def test_only_some_conversions_are_kept() -> None:
    for gamma in range(40):
        colour.to_srgb(gray_profile(1 + gamma / 40), "L")
    assert len(colour._cache) <= 16


def test_many_threads_give_what_one_gives() -> None:
    data = encoded(smooth(203, 117), "PNG", icc_profile=DISPLAY_P3)
    colour._cache.clear()
    barrier = threading.Barrier(4)

    def work(number: int) -> bytes:
        if number < 4:
            barrier.wait()
        return decode(data).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(work, range(16)))) == 1


@pytest.mark.parametrize(
    "profile",
    [b"", b"x", bytes(4000), DISPLAY_P3[:200], DISPLAY_P3[:-100], b"\xff" * 128 + DISPLAY_P3[128:], bytes(5 * 2**20)],
    ids=["none", "one byte", "zeros", "cut off early", "cut off late", "bad header", "too long"],
)
def test_a_damaged_profile_is_ignored(profile: bytes) -> None:
    assert np.array_equal(decode(encoded(smooth(), "TIFF", icc_profile=profile)), np.asarray(smooth()))


def test_any_bytes_as_a_profile_raise_nothing() -> None:
    random = np.random.default_rng(0)
    for profile in (*WIDE.values(), gray_profile(2.2), PRESS):
        for _ in range(50):
            changed = np.frombuffer(profile, np.uint8).copy()
            changed[random.integers(0, min(len(changed), 480), 6)] = random.integers(0, 256, 6)
            for mode in ("RGB", "L", "CMYK"):
                if convert := colour.to_srgb(changed.tobytes(), mode):
                    assert convert(Image.new(mode, (4, 4))).size == (4, 4)


def test_a_profile_for_other_pictures_is_ignored() -> None:
    assert np.array_equal(decode(encoded(smooth(), "TIFF", icc_profile=gray_profile(1.0))), np.asarray(smooth()))
    assert colour.to_srgb(DISPLAY_P3, "CMYK") is None


def test_gray_stays_gray_and_has_its_curve() -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    decoded = decode_as_stored(
        encoded(gray, "PNG", icc_profile=gray_profile(1.8)), path=None, max_pixels=10**6, enough=None
    )
    finished = decoded.finished(decoded.image)
    assert finished.mode == "L"
    light = (np.arange(256) / 255) ** 1.8
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(np.asarray(finished).ravel() - expected).max() <= 2


# Full inks on paper as the profile SWOP has them; colours with black are those without, darkened by it.
PRINTED = {
    **{(0, 0, 0): (255, 255, 255), (1, 0, 0): (0, 174, 239), (0, 1, 0): (236, 0, 140), (0, 0, 1): (255, 242, 0)},
    **{(1, 1, 0): (46, 48, 146), (1, 0, 1): (0, 166, 81), (0, 1, 1): (237, 28, 36), (1, 1, 1): (55, 52, 53)},
}
BLACK = (35, 31, 32)
PRESS = press_profile(
    {(*cmy, 0): rgb for cmy, rgb in PRINTED.items()}
    | {(*cmy, 1): tuple(a * b // 255 for a, b in zip(rgb, BLACK, strict=True)) for cmy, rgb in PRINTED.items()}
    | {(1, 1, 1, 1): (0, 0, 0)}
)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_printing_inks_become_the_colours_that_their_profile_says(format: str) -> None:
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    for inks, expected in {**{(*cmy, 0): rgb for cmy, rgb in PRINTED.items()}, (0, 0, 0, 1): BLACK}.items():
        picture = Image.new("CMYK", (40, 30), tuple(255 * ink for ink in inks))
        data = encoded(picture, format, icc_profile=PRESS, **options)
        assert difference(decode(data), np.broadcast_to(expected, (30, 40, 3))).max() <= 8, inks
        assert difference(load_bytes(data, ResizeRule(8, "stretch")), np.broadcast_to(expected, (8, 8, 3))).max() <= 8


def test_measured_values_are_left_alone() -> None:
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    plain, with_profile = (
        encoded(Image.fromarray(values), "TIFF", **options) for options in ({}, {"icc_profile": gray_profile(1.0)})
    )
    assert np.array_equal(decode(plain), decode(with_profile))


def test_transparency_and_palettes_are_converted_too() -> None:
    image = Image.new("RGB", (8, 8), COLOUR)
    transparent = image.copy()
    transparent.putalpha(Image.new("L", (8, 8), 0))
    for kind in (image.quantize(4), image.convert("RGBA")):
        assert difference(decode(encoded(kind, "PNG", icc_profile=ADOBE_RGB))[0, 0], IN_SRGB["Adobe RGB"]).max() <= 3
    assert (decode(encoded(transparent, "PNG", icc_profile=ADOBE_RGB)) >= 254).all()  # white is white


@pytest.mark.parametrize(("name", "most"), [("Display P3", 0.5), ("Adobe RGB", 0.6), ("ProPhoto", 1.6)])
def test_converting_after_the_resize_is_nearly_the_same(name: str, most: float) -> None:
    for photograph in load_sample_images().images:
        data = encoded(Image.fromarray(photograph), "PNG", icc_profile=WIDE[name])
        fitted = load_bytes(data, ResizeRule(224))
        before = load_bytes(encoded(Image.fromarray(decode(data)), "PNG"), ResizeRule(224))
        assert difference(fitted, before).mean() < most


def test_step_1_and_downloads_see_the_same_colours(tmp_path: Path) -> None:
    picture = Image.new("RGB", (1200, 900), COLOUR)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture, "PNG", icc_profile=DISPLAY_P3))
    facts = inspect(path)
    assert difference(facts.small[100, 100], IN_SRGB["Display P3"]).max() <= 3
    _, small = scaled_down(path.read_bytes(), max_side=600)
    assert small is not None and difference(np.asarray(small)[100, 100], IN_SRGB["Display P3"]).max() <= 3
    assert difference(decode(encoded(small, "JPEG"))[100, 100], IN_SRGB["Display P3"]).max() <= 3  # as it is saved
