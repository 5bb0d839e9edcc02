"""The solar cells, from a package of the same shape with a few images."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from libraries.base.errors import InputError
from libraries.data.annotations import Annotations
from libraries.data.solar_cells import copy_solar_cells

Pairs = Sequence[tuple[Path, Path]]

# as in the real labels.csv: columns set apart by blanks, and no header
TABLE = """\
images/cell0001.png  1.0                 mono
images/cell0002.png  0.0                 mono
images/cell0003.png  0.3333333333333333  poly
images/cell0004.png  0.6666666666666666  poly
"""
EXPECTED = {
    "defective/cell0001.png": b"cell0001",
    "defective/cell0004.png": b"cell0004",
    "functional/cell0002.png": b"cell0002",
    "functional/cell0003.png": b"cell0003",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package elpv_dataset that is found before an installed one."""
    folder = tmp_path / "site-packages" / "elpv_dataset"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('finding the images needs no import')")
    (folder / "data" / "labels.csv").write_text(TABLE)
    for i in range(1, 5):
        (folder / "data" / "images" / f"cell000{i}.png").write_text(f"cell000{i}")
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("package")
def test_cells_are_sorted_by_their_probability_and_nothing_is_copied_twice(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shown: list[str] = []

    def progress(pairs: Pairs) -> Iterator[tuple[Path, Path]]:
        for source, target in pairs:
            shown.append(target.name)
            yield source, target

    assert copy_solar_cells(folder, progress=progress) == 4
    assert contents(folder) == EXPECTED
    assert shown == [f"cell000{i}.png" for i in range(1, 5)]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert copy_solar_cells(folder, progress=progress) == 0
    assert len(shown) == 4
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.usefixtures("package")
def test_copy_that_was_stopped_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "images"

    def stop_after_two(pairs: Pairs) -> Iterator[tuple[Path, Path]]:
        yield from pairs[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_solar_cells(folder, progress=stop_after_two)
    assert len(contents(folder)) == 2
    (folder / "defective" / "cell0001.png").write_text("changed by the user")
    assert copy_solar_cells(folder) == 2
    assert contents(folder) == {**EXPECTED, "defective/cell0001.png": b"changed by the user"}


def test_missing_package_gives_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install it with 'pip install elpv-dataset'"):
        copy_solar_cells(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_package_without_its_table_gives_the_command_that_repairs_it(tmp_path: Path, package: Path) -> None:
    (package / "data" / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"labels\.csv .*'pip install --force-reinstall elpv-dataset'"):
        copy_solar_cells(tmp_path / "images")


def test_package_without_an_image_gives_the_command_that_repairs_it(tmp_path: Path, package: Path) -> None:
    (package / "data" / "images" / "cell0003.png").unlink()
    with pytest.raises(InputError, match=r"cell0003\.png .*'pip install --force-reinstall elpv-dataset'"):
        copy_solar_cells(tmp_path / "images")


@pytest.mark.usefixtures("package")
def test_an_image_whose_label_was_changed_is_not_copied_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    copy_solar_cells(folder)
    Annotations(folder).relabel(["functional/cell0002.png"], "defective")
    after = contents(folder)
    assert copy_solar_cells(folder) == 0
    assert contents(folder) == after
    (folder / "defective" / "cell0002.png").unlink()
    assert copy_solar_cells(folder) == 1
    assert contents(folder) == after
