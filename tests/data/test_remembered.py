"""No file is read or decoded twice, unless it, or the code that reads it, has changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from libraries.data import checking, dataset, remembered
from libraries.data.checking import Checked
from libraries.data.images import inspect
from libraries.data.remembered import KnownFiles, Remembered

LONG_AGO = 10**18  # ns


class Project:
    """Two classes of images, checked as by step 1, and what was decoded and read for it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.images = root, root / "images"
        self.decoded: list[str] = []
        self.read: list[str] = []
        monkeypatch.setattr(checking, "inspect", self._inspect)
        monkeypatch.setattr(checking, "read", self._read)
        for number in range(6):
            self.picture(f"{'ab'[number % 2]}/{number}.png", number)

    def picture(self, name: str, seed: int, *, deep: bool = False, age: int = LONG_AGO) -> Path:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 4096 if deep else 256, (40, 60))
        Image.fromarray(pixels.astype(np.uint16 if deep else np.uint8)).save(path)
        os.utime(path, ns=(age, age))
        return path

    def check(self, *, recheck: bool = False, **options: Any) -> Checked:
        """Check all images, as another run does."""
        self.decoded, self.read = [], []
        files = KnownFiles(self.root / "files.parquet")
        known = Remembered(files, store=self.root / "store", most_bytes=10**9, recheck=recheck)
        return checking.check_images(self.images, dataset.scan(self.images), workers=1, remembered=known, **options)

    def _inspect(self, path: Path, **options: Any) -> Any:
        self.decoded.append(path.name)
        return inspect(path, **options)

    def _read(self, path: Path, **options: Any) -> bytes:
        self.read.append(path.name)
        return path.read_bytes()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def assert_same(one: Checked, other: Checked) -> None:
    assert one.examples == other.examples and one.measures == other.measures and one.white == other.white
    np.testing.assert_array_equal(one.tiny, other.tiny)


def test_nothing_is_read_twice_and_the_result_is_the_same(project: Project) -> None:
    first = project.check()
    assert len(project.decoded) == len(project.read) == 6
    again = project.check()
    assert project.decoded == project.read == []
    assert_same(first, again)


def test_new_images_are_decoded_and_no_others(project: Project) -> None:
    project.check()
    project.picture("b/new.png", 99)
    assert len(project.check().examples) == 7
    assert project.decoded == ["new.png"]


@pytest.mark.parametrize("move", ["another label", "another name", "a renamed class"])
def test_moving_a_file_reads_nothing(project: Project, move: str) -> None:
    project.check()
    match move:
        case "another label":
            (project.images / "a" / "0.png").rename(project.images / "b" / "0.png")
        case "another name":
            (project.images / "a" / "0.png").rename(project.images / "a" / "zero.png")
        case "a renamed class":
            (project.images / "a").rename(project.images / "c")
    assert len(project.check().examples) == 6
    assert project.decoded == project.read == []


def test_a_copy_is_read_but_not_decoded(project: Project) -> None:
    project.check()
    shutil.copytree(project.images, project.root / "copied")
    shutil.rmtree(project.images)
    (project.root / "copied").rename(project.images)
    for path in project.images.rglob("*.png"):
        os.utime(path)  # now, as where times are not copied
    project.check()
    assert project.decoded == [] and len(project.read) == 6


def test_a_changed_file_is_decoded(project: Project) -> None:
    before = project.check()
    project.picture("a/0.png", 77, age=LONG_AGO + 1)
    after = project.check()
    assert project.decoded == ["0.png"]
    assert after.examples[0].sha256 != before.examples[0].sha256


def test_a_file_that_was_written_just_now_is_not_trusted(project: Project) -> None:
    path = project.images / "a" / "0.png"
    os.utime(path)
    status = path.stat()
    project.check()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # damage, within one tick of the file system's clock
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [str(error.path) for error in project.check().refused] == ["a/0.png"]


def test_recheck_finds_a_change_that_left_size_and_time_alone(project: Project) -> None:
    project.check()
    path = project.images / "a" / "0.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert project.check().refused == [], "as the file looks unchanged"
    assert [str(error.path) for error in project.check(recheck=True).refused] == ["a/0.png"]
    assert len(project.decoded) == 6
    assert [str(error.path) for error in project.check().refused] == ["a/0.png"], "and it is remembered"


def test_damaged_images_are_looked_at_again(project: Project) -> None:
    path = project.images / "a" / "bad.png"
    path.write_bytes(b"no image")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    for _ in range(2):
        assert [str(error.path) for error in project.check().refused] == ["a/bad.png"]
        assert "bad.png" in project.decoded


def test_a_lower_limit_counts_for_images_that_are_known(project: Project) -> None:
    project.check()
    with pytest.raises(Exception, match="is an intact image"):
        project.check(max_pixels=40 * 60 - 1)
    assert len(project.check(max_pixels=40 * 60).examples) == 6


def test_images_of_more_than_8_bits_are_known_for_each_white_level(project: Project) -> None:
    for number in range(3):
        project.picture(f"a/deep {number}.png", number, deep=True)
    first = project.check()
    assert first.white.level == 4095
    again = project.check()
    assert project.decoded == []
    assert_same(first, again)
    given = project.check(white_level=2000)
    assert len(project.decoded) == 3 and given.white.is_given
    assert_same(given, project.check(white_level=2000))
    assert project.decoded == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes()[:50]),
        lambda p: p.write_text("{}"),
    ],
)
def test_a_damaged_index_is_made_anew(project: Project, damage: Callable[[Path], object]) -> None:
    first = project.check()
    damage(project.root / "files.parquet")
    assert_same(first, project.check())
    assert len(project.read) == 6 and project.decoded == []


def test_what_other_code_found_is_not_used(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.check()
    monkeypatch.setattr(remembered, "reading_recipe", lambda: "another version")
    project.check()
    assert len(project.decoded) == 6


def test_files_that_are_gone_are_forgotten(project: Project) -> None:
    project.check()
    size = (project.root / "files.parquet").stat().st_size
    for number in range(2000):
        shutil.copy2(project.images / "a" / "0.png", project.images / "a" / f"copy {number}.png")
    project.check()
    for path in project.images.glob("a/copy*"):
        path.unlink()
    project.check()
    assert (project.root / "files.parquet").stat().st_size < size + 100


def test_every_fact_survives(tmp_path: Path) -> None:
    for number, (size, mode) in enumerate([((3, 2), "L"), ((700, 500), "RGB"), ((64, 900), "L"), ((50, 50), "I;16")]):
        pixels = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3) if mode == "RGB" else size[::-1])
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels.astype(np.uint16 if mode == "I;16" else np.uint8)).save(path)
        facts = checking._decode(path, white_level=None, max_pixels=10**8).facts
        found = checking._Facts.of_row(facts.row())
        assert found == facts
