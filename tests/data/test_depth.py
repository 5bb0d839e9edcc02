"""Pictures of more than 8 bits: as bright as those of 8 bits they hold the values of, whatever the format."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libraries.base.errors import ImageError, ParameterError
from libraries.data import checking, dataset, duplicates, quality
from libraries.data.decoding import decode_as_stored
from libraries.data.depth import FULL_RANGE, LEVELS, Depth
from libraries.data.images import ResizeRule, decode, inspect, load, load_bytes, pixel_sha256, scaled_down
from tests.data.pictures import scene

Values = np.ndarray

COLOURS = np.asarray(scene(3, size=(90, 70)))  # uint8 [70, 90, 3]
GRAY = COLOURS[..., 1]
LOWER_LEVELS = LEVELS[:-1]


def of_bits(pixels: Values, level: int) -> Values:
    """8-bit values on another scale."""
    return np.rint(pixels.astype(float) * level / 255).astype(np.uint16)


def tiff(values: Values, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", **options)
    return file.getvalue()


def png(values: Values) -> bytes:
    """A PNG of 16 bits for each of 1 to 4 channels, filtered as encoders do, which Pillow does not write."""
    height, width, channels = values.shape
    rows = np.zeros((height, 1 + 2 * channels * width), np.uint8)
    rows[:, 1:] = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    rows[1:, 1:] -= rows[:-1, 1:].copy()  # each row minus the one above it
    rows[1:, 0] = 2
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def colour_tiff(values: Values, order: str, *, deflated: bool = False, strips: int = 3) -> bytes:
    """A TIFF of 16 bits for each of 3 or 4 channels, in several strips, which Pillow does not write."""
    height, width, channels = values.shape
    rows = -(-height // strips)
    parts = [values[top : top + rows].astype(f"{order}u2").tobytes() for top in range(0, height, rows)]
    if deflated:
        parts = [zlib.compress(part) for part in parts]
    offsets, at = [], 8
    for part in parts:
        offsets.append(at)
        at += len(part)
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    tables = [struct.pack(f"{order}{len(parts)}I", *numbers) for numbers in (offsets, map(len, parts))]
    places = np.cumsum([at, len(bits), len(tables[0]), len(tables[1])]).tolist()
    entries = [
        *[(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, places[0]), (259, 4, 1, 8 if deflated else 1)],
        *[(262, 4, 1, 2), (273, 4, len(parts), places[1]), (277, 4, 1, channels), (278, 4, 1, rows)],
        *[(279, 4, len(parts), places[2])],
    ]
    directory = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    body = b"".join(parts) + bits + b"".join(tables)
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", places[3])
    return start + body + struct.pack(f"{order}H", len(entries)) + directory + bytes(4)


GRAY_FILES: dict[str, Callable[[Values], bytes]] = {
    "16-bit TIFF": tiff,
    "16-bit TIFF, big-endian": lambda values: tiff(values.astype(">u2")),
    "16-bit TIFF, deflated": lambda values: tiff(values, compression="tiff_adobe_deflate"),
    "16-bit PNG": lambda values: png(values[..., None]),
    "signed 16-bit TIFF": lambda values: tiff(values.astype(np.int32)),
    "32-bit TIFF": lambda values: tiff(values.astype(np.int32)),
}
COLOUR_FILES: dict[str, Callable[[Values], bytes]] = {
    "48-bit PNG": png,
    "64-bit PNG": lambda values: png(with_alpha(values)),
    "48-bit TIFF": lambda values: colour_tiff(values, "<"),
    "48-bit TIFF, big-endian": lambda values: colour_tiff(values, ">"),
    "48-bit TIFF, deflated": lambda values: colour_tiff(values, "<", deflated=True),
    "48-bit TIFF, big-endian, deflated": lambda values: colour_tiff(values, ">", deflated=True),
}


def with_alpha(values: Values) -> Values:
    return np.dstack([values, np.full(values.shape[:2], 65535, np.uint16)])


def depth_of(data: bytes) -> Depth | None:
    return decode_as_stored(data, path=None, max_pixels=10**6, enough=None, white_level=None).depth


@pytest.mark.parametrize("level", LOWER_LEVELS)
@pytest.mark.parametrize("name", GRAY_FILES)
def test_gray_is_as_bright_as_in_8_bits(name: str, level: int) -> None:
    data = GRAY_FILES[name](of_bits(GRAY, level))
    assert depth_of(data) == Depth(level)
    expected = np.repeat(GRAY[..., None], 3, axis=2)
    assert np.array_equal(decode(data, white_level=level), expected)
    assert np.array_equal(load_bytes(data, ResizeRule(32, white_level=level)), load_bytes(tiff(GRAY), ResizeRule(32)))


@pytest.mark.parametrize("level", LOWER_LEVELS)
@pytest.mark.parametrize("name", COLOUR_FILES)
def test_colours_are_as_bright_as_in_8_bits(name: str, level: int) -> None:
    """Pillow keeps the upper 8 of 16 bits, which are nearly nothing here."""
    data = COLOUR_FILES[name](of_bits(COLOURS, level))
    assert depth_of(data) == Depth(level)
    assert np.array_equal(decode(data, white_level=level), COLOURS)


def test_gray_with_alpha() -> None:
    values = np.dstack([of_bits(GRAY, 4095), np.full(GRAY.shape, 65535, np.uint16)])
    values[:, :10, 1] = 0
    assert depth_of(png(values)) == Depth(4095)
    pixels = decode(png(values), white_level=4095)
    assert (pixels[:, :10] == 255).all(), "what is transparent shows the white behind"
    assert np.array_equal(pixels[:, 10:], np.repeat(GRAY[:, 10:, None], 3, axis=2))


@pytest.mark.parametrize("name", [*GRAY_FILES, *COLOUR_FILES])
def test_full_range_is_as_ever(name: str) -> None:
    is_gray = name in GRAY_FILES
    pixels = GRAY if is_gray else COLOURS
    data = {**GRAY_FILES, **COLOUR_FILES}[name](257 * pixels.astype(np.uint16))
    assert depth_of(data) == Depth(FULL_RANGE)
    expected = np.repeat(pixels[..., None], 3, axis=2) if is_gray else pixels
    assert np.array_equal(decode(data), expected)
    assert np.array_equal(decode(data, white_level=FULL_RANGE), expected)


def test_brighter_than_white_is_white() -> None:
    values = np.array([[0, 4095, 4096, 65535]], np.uint16)
    for data in (tiff(values), tiff(values.astype(np.int32)), tiff(values.astype(np.float32))):
        assert decode(data, white_level=4095)[0, :, 0].tolist() == [0, 255, 255, 255]
    assert decode(png(np.dstack([values] * 3)), white_level=4095)[0, :, 2].tolist() == [0, 255, 255, 255]
    assert decode(tiff(values), white_level=10**6).max() == round(65535 / 10**6 * 255)


def test_hot_pixels_do_not_decide() -> None:
    values = of_bits(np.asarray(scene(1).convert("L")), 4095)  # 76,800 pixels
    values[::40, 7] = 65535
    assert depth_of(tiff(values)) == Depth(4095)
    values[::20, 7] = 65535  # more than one in 10,000
    assert depth_of(tiff(values)) == Depth(FULL_RANGE)
    assert depth_of(tiff(np.array([[7, 65535]], np.uint16))) == Depth(FULL_RANGE), "a small picture has none to spare"


@pytest.mark.parametrize("tag", [281, 341])
@pytest.mark.parametrize(("said", "level"), [(4095, 4095), (900, 1023), (65535, 255), (100, 255)])
def test_what_a_tiff_says_of_its_greatest_value_counts(tag: int, said: int, level: int) -> None:
    data = tiff(of_bits(GRAY, 255), tiffinfo={tag: said})
    assert depth_of(data) == Depth(level)


def hot(values: Values) -> Values:
    """Floats with one hot pixel."""
    values = values.astype(np.float32)
    values[0, 0] = 300
    return values


FLOATS = GRAY.astype(np.float32)


@pytest.mark.parametrize(
    ("values", "depth"),
    [
        (FLOATS / 255, Depth(None)),
        (FLOATS, Depth(None)),
        (FLOATS * 16, Depth(4095, is_stretched=True)),
        (FLOATS * 1e4, Depth(None, is_stretched=True)),
        (FLOATS - 10, Depth(None, is_stretched=True)),
        (hot(np.asarray(scene(1).convert("L")) / 255), Depth(None, is_stretched=True)),
        ((FLOATS * 1e4).astype(np.int32), Depth(None, is_stretched=True)),
        (GRAY.astype(np.int32) - 10, Depth(None, is_stretched=True)),
    ],
)
def test_floats_and_integers_of_32_bits(values: Values, depth: Depth) -> None:
    assert depth_of(tiff(values)) == depth


def test_a_level_gives_floats_one_scale() -> None:
    """Without one, a dark and a bright picture with values beyond 255 come out alike."""
    dark, bright = tiff(FLOATS * 2), tiff(FLOATS * 16)
    assert np.abs(decode(dark).astype(int) - decode(bright)).max() <= 1
    assert np.array_equal(decode(bright, white_level=16 * 255)[..., 0], GRAY)
    assert np.array_equal(decode(dark, white_level=16 * 255)[..., 0], np.rint(FLOATS / 8).astype(np.uint8))
    assert np.array_equal(decode(tiff(FLOATS / 255), white_level=4095)[..., 0], GRAY), "0 to 1 is known"


def test_a_picture_of_8_bits_has_no_depth(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    assert inspect(tmp_path / "a.png").depth is None
    assert np.array_equal(decode((tmp_path / "a.png").read_bytes(), white_level=1000), COLOURS)


@pytest.mark.parametrize("name", COLOUR_FILES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_damage_is_one_error(name: str, share: float) -> None:
    data = COLOUR_FILES[name](of_bits(COLOURS, 4095))
    with pytest.raises(ImageError):
        decode(data[: int(share * len(data))], white_level=4095)


def test_a_rule_of_an_earlier_version_means_full_range_and_much_detail() -> None:
    old = {"size": 8, "mode": "pad", "interpolation": "bicubic", "fill": [0, 0, 0]}
    rule = ResizeRule(8, detail=1.75)
    assert ResizeRule.from_json(old) == rule and rule.to_json() == old
    assert ResizeRule(8).to_json() == {**old, "detail": 1.0}
    rule = ResizeRule(8, white_level=4095, detail=1.75)
    assert rule.to_json() == {**old, "white_level": 4095} and ResizeRule.from_json(rule.to_json()) == rule
    for bad in (0, -1, 4095.5, "4095", None):
        with pytest.raises(ParameterError, match="white_level"):
            ResizeRule.from_json({**old, "white_level": bad})


def test_what_is_kept_of_a_large_download_can_be_seen() -> None:
    _, small = scaled_down(tiff(of_bits(GRAY, 1023)), max_side=45)
    assert small is not None and np.asarray(small).max() > 150


# A data set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight dim scenes of 12 bits, in two classes, the same in 8 bits, and one of 8 bits anyway."""
    for i in range(8):
        pixels = np.asarray(scene(i).convert("L"))
        for kind, values in (("deep", of_bits(pixels, 4095)), ("plain", pixels)):
            path = tmp_path / kind / "ab"[i % 2] / f"{i}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tiff(values))
    for kind in ("deep", "plain"):
        scene(20).save(tmp_path / kind / "a" / "colour.png")
    dark = np.asarray(scene(21).convert("L")) // 6  # of itself it would be 10 bits
    (tmp_path / "deep" / "a" / "dark.tif").write_bytes(tiff(of_bits(dark, 4095)))
    (tmp_path / "plain" / "a" / "dark.tif").write_bytes(tiff(dark))
    return tmp_path


def check(folder: Path, **options: int) -> checking.Checked:
    return checking.check_images(folder, dataset.scan(folder), workers=2, **options)


def test_step_1_sees_what_it_would_see_in_8_bits(folder: Path) -> None:
    deep, plain = check(folder / "deep"), check(folder / "plain")
    assert deep.white.level == 4095 and plain.white.level == FULL_RANGE and not plain.white.depths
    assert deep.white.depths["a/dark.tif"] == Depth(1023), "and yet it looks as dark as it is"
    assert np.array_equal(deep.tiny, plain.tiny)
    assert deep.measures == plain.measures
    assert [e.path for e in deep.examples] == [e.path for e in plain.examples]
    found = duplicates.find(deep, folder=folder / "deep", max_distance=10)
    assert found.rows() == []
    assert quality.summary(deep.review()) == quality.summary(plain.review())
    kept = deep.without(["a/0.tif"])
    assert len(kept.examples) == len(kept.measures) == len(kept.tiny) == 9 and kept.white == deep.white


def test_only_images_of_another_depth_are_decoded_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(checking, "inspect", lambda path, **o: (looked.append(path.name), inspect(path, **o))[1])
    check(folder / "deep")
    assert sorted(looked) == sorted([*(f"{i}.tif" for i in range(8)), "colour.png", "dark.tif", "dark.tif"])


def test_a_given_level_is_taken(folder: Path) -> None:
    checked = check(folder / "deep", white_level=FULL_RANGE)
    assert checked.white.level == FULL_RANGE
    assert sum(row.finding == "dark" for row in checked.review()) == 9


def test_same_pixels_by_the_level(folder: Path) -> None:
    """On the scale of 16 bits two dim pictures of 12 bits may be the same picture in 8."""
    values = np.full((16, 16), 1000, np.uint16)
    paths = [folder / "one.tif", folder / "other.tif"]
    for path, value in zip(paths, (1000, 1030), strict=True):
        path.write_bytes(tiff(np.full_like(values, value)))
    assert len({pixel_sha256(path) for path in paths}) == 1
    assert len({pixel_sha256(path, white_level=4095) for path in paths}) == 2
    assert load(paths[0], ResizeRule(4, white_level=4095)).tolist() == [[[62] * 3] * 4] * 4
