"""One data set with every bad image we know of, through all scripts: the good ones count, the bad ones are named."""

import csv
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

from libraries.base.errors import InputError
from libraries.data import decoding
from libraries.network.embedding_store import read_features
from PARAMETERS import Parameters
from tests.conftest import STEPS
from tests.data.profiles import DISPLAY_P3

Make = Callable[..., Parameters]
Main = Callable[..., None]
Process = Callable[..., subprocess.CompletedProcess[str]]


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A picture of smooth random colours."""
    coarse = np.random.default_rng([seed, width, height]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def bomb(side: int) -> bytes:
    """A whole black and white PNG of `side` x `side` pixels, in a thousandth of its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def save_odd_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Images that are unusual, and good; name → width and height of the upright picture."""
    folder.mkdir(parents=True)
    gray16 = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    palette = noise(40, 30).quantize(16)
    sideways = Image.Exif()
    sideways[0x0112] = 6  # orientation: to be turned by a quarter
    frames = [noise(40, 30, seed=seed) for seed in range(3)]
    saved: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "cmyk.jpg": (noise(40, 30).convert("CMYK"), {}),
        "gray16.png": (Image.fromarray(gray16), {}),
        "palette with alpha.png": (palette, {"transparency": 3}),
        "animation.gif": (frames[0], {"save_all": True, "append_images": frames[1:], "duration": 100}),
        "phone.jpg": (noise(40, 30, seed=1), {"exif": sideways}),
        "1x1.png": (noise(1, 1), {}),
        "panorama.jpg": (noise(10_000, 10), {}),
        "Grüße aus 東京 (1).jpg": (noise(40, 30, seed=2), {}),
        "Case.png": (noise(40, 30, seed=3), {}),
        "sub folder/deeper/inside.png": (noise(40, 30, seed=4), {}),
    }
    saved |= {
        "modern.avif": (noise(40, 30, seed=6), {"icc_profile": DISPLAY_P3}),
        "scan.jp2": (noise(40, 30, seed=7), {}),
        "matrix.ppm": (noise(40, 30, seed=8), {}),
        "no suffix": (noise(40, 30, seed=9), {"format": "JPEG"}),
        "wrong.mov": (noise(40, 30, seed=10), {"format": "WEBP"}),
    }
    from_pillow(noise(40, 30, seed=11)).save(folder / "IMG_0001.HEIC", quality=90)
    if not (folder.parent / folder.name.upper()).exists():  # the file system tells upper from lower case
        saved["case.PNG"] = (noise(40, 30, seed=5), {})
    for name, (image, options) in saved.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)
    sizes = {name: image.size if name != "phone.jpg" else (30, 40) for name, (image, _) in saved.items()}
    return {**sizes, "IMG_0001.HEIC": (40, 30)}


def save_bad_images(folder: Path) -> dict[str, str]:
    """Files that are no images; name → what the reason says."""
    folder.mkdir(parents=True, exist_ok=True)
    noise(200, 200, seed=6).save(folder / "whole.jpg", quality=95)
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    contents = {
        "truncated.jpg": (whole[: len(whole) // 2], "cannot be decoded"),
        "text.jpg": (b"This is no picture, it only claims to be one.", "is not a whole JPEG"),
        "zero bytes.png": (b"", "is empty (0 bytes)"),
        "pages.jpg": (b"%PDF-1.7", "is a PDF document, which is not read: export its pages as PNG or TIFF"),
        "header alone.heic": (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
            "is a HEIC or AVIF file that holds no picture: it is cut off",
        ),
        "bomb.png": (bomb(30_000), "has 30,000 x 30,000 pixels, more than the 100,000,000 allowed: raise"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    reasons = {name: reason for name, (_, reason) in contents.items()}
    if sys.platform != "win32":
        (folder / "broken link.jpg").symlink_to("nowhere.jpg")
        reasons["broken link.jpg"] = "is a broken link to nowhere.jpg"
        os.mkfifo(folder / "pipe.png")
        reasons["pipe.png"] = "is not a regular file"
    return reasons


def save_plain_images(folder: Path, *, count: int = 12, seed: int = 100) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{i}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        noise(50, 50, seed=seed + i).save(folder / name)
    return names


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_bad_image_through_all_scripts(parameters: Make, main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    p = parameters(datasetName="all sorts", svm_CVals=(0.01, 1.0))
    folder = p.rootDir / "images" / "all sorts"
    odd = save_odd_images(folder / "odd & Größe")
    bad = save_bad_images(folder / "odd & Größe")
    plain = save_plain_images(folder / "plain")
    (folder / "plain" / "notes.txt").write_text("not an image, and not called one")

    main("1_prepareData", p)
    said = capsys.readouterr()
    left_out = [line.strip() for line in said.out.splitlines() if "left out" in line]
    assert left_out[-1] == "left out: 1 .txt file (not an image format that is read)"
    assert len(left_out) == len(bad) + 1
    for name, reason in bad.items():
        assert any(line.startswith(f"left out: odd & Größe/{name}: {reason}") for line in left_out), (name, left_out)
    assert said.err == ""
    warnings = [line.strip() for line in said.out.splitlines() if "Warning" in line]
    lost = f"loses {len(bad)} of its {len(odd) + len(bad)} pictures"
    assert warnings == [f"Warning: class 'odd & Größe' {lost}: see the reasons above"]

    proc = p.rootDir / "proc" / "all sorts"
    examples = {row["path"]: row for row in read_csv(proc / "examples.csv")}
    good = {f"odd & Größe/{name}" for name in odd} | {f"plain/{name}" for name in plain}
    assert set(examples) == good
    for name, (width, height) in odd.items():
        row = examples[f"odd & Größe/{name}"]
        assert (int(row["width"]), int(row["height"])) == (width, height), name
        assert row["label"] == "odd & Größe"

    for step in STEPS[1:]:
        main(step, p)
    said = capsys.readouterr()
    assert "left out" not in said.out, "what the first script let through, all others can read"
    assert said.err == ""
    features = read_features(proc / "features_svm")
    assert set(features.path) == good
    assert np.isfinite(features.embedding).all()
    assert (np.abs(features.embedding).max(axis=1) > 0).all()
    tested = {row["path"] for row in read_csv(proc / "evaluation_svm" / "predictions.csv")}
    assert tested == {path for path, row in examples.items() if row["split"] == "test"}


@pytest.mark.parametrize("simulated", [True, False], ids=["simulated", "real"])
def test_unreadable_file_is_left_out_by_name(
    parameters: Make,
    main: Main,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    simulated: bool,
) -> None:
    p = parameters(datasetName="locked")
    for label in ("a", "b"):
        save_plain_images(p.rootDir / "images" / "locked" / label, count=3)
    locked = p.rootDir / "images" / "locked" / "b" / "1.jpg"
    if simulated:
        whole_read = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            if path == locked:
                raise PermissionError(13, "Permission denied")
            return whole_read(path)

        monkeypatch.setattr(decoding.Path, "read_bytes", read_bytes)
    else:
        locked.chmod(0)
        if os.access(locked, os.R_OK):
            pytest.skip("this user, or this system, reads files without permission")
    main("1_prepareData", p)
    assert "  left out: b/1.jpg: cannot be read: Permission denied\n" in capsys.readouterr().out
    paths = {row["path"] for row in read_csv(p.rootDir / "proc" / "locked" / "examples.csv")}
    assert paths == {"a/0.jpg", "a/1.jpg", "a/2.jpg", "b/0.jpg", "b/2.jpg"}


def test_data_set_without_test_images_can_be_trained_on_but_not_evaluated(
    parameters: Make, main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when each class is one sub-folder, none of which may be divided."""
    p = parameters(datasetName="whole", imagesSplitBy="subdir", svm_CVals=(0.01, 1.0))
    for seed, label in enumerate(("a", "b", "c")):
        save_plain_images(p.rootDir / "images" / "whole" / label / "one object", count=4, seed=1000 * seed)
    main("1_prepareData", p)
    assert "Warning: class 'a' has no test image; add more images of it" in capsys.readouterr().out
    for step in STEPS[1:4]:
        main(step, p)
    assert "–" in capsys.readouterr().out, "in place of the test accuracy"
    with pytest.raises(InputError, match=r"there are no test images to evaluate: add images to .*1_prepareData\.py"):
        main("5_evaluate", p)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a:b", "it holds one of"),
        ("CON", "Windows reserves it"),
        ("ends with a dot.", "ends with a dot"),
        ("new\nline", "control characters"),
        ("x" * 101, "longer than 100 bytes"),
    ],
)
def test_impossible_class_folder_is_refused_by_name(parameters: Make, main: Main, name: str, rule: str) -> None:
    p = parameters(datasetName="odd names")
    folder = p.rootDir / "images" / "odd names"
    save_plain_images(folder / "a", count=2)
    try:
        save_plain_images(folder / name, count=2)
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError) as caught:
        main("1_prepareData", p)
    message = str(caught.value)
    assert repr(name) in message
    assert rule in message
    assert message.endswith("choose another name")
    assert "\n" not in message


def test_list_of_urls_with_a_slash_in_a_label_is_refused_in_one_line(parameters: Make, process: Process) -> None:
    p = parameters(datasetName="web")
    urls = p.rootDir / "urls.tsv"
    urls.write_text("cat\thttp://localhost/1.jpg\n../cat\thttp://localhost/2.jpg\n")
    done = process("0_downloadData", parameters(datasetName="web", imgUrlsPath=urls))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"0_downloadData.py: {urls}, line 2: label '../cat' cannot be a folder name")
    assert not (p.rootDir / "images" / "web").exists()
    assert not (p.rootDir / "images" / "cat").exists()
