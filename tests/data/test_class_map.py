"""Classes other than the folders: merged, split, renamed, left out."""

from pathlib import Path

import pytest

from libraries.base.errors import InputError, MissingInput
from libraries.data.class_folders import ClassFolders
from libraries.data.class_map import ClassMap

FOLDERS = ClassFolders({"cat": ["cat"], "dog": ["dog"], "owl": ["owl"]}, {})


def read(folder: Path, text: str, folders: ClassFolders = FOLDERS) -> ClassMap:
    path = folder / "classes.csv"
    path.write_text(text, encoding="utf-8")
    return ClassMap.read(path, folders)


def test_folders_are_merged_renamed_split_and_left_out(tmp_path: Path) -> None:
    classes = read(tmp_path, "images,class\ncat/siamese/*,siamese\ncat,pet\ndog,pet\nowl/*night*,\n")
    assert classes.label("cat/1.png") == classes.label("dog/x/2.png") == "pet"
    assert classes.label("cat/siamese/1.png") == "siamese"
    assert classes.label("owl/1.png") == "owl", "what is not named stays"
    assert classes.label("owl/by night 1.png") == "", "left out"
    assert classes.label(".pool/1.png") == ""


def test_the_first_row_that_fits_counts(tmp_path: Path) -> None:
    assert read(tmp_path, "images,class\ncat,one\ncat/a*,two\n").label("cat/a.png") == "one"
    assert read(tmp_path, "images,class\ncat/a*,two\ncat,one\n").label("cat/a.png") == "two"
    assert read(tmp_path, "images,class\n*/a*,a\n").label("dog/a.png") == "a"
    assert read(tmp_path, "images,class\n*/a*,a\n").label("dog/b.png") == "dog"


def test_without_a_table_each_folder_is_a_class() -> None:
    assert ClassMap.read(None, FOLDERS).label("cat/1.png") == "cat"


def test_where_the_split_is_on_disk_the_pattern_begins_with_the_class(tmp_path: Path) -> None:
    folders = ClassFolders({"cat": ["train/cat", "test/cat"], "dog": ["train/dog"]}, {"train": "train", "test": "test"})
    classes = read(tmp_path, "images;class\ncat/wild/*;lynx\n", folders)
    assert classes.label("train/cat/wild/1.png") == classes.label("test/cat/wild/2.png") == "lynx"
    assert classes.label("test/cat/1.png") == "cat"


def test_names_in_any_form_of_unicode(tmp_path: Path) -> None:
    folders = ClassFolders({"Größe": ["Gro\u0308ße"]}, {})
    assert read(tmp_path, "images,class\nGröße,size\n", folders).label("Gro\u0308ße/1.png") == "size"


def test_where_an_image_of_a_class_belongs(tmp_path: Path) -> None:
    """A class of several folders has no folder of its own, nor has one that is a part of a folder."""
    classes = read(tmp_path, "images,class\ncat,pet\ndog,pet\n")
    labels = {path: classes.label(path) for path in ("cat/1", "dog/1", "owl/1")}
    assert classes.folders_of(labels) == {"owl": "owl"}
    split = read(tmp_path, "images,class\ncat/s/*,siamese\nowl,bird\n")
    labels = {path: split.label(path) for path in ("cat/1", "cat/s/1", "dog/1", "owl/1")}
    assert split.folders_of(labels) == {"dog": "dog", "bird": "owl"}


def test_patterns_that_fit_nothing_are_told(tmp_path: Path) -> None:
    classes = read(tmp_path, "images,class\nmouse,pet\ncat/x*,pet\ndog,pet\n")
    assert classes.unused(["cat/1.png", "dog/1.png"]) == ["mouse", "cat/x*"]
    late = read(tmp_path, "images,class\ncat,pet\ncat/a*,early\n")
    assert late.unused(["cat/a.png", "dog/1.png"]) == ["cat/a*"], "the row before takes it"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected the header images,class"),
        ("folder,label\ncat,pet\n", "line 1: expected the header images,class"),
        ("images,class\ncat\n", "line 2: expected two cells"),
        ("images,class\n,pet\n", "line 2: expected two cells"),
        ("images,class\ncat,pet,3\n", "line 2: expected two cells"),
        ("images,class\ncat,../pet\n", "line 2"),
        ("images,class\ncat,pet\ndog,PET\n", "classes.csv: "),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value) and len(str(caught.value).splitlines()) == 1
    with pytest.raises(MissingInput, match=r"the table of classes .* does not exist"):
        ClassMap.read(tmp_path / "none.csv", FOLDERS)
