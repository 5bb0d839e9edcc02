"""Data sets as people have them: divided on disk, with names in another form of Unicode, and with new images."""

import csv
import json
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest

from libraries.base.errors import InputError
from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.widgets.images import ImageViewer
from PARAMETERS import Parameters
from tests.conftest import files, run_main, small_run

APART = unicodedata.normalize("NFD", "M\u00fcll")  # a label as macOS may write it


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def divided(tmp_path: Path, pictures: Path) -> Parameters:
    """A data set of two classes, divided on disk: 9 + 3 training images and 4 test images of each."""
    parameters = small_run(tmp_path / "data")
    images = parameters.rootDir / "images" / "textures"
    for source, label in (("stripes", APART), ("blobs", "blobs")):
        for number, path in enumerate(sorted((pictures / source).iterdir())):
            target = images / ("Train" if number < 9 else "val" if number < 12 else "test") / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return parameters


def test_a_split_on_disk_is_taken_over(divided: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    run_main("1_prepareData", divided)
    said = capsys.readouterr().out
    assert "The split is on disk: training images in Train/ and val/; test images in test/" in said
    assert "Warning" not in said
    proc = divided.rootDir / "proc" / "textures"
    examples = rows(proc / "examples.csv")
    assert {e["label"] for e in examples} == {"M\u00fcll", "blobs"}, "labels are composed"
    assert {(e["path"].split("/")[0], e["split"]) for e in examples} == {
        *(("Train", "train"), ("val", "train"), ("test", "test"))
    }


def test_images_of_a_divided_data_set_are_looked_at_and_relabelled(divided: Parameters) -> None:
    run_main("1_prepareData", divided)
    viewer = ImageViewer.of(Layout(divided))
    assert [(label["name"], label["images"]) for label in viewer.state["labels"]] == [("M\u00fcll", 16), ("blobs", 16)]
    viewer.act({"do": "filter", "label": "M\u00fcll", "split": "test"})
    assert [item["name"] for item in viewer.state["items"]] == ["12.png", "13.jpg", "14.jpg", "15.jpg"]
    chosen = viewer.state["items"][0]["id"]
    viewer.act({"do": "relabel", "images": [chosen], "label": "blobs"})
    assert viewer.path(chosen) == "test/blobs/12-2.png" and viewer.item(chosen)["was"] == "M\u00fcll"
    viewer.act({"do": "relabel", "images": [chosen], "label": "M\u00fcll"})
    assert viewer.path(chosen) == f"test/{APART}/12-2.png"
    viewer.close()


def test_duplicates_and_descriptions_of_a_divided_data_set(
    divided: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    images = divided.rootDir / "images" / "textures"
    shutil.copy(images / "Train" / "blobs" / "01.jpg", images / "test" / "blobs" / "copy.jpg")
    before = files(images)
    run_main("1_prepareData", divided, export=True)
    assert "1 of these test images has a duplicate in training" in capsys.readouterr().out
    assert {row["file_name"]: row["split"] for row in rows(images / "metadata.csv")}["test/blobs/copy.jpg"] == "test"
    (extracted,) = (
        field["source"]["transform"]["regex"]
        for record_set in json.loads((images / "croissant.json").read_text(encoding="utf-8"))["recordSet"]
        for field in record_set["field"]
        if "transform" in field["source"]
    )
    found = re.match(extracted, "Train/blobs/01.jpg")
    assert found and found[1] == "blobs"
    run_main("1_prepareData", divided, removeDuplicates=True)
    assert (images / ".duplicates" / "test" / "blobs" / "copy.jpg").exists()
    run_main("1_prepareData", divided, restoreDuplicates=True)
    assert before <= files(images)


def test_a_list_of_test_images_comes_before_the_folders(
    divided: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    images = divided.rootDir / "images" / "textures"
    listed = [f"Train/M\u00fcll/{name}" for name in ("00.png", "01.jpg")]
    (images / "dedicatedTestImages.tsv").write_text("\n".join(listed), encoding="utf-16")
    run_main("1_prepareData", divided)
    assert "dedicatedTestImages.tsv, not the one in the folders" in capsys.readouterr().out
    examples = rows(divided.rootDir / "proc" / "textures" / "examples.csv")
    assert [e["path"] for e in examples if e["split"] == "test"] == [f"Train/{APART}/00.png", f"Train/{APART}/01.jpg"]


def test_without_a_test_folder_the_test_images_are_drawn(
    divided: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    images = divided.rootDir / "images" / "textures"
    for label in ("blobs", APART):
        for part in ("Train", "val"):
            (images / part / label / "object").mkdir()
            for path in [p for p in (images / part / label).iterdir() if p.name < "10" and p.is_file()]:
                path.rename(path.parent / "object" / path.name)
    shutil.rmtree(images / "test")
    run_main("1_prepareData", small_run(divided.rootDir, imagesSplitBy="subdir"))
    assert "There is no folder test/: the test images are drawn from all" in capsys.readouterr().out
    examples = rows(divided.rootDir / "proc" / "textures" / "examples.csv")
    assert {e["split"] for e in examples} == {"train", "test"}
    groups = {e["group"] for e in examples if "/object/" in e["path"]}
    assert groups == {"blobs/object", "M\u00fcll/object"}, "an object of two parts is one"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take both forms for one name")
def test_annotations_follow_to_a_disk_with_another_form(tmp_path: Path, pictures: Path) -> None:
    apart, composed = tmp_path / "apart", tmp_path / "composed"
    for folder, label in ((apart, APART), (composed, "M\u00fcll")):
        shutil.copytree(pictures / "stripes", folder / label)
        shutil.copytree(pictures / "blobs", folder / "blobs")
        (folder / label / "00.png").rename(folder / label / unicodedata.normalize("NFD", "\u00e9.png"))
    there = Annotations(apart)
    there.relabel([f"{APART}/{unicodedata.normalize('NFD', chr(233))}.png", f"{APART}/01.jpg"], "blobs")
    there.relabel(["blobs/02.jpg"], "M\u00fcll")
    there.mark([f"{APART}/03.jpg"], "excluded")
    shutil.copy(apart / "annotations.jsonl", composed)
    here = Annotations(composed)
    assert here.marks == {"M\u00fcll/03.jpg": "excluded"} and here.state == there.state
    assert len(here.replay().changes) == 3 and here.pending() == {}
    in_c = [{unicodedata.normalize("NFC", p) for p in files(f) if p[0] != "."} for f in (apart, composed)]
    assert in_c[0] == in_c[1]
    assert not (composed / APART).exists()
    assert here.undo().problems == () and here.marks == {}


def test_a_wrong_list_of_test_images_is_told_before_the_images_are_read(
    divided: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    (divided.rootDir / "images" / "textures" / "dedicatedTestImages.tsv").write_text("blobs\tnone.png\n")
    with pytest.raises(InputError, match=r"line 1: there is no intact image 'blobs/none\.png'"):
        run_main("1_prepareData", divided)
    assert "Checking" not in capsys.readouterr().err
