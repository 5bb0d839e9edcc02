"""Every format is known by its content, whatever the file's name; what is not read is named with what to do."""

import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from pillow_heif import from_pillow

from libraries.base.errors import ImageError, ImageTooLarge
from libraries.data import decoding
from libraries.data.formats import FORMATS, HEAD, SUFFIXES, Foreign, Format, kind_of, recognise
from libraries.data.images import ResizeRule, decode, inspect, load_bytes
from tests.conftest import ROOT
from tests.data.test_images import WHOLE, difference, encoded, smooth, tiff_of
from tests.service.test_fuzz import mutated

PICTURES = {format.name: encoded(smooth(), format.name) for format in FORMATS}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("suffix", ["", ".jpg", ".dat", ".mov"])
def test_the_content_decides_not_the_name(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(PICTURES[name])
    found = recognise(PICTURES[name][:HEAD])
    assert isinstance(found, Format) and found.name == name
    assert isinstance(kind_of(path), Format)
    facts = inspect(path)
    assert (facts.width, facts.height) == (48, 32)
    assert difference(decode(path.read_bytes()), np.asarray(smooth())).mean() < 12
    assert decoding.header(PICTURES[name]).width == 48


def test_suffixes_of_phones_and_scanners_are_known() -> None:
    assert {".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".mpo", ".jpe", ".ppm", ".pgm", ".tif"} <= SUFFIXES


def brands(major: bytes, *others: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * len(others), b"ftyp", major, 0) + b"".join(others) + bytes(100)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (brands(b"heic", b"mif1", b"heic"), "HEIF"),
        (brands(b"mif1", b"mif1", b"heic", b"MiHB"), "HEIF"),
        (brands(b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
        (brands(b"avis", b"avif", b"msf1"), "AVIF"),
        (brands(b"heix", b"mif1", b"avif"), "HEIF"),
        (b"P5\n# made by hand\n3 2\n255\n", "PPM"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
    ],
)
def test_brands_and_variants(head: bytes, name: str) -> None:
    found = recognise(head)
    assert isinstance(found, Format) and found.name == name


FOREIGN = {
    "a.cr2": (b"II*\0\x10\0\0\0CR\x02\0", "raw camera file"),
    "a.cr3": (brands(b"crx ", b"crx ", b"isom"), "raw camera file"),
    "a.nef": (encoded(smooth(), "TIFF"), "raw camera file"),
    "a.dng": (encoded(smooth(), "TIFF"), "raw camera file"),
    "a.raf": (b"FUJIFILMCCD-RAW 0201", "raw camera file"),
    "a.psd": (b"8BPS\0\1", "Photoshop document"),
    "a.svg": (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'>", "SVG drawing"),
    "a.pdf": (b"%PDF-1.7", "PDF document"),
    "a.eps": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript document"),
    "a.dcm": (bytes(128) + b"DICM", "DICOM image"),
    "a.jxl": (b"\xff\x0a\xfa", "JPEG XL image"),
    "a.mp4": (brands(b"isom", b"isom", b"mp42"), "video"),
    "a.mov": (brands(b"qt  "), "video"),
    "a.avi": (b"RIFF\0\0\0\0AVI LIST", "video"),
    "a.zip": (b"PK\3\4", "archive"),
    "a.tga": (b"\0\0\x0a\0", "Targa image"),
    "a.npy": (b"\x93NUMPY\1\0", "NumPy array"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_read_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, kind = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    found = kind_of(tmp_path / name)
    assert isinstance(found, Foreign) and found.name == kind and found.advice
    if name not in ("a.nef", "a.dng", "a.tga"):  # these are known by their suffix alone
        with pytest.raises(ImageError, match=rf"is an? {kind}, which is not read: \w+"):
            decode(content)


def test_a_raw_camera_file_that_is_called_tif_is_not_an_image() -> None:
    """Its first picture is a preview."""
    data = encoded(smooth(), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(ImageError, match="raw camera file"):
        decode(data)


@pytest.mark.parametrize("name", ["notes.txt", "labels.csv", "data.json", "README", "Makefile", "x.bin"])
def test_other_files_are_unknown(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("BMW and P5 are words, II and MM too")
    assert kind_of(tmp_path / name) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs Unix")
def test_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert kind_of(tmp_path / "pipe") is None
    assert kind_of(tmp_path) is None and kind_of(tmp_path / "nothing") is None


def test_damaged_files_are_fitted_or_refused() -> None:
    """Some turn out to be of another size than they said."""
    generator = np.random.default_rng(5)
    whole = [PICTURES[name] for name in ("HEIF", "AVIF", "JPEG2000", "PPM", "HEIF", "TIFF")]
    refused = 0
    for _ in range(1_500):
        try:
            assert load_bytes(mutated(whole, generator), ResizeRule(64), max_pixels=5 * 10**7).shape == (64, 64, 3)
        except ImageError:
            refused += 1
    assert 0 < refused < 1_500


# HEIC


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_says_how_it_is_turned_is_turned_once(format: str, orientation: int, tmp_path: Path) -> None:
    upright = smooth(96, 64)
    turn = decoding.UPRIGHT.get(orientation)
    back = {
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    }
    stored = upright if turn is None else upright.transpose(back.get(turn, turn))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 95, "subsampling": "4:4:4"} if format == "AVIF" else {}
    data = encoded(stored, format, exif=exif.tobytes(), **options)
    assert difference(decode(data), np.asarray(upright)).mean() < 3
    (tmp_path / "a.heic").write_bytes(data)
    facts = inspect(tmp_path / "a.heic")
    assert (facts.width, facts.height) == (96, 64)


def test_of_several_pictures_the_primary_one_counts() -> None:
    file, buffer = from_pillow(smooth(30, 20)), io.BytesIO()
    file.add_from_pillow(smooth())
    file.save(buffer, quality=90, primary_index=1)
    assert decode(buffer.getvalue()).shape == (32, 48, 3)


def test_deep_and_gray_and_transparent_pictures() -> None:
    gray = smooth().convert("L")
    assert difference(decode(encoded(gray, "HEIF")), np.asarray(gray.convert("RGB"))).mean() < 3
    transparent = smooth().convert("RGBA")
    transparent.putalpha(0)
    assert (decode(encoded(transparent, "HEIF", quality=-1)) >= 253).all()


def test_nothing_is_registered_with_pillow() -> None:
    decode(PICTURES["HEIF"])
    assert "HEIF" not in Image.OPEN and ".heic" not in Image.EXTENSION
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3


# The limit on pixels


def test_the_limit_on_pixels_has_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "plan.tif"
    path.write_bytes(tiff_of(18_000, 10_000))
    with pytest.raises(
        ImageTooLarge, match="more than the 100,000,000 allowed: raise maxMegapixels, or make it smaller"
    ):
        inspect(path)


@pytest.mark.parametrize("name", sorted(PICTURES.keys() - {"WEBP"}))  # which Pillow checks in its own way
def test_pillows_own_limit_is_none_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 179 million pixels, for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(PICTURES[name], max_pixels=48 * 32).shape == (32, 48, 3)


def test_a_service_names_its_own_limit() -> None:
    with pytest.raises(ImageTooLarge) as caught:
        decode(WHOLE["png"], max_pixels=1_000)
    assert caught.value.limited_by("serve_maxMegapixels").reason.endswith(
        "1,000 allowed: raise serve_maxMegapixels, or make it smaller"
    )
    assert ImageTooLarge("has 9 bytes").limited_by("serve_maxMegapixels").reason == "has 9 bytes"


def test_the_web_page_offers_files_of_every_format() -> None:
    page = (ROOT / "resources" / "webPage" / "index.html").read_text(encoding="utf-8")
    accepted = re.search(r'id="files" type="file" accept="image/\*,([^"]*)"', page)
    assert accepted is not None and set(accepted[1].split(",")) == SUFFIXES


def test_a_targa_image_is_no_icon(tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"compression": "tga_rle"})):
        Image.new("RGB", (9, 5), (200, 10, 10)).save(tmp_path / f"{number}.tga", **options)
        with pytest.raises(ImageError, match="Targa image"):
            decode((tmp_path / f"{number}.tga").read_bytes())
    Image.new("RGB", (16, 16)).save(tmp_path / "a.ico")
    with pytest.raises(ImageError, match="icon"):
        decode((tmp_path / "a.ico").read_bytes())
