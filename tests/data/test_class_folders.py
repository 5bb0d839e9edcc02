"""Which folders are classes, and which are parts of a split."""

import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from libraries.base.errors import InputError
from libraries.data.class_folders import find_class_folders

PARTED = [
    (["train/cat/1.png", "train/dog/1.png", "test/cat/1.png"], {"train": "train", "test": "test"}),
    (
        ["Training/cat/1.png", "validation/dog/1.png", "TESTING/cat/1.png", "Training/dog/1.png"],
        {"Training": "train", "validation": "train", "TESTING": "test"},
    ),
    (["train/cat/1.png", "val/cat/1.png", "val/dog/2.png"], {"train": "train", "val": "train"}),
    (["train/cat/1.png", "train/dog/2.png"], {"train": "train"}),
    (["train/cat/1.png", "test/cat/1.png", "test/test/1.png", "train/labels.csv"], {"train": "train", "test": "test"}),
    (["train/cat/1.png", "train/dog/1.png", "test1/dog/1.png"], {"train": "train", "test1": "test"}),
    (["train/cat/1.png", "train/dog/1.png", "val/labels.csv"], {"train": "train", "val": "train"}),
    (
        ["train/cat/1.png", "val/dog/1.png", "val/cat/1.png", "test/dog/1.png"],
        {"train": "train", "val": "train", "test": "test"},
    ),
]
NOT_PARTED = [
    ["train/1.png", "test/1.png"],
    ["train/1.png", "train/steam/2.png", "test/rig/1.png"],
    ["train/steam/1.png", "train/diesel/2.png", "car/1.png"],
    ["train/object1/1.png", "test/object2/2.png"],
    ["train/object1/1.png", "test/2.png"],
    ["train/1.png", "test1/2.png"],
    ["train/steam/1.png", "train/diesel/2.png", "test/track/1.png", "car/1.png"],
    ["train/steam/1.png", "train/diesel/2.png", "train/3.png", "test/track/1.png"],
    ["val/cat/1.png", "test/cat/1.png"],
    ["cat/train/1.png", "dog/train/1.png"],
]
UNCLEAR = [
    (["train/cat/1.png", "test/cat/1.png", "extra/1.png"], "and also extra: move that elsewhere"),
    (["train/cat/1.png", "test/cat/1.png", "train/2.png"], r"an image \(2.png\), like a class"),
    (["train/cat/1.png", "train/dog/1.png", "test/7.png"], r"test holds images \(7.png\), and no class folders"),
    (["train/cat/1.png", "val/cat/1.png", "test/7.png"], r"test holds images \(7.png\), and no class folders"),
    (["train/cat/1.png", "train/dog/1.png", "test1/7.png"], r"test1 holds images \(7.png\), and no class folders"),
    (["train/cat/1.png", "train/dog/1.png", "test/unknown/7.png"], r"test holds unknown/, and no class folders like"),
    (
        ["train/cat/1.png", "train/dog/1.png", "test1/test/7.png"],
        r"test1 holds test/, .* move .*; or, if test1 and train",
    ),
    (["train/cat/1.png", "train/dog/1.png", "val/cow/7.png"], r"val holds cow/, and no class folders like"),
    (["train/cat/1.png", "val/cat/1.png", "test/unknown/7.png"], r"test holds unknown/, and no class folders like"),
    (["train/cat/1.png", "test/Cat/1.png", "test/cat/2.png"], "differ only in case"),
    (["train/cat/1.png", "test/cat/2.png", "test/a./2.png"], "cannot be a folder name"),
]


def made(folder: Path, paths: list[str]) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


@pytest.mark.parametrize(("paths", "parts"), PARTED)
def test_parts_of_a_split(tmp_path: Path, paths: list[str], parts: dict[str, str]) -> None:
    folders = find_class_folders(made(tmp_path, paths))
    assert folders.parts == parts
    images = [path for path in paths if path.endswith(".png")]
    assert set(folders.by_label) == {path.split("/")[1] for path in images}
    for path in images:
        part, label, name = path.split("/")
        assert (folders.label(path), folders.inside(path), folders.side(path)) == (label, name, parts[part])
        assert f"{part}/{label}" in folders.by_label[label]


@pytest.mark.parametrize("paths", NOT_PARTED)
def test_classes_that_are_called_so(tmp_path: Path, paths: list[str]) -> None:
    folders = find_class_folders(made(tmp_path, paths))
    assert folders.parts == {}
    assert folders.by_label == {label: [label] for label in sorted({path.split("/")[0] for path in paths})}


@pytest.mark.parametrize(("paths", "problem"), UNCLEAR)
def test_what_is_not_clear_is_refused(tmp_path: Path, paths: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        find_class_folders(made(tmp_path, paths))
    assert "\n" not in str(raised.value)


def test_another_label_stays_on_its_side(tmp_path: Path) -> None:
    folders = find_class_folders(made(tmp_path, ["train/cat/a/1.png", "train/dog/1.png", "test/cat/1.png"]))
    assert folders.under("dog", "train/cat/a/1.png") == "train/dog/a/1.png"
    assert folders.under("dog", "test/cat/1.png") == "test/dog/1.png"
    assert folders.summary() == "training images in train/; test images in test/"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_labels_are_composed_and_folders_as_they_are(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "M\u00fcll")
    made(tmp_path, [f"train/{apart}/1.png", "train/cat/1.png", "test/M\u00fcll/1.png"])
    folders = find_class_folders(tmp_path)
    assert folders.by_label["M\u00fcll"] == ["test/M\u00fcll", f"train/{apart}"]
    assert folders.under("M\u00fcll", "train/cat/1.png") == f"train/{apart}/1.png"
    made(tmp_path, ["train/M\u00fcll/1.png"])
    with pytest.raises(InputError, match=r"'M\\xfcll' and 'Mu\\u0308ll'|'Mu\\u0308ll' and 'M\\xfcll'"):
        find_class_folders(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find_class_folders(tmp_path / "none")


def test_a_part_that_holds_images_without_a_suffix_is_unclear(tmp_path: Path) -> None:
    folder = made(tmp_path, ["train/cat/1.png", "train/dog/1.png", "test/IMG_0001"])
    Image.new("L", (4, 4)).save(folder / "test/IMG_0001", "PNG")
    with pytest.raises(InputError, match=r"test holds images \(IMG_0001\), and no class folders"):
        find_class_folders(folder)
