"""Scanning, checking and splitting folders of images."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from libraries.base.errors import InputError
from libraries.data import checking, dataset
from libraries.data.class_folders import image_files
from libraries.data.dataset import Example
from libraries.data.images import ResizeRule, inspect
from libraries.data.split import group_examples


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def example(path: str, *, group: str | None = None, sha256: str = "") -> Example:
    return Example(path, path.split("/")[0], "train", group or path, 8, 6, 100, sha256 or path)


def two_classes(folder: Path, *, images: int = 3) -> None:
    for label in ("cat", "dog"):
        for i in range(images):
            picture(folder / label / f"{i}.png", (i, 7, 100 if label == "cat" else 200))


def reasons(found: dataset.Scan) -> list[str]:
    """The lines about files that are not images."""
    return sorted(kind.describe(count) for kind, count in found.skipped.items())


def test_scan_finds_images_of_every_kind_and_in_subfolders(tmp_path: Path) -> None:
    two_classes(tmp_path)
    picture(tmp_path / "cat" / "session 1" / "ünïcode näme.JPG")
    picture(tmp_path / "cat" / "0.PNG")  # differs from 0.png only in case
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / "dog" / ".hidden.png").write_text("x")
    (tmp_path / "readme.txt").write_text("x")
    found = dataset.scan(tmp_path)
    assert found.paths["cat"] == ["cat/0.PNG", "cat/0.png", "cat/1.png", "cat/2.png", "cat/session 1/ünïcode näme.JPG"]
    assert found.paths["dog"] == ["dog/0.png", "dog/1.png", "dog/2.png"]
    assert reasons(found) == ["1 .txt file (not an image format that is read)"]


def test_images_are_known_by_their_content_where_the_name_does_not_tell(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for name in ("no suffix", "scan.0001", "photo.dat"):
        (tmp_path / "cat" / name).write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    (tmp_path / "dog" / "raw.NEF").write_bytes(b"MM\0*" + bytes(100))
    (tmp_path / "dog" / "drawing.psd").write_bytes(b"8BPS")
    (tmp_path / "dog" / "other.psd").write_bytes(b"8BPS")
    (tmp_path / "dog" / "pages.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "dog" / "boxes.json").write_text("{}")
    found = dataset.scan(tmp_path)
    assert found.paths["cat"][3:] == ["cat/no suffix", "cat/photo.dat", "cat/scan.0001"]
    assert reasons(found) == [
        "1 .json file (not an image format that is read)",
        "1 PDF document (not read: export its pages as PNG or TIFF)",
        "1 raw camera file (not read: develop it to JPEG, PNG or TIFF, or take the camera's own JPEG)",
        "2 Photoshop documents (not read: export them as PNG or TIFF)",
    ]
    assert found.lost == {"cat": 0, "dog": 4}


def test_files_with_usual_suffixes_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    for i in range(3):
        (tmp_path / "dog" / f"{i}.txt").write_text("boxes")

    def opened(path: Path, *_: object) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(Path, "open", opened)
    assert sum(map(len, dataset.scan(tmp_path).paths.values())) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    two_classes(tmp_path / "set")
    elsewhere = tmp_path / "elsewhere"
    picture(elsewhere / "deep" / "a.png")
    cat = tmp_path / "set" / "cat"
    (cat / "linked").symlink_to(elsewhere)
    (cat / "other link").symlink_to(elsewhere)
    (cat / "up").symlink_to("..")  # a loop, too: the images of the other class do not become some of this one
    (elsewhere / "loop").symlink_to(cat)
    (cat / "itself").symlink_to("itself")
    (cat / "gone").symlink_to(tmp_path / "nowhere")
    found = image_files(cat)
    assert found.others["gone"].describe(1) == "1 broken link (fix it, or remove it)"
    assert [path for path in found.images if "a.png" in path] == ["linked/deep/a.png"]
    assert [path for path in found.images if path.count("/") == 0] == ["0.png", "1.png", "2.png"]
    assert len(found.images) == 3 + 1  # own and linked
    (tmp_path / "set" / "rat").symlink_to(elsewhere)
    assert dataset.scan(tmp_path / "set").paths["rat"] == [
        "rat/deep/a.png",
        *(f"rat/loop/{name}.png" for name in range(3)),
    ]


def test_a_class_that_loses_many_of_its_pictures_is_warned_of(tmp_path: Path) -> None:
    two_classes(tmp_path, images=20)
    for i in range(3):
        (tmp_path / "cat" / f"IMG_{i}.CR2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    (tmp_path / "dog" / "0.png").write_bytes(b"no picture")
    (tmp_path / "dog" / "1.png").write_bytes(b"no picture")
    found = dataset.scan(tmp_path)
    lines = checking.left_out(found, checking.check_images(tmp_path, found, workers=1))
    assert lines[-1] == "Warning: class 'cat' loses 3 of its 23 pictures: see the reasons above"
    assert [line for line in lines if "Warning" in line] == lines[-1:]  # a tenth is not more than a tenth
    assert sum(line.startswith("left out: dog/") for line in lines) == 2
    assert sum(line.startswith("left out: 3 raw camera files (") for line in lines) == 1


def test_what_a_class_loses_is_counted_over_all_parts_of_a_split(tmp_path: Path) -> None:
    two_classes(tmp_path / "train", images=6)
    two_classes(tmp_path / "test", images=6)
    for path in ("train/cat/0.png", "test/cat/0.png"):
        (tmp_path / path).write_bytes(b"no picture")
    found = dataset.scan(tmp_path)
    lines = checking.left_out(found, checking.check_images(tmp_path, found, workers=1))
    assert [line for line in lines if "Warning" in line] == [
        "Warning: class 'cat' loses 2 of its 12 pictures: see the reasons above"
    ]


@pytest.mark.parametrize("place", [".", "train"])
def test_a_class_that_is_a_broken_link_is_named(tmp_path: Path, place: str) -> None:
    two_classes(tmp_path / place)
    (tmp_path / place / "rat").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"rat is a broken link to .*gone: fix it, or remove it"):
        dataset.scan(tmp_path)


def test_a_class_of_files_that_are_not_read_says_which(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "rat").mkdir()
    (tmp_path / "rat" / "a.dng").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"rat holds no image \(1 raw camera file \(not read: develop"):
        dataset.scan(tmp_path)


def test_larger_images_are_refused_unless_allowed(tmp_path: Path) -> None:
    two_classes(tmp_path)
    found = dataset.scan(tmp_path)
    with pytest.raises(InputError, match="is an intact image"):
        checking.check_images(tmp_path, found, workers=1, max_pixels=8 * 6 - 1)
    assert len(checking.check_images(tmp_path, found, workers=1, max_pixels=8 * 6).examples) == 6


def test_what_was_let_in_is_read_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_PIXELS", 10)
    picture(tmp_path / "plan.png")
    facts = inspect(tmp_path / "plan.png")
    let_in = Example("plan.png", "plan", "train", "", facts.width, facts.height, facts.bytes, facts.sha256)
    assert let_in.max_pixels == 8 * 6
    assert dataset.load_example(let_in, folder=tmp_path, rule=ResizeRule(16)).shape == (16, 16, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_a_name_that_is_not_unicode_is_left_out_and_reported(tmp_path: Path) -> None:
    two_classes(tmp_path)
    before = dataset.scan(tmp_path)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    found = dataset.scan(tmp_path)
    assert found.paths["cat"] == [path for path in before.paths["cat"] if path != "cat/0.png"]
    assert reasons(found) == ["1 file with a name that is not Unicode (rename it)"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [([], "found none"), (["cat"], "found only 'cat'")],
)
def test_fewer_than_two_classes_is_an_error(tmp_path: Path, classes: list[str], message: str) -> None:
    for label in classes:
        picture(tmp_path / label / "a.png")
    with pytest.raises(InputError, match=message):
        dataset.scan(tmp_path)


def test_missing_folder_names_the_script(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0_downloadData"):
        dataset.scan(tmp_path / "nothing")


def test_empty_class_is_named(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no image"):
        dataset.scan(tmp_path)


def test_classes_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    for label in ("Cat", "cat"):
        picture(tmp_path / label / "a.png")
    with pytest.raises(InputError, match="differ only in case"):
        dataset.scan(tmp_path)


def test_damaged_files_are_left_out_with_their_reason(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "cat" / "text.jpg").write_text("no picture")
    (tmp_path / "cat" / "empty.png").write_bytes(b"")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    examples, refused, *_ = checking.check_images(tmp_path, dataset.scan(tmp_path), workers=2)
    assert [e.path for e in examples] == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)]
    assert sorted(str(e.path) for e in refused) == ["cat/empty.png", "cat/gone.png", "cat/text.jpg"]
    assert all(e.reason for e in refused)


def test_class_with_only_damaged_files_is_an_error(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"no file in .*bad is an intact image"):
        checking.check_images(tmp_path, dataset.scan(tmp_path), workers=1)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.99])
def test_split_is_stratified_reproducible_and_never_leaves_a_side_empty(ratio: float) -> None:
    examples = [example(f"{label}/{i}.png") for label, n in (("cat", 100), ("dog", 40), ("rat", 2)) for i in range(n)]
    parts = dataset.split(examples, ratio_train=ratio, seed=3)
    assert parts == dataset.split(examples, ratio_train=ratio, seed=3)
    assert [p.path for p in parts] == [e.path for e in examples]
    for label, count in dataset.counts(parts).items():
        n = count["train"] + count["test"]
        assert abs(count["train"] - ratio * n) <= 1
        assert count["train"] and count["test"], label
    assert parts != dataset.split(examples, ratio_train=ratio, seed=4)


def test_split_does_not_move_others_when_images_are_added() -> None:
    before = [example(f"cat/{i}.png") for i in range(200)]
    after = before + [example(f"cat/new{i}.png") for i in range(20)]
    then = {e.path: e.split for e in dataset.split(before, ratio_train=0.75, seed=0)}
    now = {e.path: e.split for e in dataset.split(after, ratio_train=0.75, seed=0)}
    assert sum(then[p] != now[p] for p in then) <= 20


def test_single_image_class_stays_in_training() -> None:
    parts = dataset.split([example("cat/1.png"), example("dog/1.png"), example("dog/2.png")], ratio_train=0.75, seed=0)
    assert dataset.counts(parts) == {"cat": {"train": 1, "test": 0}, "dog": {"train": 1, "test": 1}}


@pytest.mark.parametrize("seed", range(8))
def test_a_file_under_two_labels_leaves_neither_class_without_a_side(seed: int) -> None:
    examples = [example(f"{label}/{i}.png", sha256="x" if i == 0 else "") for label in ("cat", "dog") for i in range(3)]
    parts = dataset.split(group_examples(examples, "filename"), ratio_train=0.75, seed=seed)
    assert all(count["train"] and count["test"] for count in dataset.counts(parts).values())


def test_subdir_mode_keeps_each_folder_on_one_side() -> None:
    examples = [example(f"{c}/person{p}/{i}.png") for c in ("a", "b") for p in range(10) for i in range(p + 1)]
    parts = dataset.split(group_examples(examples, "subdir"), ratio_train=0.75, seed=1)
    sides: dict[str, set[str]] = {}
    for e in parts:
        sides.setdefault(e.group, set()).add(e.split)
    assert len(sides) == 20
    assert all(len(s) == 1 for s in sides.values())
    for count in dataset.counts(parts).values():
        assert 0.55 < count["train"] / 55 < 0.95


def test_exact_copies_stay_on_one_side() -> None:
    examples = [example(f"cat/{i}.png", sha256=str(i % 10)) for i in range(40)] + [
        example(f"dog/{i}.png") for i in range(40)
    ]
    parts = dataset.split(group_examples(examples, "filename"), ratio_train=0.5, seed=0)
    by_content: dict[str, set[str]] = {}
    for e in parts:
        by_content.setdefault(e.sha256, set()).add(e.split)
    assert all(len(sides) == 1 for sides in by_content.values())


def test_images_left_out_are_not_scanned_and_a_class_needs_one() -> None:
    found = dataset.Scan({"cat": ["cat/1.png", "cat/2.png"], "dog": ["dog/1.png"]}, Counter())
    assert dataset.leave_out(found, {"cat/1.png"}).paths == {"cat": ["cat/2.png"], "dog": ["dog/1.png"]}
    with pytest.raises(InputError, match="every image of class 'dog' is marked"):
        dataset.leave_out(found, {"dog/1.png"})


def test_examples_csv_round_trip(tmp_path: Path) -> None:
    examples = [example('cat/a, "b"\tü.png'), example("dog/x.png")]
    dataset.write_examples(tmp_path / "examples.csv", examples)
    assert dataset.read_examples(tmp_path / "examples.csv") == examples


def test_images_beside_the_classes_are_reported(tmp_path: Path) -> None:
    two_classes(tmp_path)
    picture(tmp_path / "1.png")
    (tmp_path / "notes.txt").touch()
    assert reasons(dataset.scan(tmp_path)) == ["1 image beside the class folders, so without a class"]


def test_the_message_about_a_flat_folder_names_the_parameter_for_labels(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"found none, but images without one: imgLabelsPath of scripts/0_"):
        dataset.scan(tmp_path)
