"""Thumbnails: made once, stored, made again when the image changes; failures never stop the viewer."""

import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image

from libraries.base.errors import ImageError
from libraries.widgets import thumbnails as module
from libraries.widgets.thumbnails import SIDE, Thumbnails


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (800, 400), (250, 10, 10)).save(tmp_path / "cat" / "wide.jpg")
    Image.new("RGBA", (20, 60), (0, 0, 0, 0)).save(tmp_path / "cat" / "clear.png")
    (tmp_path / "cat" / "bad.jpg").write_bytes(b"no image")
    return tmp_path


def opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))


def test_proportions_are_kept_and_small_images_not_enlarged(folder: Path) -> None:
    thumbnails = Thumbnails(folder, folder / "kept.sqlite")
    wide, clear = opened(thumbnails.get("cat/wide.jpg")), opened(thumbnails.get("cat/clear.png"))
    assert (wide.format, wide.size, clear.size) == ("JPEG", (SIDE, SIDE // 2), (20, 60))
    assert clear.getpixel((5, 5)) == (255, 255, 255)


def test_each_is_made_once_even_after_a_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Thumbnails(folder, folder / "kept.sqlite")
    made = first.get("cat/wide.jpg")
    first.close()
    monkeypatch.setattr(module, "decode", lambda *a, **k: pytest.fail("it was kept"))
    assert Thumbnails(folder, folder / "kept.sqlite").get("cat/wide.jpg") == made


def test_a_changed_image_has_a_new_one(folder: Path) -> None:
    thumbnails = Thumbnails(folder, folder / "kept.sqlite")
    thumbnails.get("cat/wide.jpg")
    Image.new("RGB", (800, 400), (10, 10, 250)).save(folder / "cat" / "wide.jpg")
    os.utime(folder / "cat" / "wide.jpg", ns=(1, 1))
    red, _, blue = opened(thumbnails.get("cat/wide.jpg")).getpixel((50, 50))
    assert red < 50 and blue > 200


@pytest.mark.parametrize(("path", "reason"), [("cat/bad.jpg", "is not a whole"), ("cat/none.jpg", "does not exist")])
def test_an_unreadable_image_says_why(folder: Path, path: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        Thumbnails(folder, folder / "kept.sqlite").get(path)


def test_names_that_are_not_unicode(folder: Path) -> None:
    name = os.fsdecode(b"cat/\xff.jpg")
    try:
        (folder / "cat" / "wide.jpg").rename(folder / name)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    thumbnails = Thumbnails(folder, folder / "kept.sqlite")
    assert thumbnails.get(name) == thumbnails.get(name)


@pytest.mark.parametrize("damage", ["garbage", "folder", "gone"])
def test_without_the_file_they_are_made_each_time(folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = folder / "kept.sqlite"
    if damage == "garbage":
        store.write_bytes(b"garbage " * 1000)
    elif damage == "folder":
        store.mkdir()
    thumbnails = Thumbnails(folder, store)
    if damage == "gone":
        thumbnails._store.execute("DROP TABLE thumbnails")
    assert opened(thumbnails.get("cat/wide.jpg")).size == (SIDE, SIDE // 2)
    assert opened(thumbnails.get("cat/wide.jpg")).size == (SIDE, SIDE // 2)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["thumbnails are not stored"]


def test_many_threads_and_two_notebooks(folder: Path) -> None:
    two = [Thumbnails(folder, folder / "kept.sqlite") for _ in range(2)]
    expected = Thumbnails(folder, folder / "other.sqlite").get("cat/wide.jpg")
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda i=i: got.append(two[i % 2].get("cat/wide.jpg"))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 16
