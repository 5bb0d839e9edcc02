"""A flat folder and a table become a folder per class; nothing is overwritten, and a second time changes nothing."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from libraries.base.errors import InputError, StorageError
from libraries.data import dataset, removal
from libraries.data.annotations import Annotations
from libraries.data.exchange.flat_folder import Placed, place
from libraries.data.exchange.label_table import read_label_table
from libraries.data.removal import Removal
from tests.conftest import files, run_main, small_run
from tests.data.test_dataset import picture


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A flat folder of four images of different colours, and a table beside them."""
    folder = tmp_path / "flat"
    for number in range(4):
        picture(folder / f"{number}.png", (60 * number, 7, 7))
    written(folder, "id,label\n0,cat\n1,cat\n2,dog\n3,dog\n")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "images" / "pets"


def written(folder: Path, text: str) -> Path:
    (folder / "train.csv").write_text(text, encoding="utf-8")
    return folder / "train.csv"


def taken(source: Path, target: Path, *, folder: Path | None = None) -> Placed:
    return place(read_label_table(source / "train.csv"), folder or source, target)


def kinds(placed: Placed) -> dict[str, dict[str, int]]:
    return {label: dict(count) for label, count in placed.counts.items()}


PLACED = {"cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png"}


def test_images_are_linked_and_a_second_time_are_there(source: Path, target: Path) -> None:
    assert kinds(taken(source, target)) == {"cat": {"linked": 2}, "dog": {"linked": 2}}
    assert files(target) == PLACED
    assert (source / "2.png").samefile(target / "dog" / "2.png")
    again = taken(source, target)
    assert kinds(again) == {"cat": {"there": 2}, "dog": {"there": 2}} and again.count == 4
    assert files(target) == PLACED and len(files(source)) == 5


def test_images_without_a_label_are_counted(source: Path, target: Path) -> None:
    table = written(source, "id,label\n0,cat\n1,\n2,dog\n")
    placed = taken(source, target)
    assert f"2 images in {source} have no label in {table}: left out" in placed.summary_lines()
    written(source, "id,label\n0,cat\n1,cat\n2,dog\n")
    assert taken(source, target).notes == [f"1 image in {source} has no label in {table}: left out"]
    written(source, "id,label\n0,cat\n1,cat\n2,dog\n3,dog\n")
    assert taken(source, target).notes == []


def refuse_links(*_: object, **__: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_where_links_are_refused_images_are_copied(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    assert kinds(taken(source, target)) == {"cat": {"copied": 2}, "dog": {"copied": 2}}
    assert (target / "cat" / "0.png").read_bytes() == (source / "0.png").read_bytes()
    assert files(target) == PLACED
    os.utime(target / "cat" / "0.png", (1, 1))
    assert kinds(taken(source, target)) == {"cat": {"there": 2}, "dog": {"there": 2}}


def test_another_file_is_never_overwritten(source: Path, target: Path) -> None:
    picture(target / "cat" / "0.png", (1, 2, 3))
    mine = (target / "cat" / "0.png").read_bytes()
    placed = taken(source, target)
    assert (target / "cat" / "0.png").read_bytes() == mine
    assert placed.count == 3 and placed.problems == [f"0.png: {target / 'cat' / '0.png'} is another file"]


def test_a_run_that_was_killed_goes_on(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it copied: a part of a file under a temporary name, and an empty one that claims a name."""
    (target / "cat").mkdir(parents=True)
    (target / "cat" / ".tmp-1234").write_bytes(b"half")
    (target / "cat" / "0.png").touch()
    shutil.copy2(source / "1.png", target / "cat" / "1.png")
    monkeypatch.setattr(os, "link", refuse_links)
    assert kinds(taken(source, target)) == {"cat": {"copied": 1, "there": 1}, "dog": {"copied": 2}}
    assert files(target) == PLACED


def test_a_full_disk_is_reported_and_leaves_no_half_files(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse_links)
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(StorageError, match="the disk is full"):
        taken(source, target)
    assert files(target) == set()


def test_what_was_changed_by_hand_stays(source: Path, target: Path) -> None:
    taken(source, target)
    Annotations(target).relabel(["cat/0.png"], "dog")
    removal.remove(target, [Removal("dog/3.png", "dog/2.png", "near", 3)])
    before = files(target)
    assert kinds(taken(source, target)) == {"cat": {"there": 2}, "dog": {"there": 2}}
    assert files(target) == before


def test_the_split_becomes_a_list_of_test_images(source: Path, target: Path) -> None:
    table = "id,label,split\n0,cat,train\n1,cat,test\n2,dog,val\n3,dog,test\n"
    written(source, table)
    assert taken(source, target).test == 2
    listed = target / "dedicatedTestImages.tsv"
    assert listed.read_text() == "cat\t1.png\ndog\t3.png\n"
    taken(source, target)
    listed.write_text("cat\t0.png\n")
    (target / "dog" / "2.png").unlink()
    with pytest.raises(StorageError, match="does not list the table's test images: move it away"):
        taken(source, target)
    assert listed.read_text() == "cat\t0.png\n" and not (target / "dog" / "2.png").exists(), "nothing has changed"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("one.jpg.png", "part/one.jpg.png"),
        ("one.jpg", "part/one.jpg.png"),
        ("part/two", "part/two.png"),
        ("part\\two.png", "part/two.png"),
        ("{source}/part/two.png", "part/two.png"),
        ("../flat/part/two.png", "part/two.png"),
        ("three", "three.png"),
        ("e\u0301", "\u00e9.png"),
    ],
)
def test_names_of_images(source: Path, target: Path, name: str, found: str) -> None:
    for path in ("part/one.jpg.png", "part/two.png", "three.png", "other/three.png", "\u00e9.png"):
        picture(source / path)
    written(source, f"image,label\n{name.format(source=source.as_posix())},cat\n")
    taken(source, target)
    assert files(target) == {f"cat/{found}"}


def test_a_table_elsewhere_names_images_from_there(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    written(tmp_path / "tables", "path,label\n../flat/0.png,cat\n1.png,dog\n")
    taken(tmp_path / "tables", target, folder=source)
    assert files(target) == {"cat/0.png", "dog/1.png"}


def test_names_lead_nowhere_else_and_missing_ones_are_counted(source: Path, target: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    names = ["../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png", "..", "7", "8.png", "0.png"]
    written(source, "image,label\n" + "".join(f"{name},cat\n" for name in names) + "1.png,\n")
    placed = taken(source, target)
    assert files(target) == {"cat/0.png"}
    assert placed.warnings == [
        "Warning: 1 row without a label, or with several, e.g. line 9",
        f"Warning: 2 rows with a file that is not in {source}, e.g. line 6: '7'",
        f"Warning: 4 rows with a file outside {source}, e.g. line 2: '../secret.png'",
    ]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("id,label\n7,cat\n8,dog\n", "has none of the images that .* names .*'7'.*--imgFolder"),
        ("id,label\n0,cat\n1,dog\n0.png,dog\n", r"line 4 says 0.png is dog \(train\), line 2 says cat \(train\)"),
        ("id,label,set\n0,cat,train\n0,cat,test\n", r"line 3 says 0.png is cat \(test\), line 2 says cat \(train\)"),
        ("id,label\nsame,cat\n", "line 2: 'same' may be a/same.png or b/same.png: write its path in the table"),
    ],
)
def test_tables_that_do_not_fit_the_images(source: Path, target: Path, table: str, problem: str) -> None:
    for path in ("a/same.png", "b/same.png"):
        picture(source / path)
    written(source, table)
    with pytest.raises(InputError, match=problem) as raised:
        taken(source, target)
    assert "\n" not in str(raised.value) and not target.exists()


def test_images_that_lie_in_the_data_set_s_own_folder(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    source.rename(target)
    for _ in range(2):
        placed = taken(target, target)
    assert kinds(placed) == {"cat": {"there": 2}, "dog": {"there": 2}}
    assert dataset.scan(target).paths == {"cat": ["cat/0.png", "cat/1.png"], "dog": ["dog/2.png", "dog/3.png"]}
    picture(target / "raw" / "9.png")
    written(target, "id,label\n0,cat\n9,dog\n")
    with pytest.raises(InputError, match="raw would be a class, since it is in"):
        taken(target, target)


def test_folders_that_are_there_in_another_form(source: Path, target: Path) -> None:
    picture(target / "Mu\u0308ll" / "before.png")
    written(source, "id,label\n0,M\u00fcll\n")
    taken(source, target)
    assert len([p for p in target.iterdir() if p.is_dir()]) == 1


def test_as_a_user_does_it(
    pictures: Path, tmp_path: Path, process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    flat = tmp_path / "competition"
    flat.mkdir()
    lines = ["image_id;species;set"]
    for label in ("stripes", "blobs"):
        for path in sorted((pictures / label).iterdir()):
            shutil.copy(path, flat / f"{label}{path.name}")
            lines.append(f"{label}{path.stem};{label[0]};{'test' if path.stem > '11' else 'train'}")
    (tmp_path / "train.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    p = small_run(tmp_path / "data", imgLabelsPath=tmp_path / "train.csv", imgFolder=flat)
    done = process("0_downloadData", p)
    assert done.returncode == 0, done.stderr
    assert "32 labels in the columns 'image_id', 'species' and 'set' of" in done.stdout
    assert "8 of them are the test set" in done.stdout and "next: scripts/1_prepareData.py" in done.stdout
    run_main("1_prepareData", p)
    examples = dataset.read_examples(p.rootDir / "proc" / "textures" / "examples.csv")
    assert dataset.counts(examples) == {label: {"train": 12, "test": 4} for label in ("b", "s")}
    both = process("0_downloadData", p, f"--imgUrlsPath={tmp_path / 'list.tsv'}")
    assert both.returncode == 2 and "imgUrlsPath and imgLabelsPath are 2 sources" in both.stderr
