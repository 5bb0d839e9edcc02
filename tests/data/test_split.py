"""The side of the split of each image."""

import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from libraries.base.errors import InputError
from libraries.data.annotations import Annotations
from libraries.data.dataset import Example
from libraries.data.duplicates import Duplicates
from libraries.data.split import DEDICATED_TEST_IMAGES, split_by_list, take_sides
from tests.data.test_dataset import example


@pytest.mark.parametrize("line", ["cat\t1.png", "cat/1.png", "cat\\1.png"])
def test_dedicated_test_images_fix_the_test_set(tmp_path: Path, line: str) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text(f"{line}\r\n\n", encoding="utf-8-sig", newline="")
    examples = [example("cat/1.png"), example("cat/2.png"), example("dog/1.png")]
    assert [e.path for e in split_by_list(examples, listed) if e.split == "test"] == ["cat/1.png"]


def test_dedicated_test_images_name_the_wrong_line(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("cat\t1.png\ncat\tnone.png\n")
    with pytest.raises(InputError, match=r"line 2: there is no intact image 'cat/none.png'"):
        split_by_list([example("cat/1.png")], listed)


def test_dedicated_test_images_may_have_moved_or_be_left_out(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("cat\t1.png\ncat\t2.png\ncat\t3.png\n")
    examples = [example("cat/1.png"), example("dog/2.png"), example("dog/1.png")]
    split = split_by_list(examples, listed, moved={"cat/2.png": "dog/2.png"}, left_out=["cat/3.png"])
    assert [e.path for e in split if e.split == "test"] == ["cat/1.png", "dog/2.png"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
def test_dedicated_test_images_in_another_form_of_unicode(tmp_path: Path, in_list: str, on_disk: str) -> None:
    def path(form: str, name: str) -> str:
        return unicodedata.normalize(form, f"M\u00fcll/{name}")

    listed = tmp_path / DEDICATED_TEST_IMAGES
    listed.write_text("".join(path(in_list, f"\u00e9{i}.png\n") for i in (1, 2, 3)), encoding="utf-8")
    examples = [example(path(on_disk, "\u00e91.png")), example("cat/\u00e9.png"), example("cat/2.png")]
    moved = {path(on_disk, "\u00e92.png"): unicodedata.normalize(on_disk, "cat/\u00e9.png")}
    split = split_by_list(examples, listed, moved=moved, left_out=[path(on_disk, "\u00e93.png")])
    assert [e.path for e in split if e.split == "test"] == [examples[0].path, examples[1].path], "as they are on disk"


def test_dedicated_test_images_of_another_encoding(tmp_path: Path) -> None:
    listed = tmp_path / DEDICATED_TEST_IMAGES
    examples = [example("cat/000.png"), example("dog/m\u00fcll.png")]
    listed.write_text("dog\tm\u00fcll.png\n", encoding="utf-16")
    assert [e.split for e in split_by_list(examples, listed)] == ["train", "test"]
    listed.write_text("cat\t000.png\ndog\tm\u00fcll.png\n", encoding="cp1252")
    with pytest.raises(InputError, match=r"dedicatedTestImages\.tsv, line 2 is neither UTF-8 nor UTF-16 text"):
        split_by_list(examples, listed)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_place_of_the_list_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / DEDICATED_TEST_IMAGES)
    with pytest.raises(InputError, match=r"dedicatedTestImages\.tsv cannot be read: it is not a regular file"):
        split_by_list([example("cat/1.png")], tmp_path / DEDICATED_TEST_IMAGES)


def drawn(folder: Path, *, by: Literal["filename", "subdir"] = "filename") -> dict[str, Example]:
    """The examples of the images in a folder by their content, with their sides as script 1 takes them."""
    annotations = Annotations(folder)
    paths = annotations.folders.images(folder)
    examples = [replace(example(path), sha256=(folder / path).read_text()) for path in paths]
    sided, _ = take_sides(
        examples, Duplicates(examples, {}), annotations,
        label_of=annotations.folders.label, by=by, ratio_train=0.75, seed=1,
    )  # fmt: skip

    return {e.sha256: e for e in sided}


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """60 images of each of two classes, in sub-folders of three; each says where it was first."""
    folder = tmp_path / "images" / "pets"
    for label in ("cat", "dog"):
        for i in range(60):
            path = folder / label / f"{i // 3}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{label} {i}")
    return folder


@pytest.mark.parametrize("by", ["filename", "subdir"])
def test_images_with_new_labels_keep_their_side(two_classes: Path, by: Literal["filename", "subdir"]) -> None:
    before = drawn(two_classes, by=by)
    assert {e.split for e in before.values()} == {"train", "test"}
    moved = [e.path for e in before.values() if int(Path(e.path).stem) % 3 == 0]
    Annotations(two_classes).decide({path: "dog" if path.startswith("cat") else "cat" for path in moved})
    after = drawn(two_classes, by=by)
    changed = [key for key in before if after[key].split != before[key].split]
    if by == "filename":
        assert not changed
    sides: dict[str, set[str]] = {}
    for e in after.values():
        sides.setdefault(e.group, set()).add(e.split)
    assert all(len(found) == 1 for found in sides.values()), "a group has one side"
    assert len(changed) <= len(moved) / 2


def test_a_class_that_lacks_a_side_is_drawn_anew(two_classes: Path) -> None:
    before = drawn(two_classes)
    tested = [e.path for e in before.values() if e.split == "test" and e.label == "cat"]
    Annotations(two_classes).decide(dict.fromkeys(tested, "dog"))
    after = drawn(two_classes)
    cats = [e.split for e in after.values() if e.label == "cat"]
    assert 5 < cats.count("test") < len(cats) / 2
    dogs = {key: e for key, e in after.items() if e.label == "dog"}
    assert all(e.split == before[key].split for key, e in dogs.items()), "the other class stays as it is"
