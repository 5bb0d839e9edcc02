"""Script 1 with others: descriptions written, labels of Label Studio taken over, findings listed."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from libraries.base.errors import InputError, StorageError
from PARAMETERS import Parameters
from tests.conftest import hashes, run_main, small_run


@pytest.fixture
def parameters(tmp_path: Path, pictures: Path) -> Parameters:
    """Of a data set of its own."""
    shutil.copytree(pictures, tmp_path / "data" / "images" / "textures")
    return small_run(tmp_path / "data")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_and_back(parameters: Parameters, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_main("1_prepareData", parameters, export=True)
    images, proc = parameters.rootDir / "images" / "textures", parameters.rootDir / "proc" / "textures"
    assert len(rows(images / "metadata.csv")) == 48 and json.loads((images / "croissant.json").read_text())
    tasks = json.loads((proc / "labelStudio" / "tasks.json").read_text())
    assert len(tasks) == 48 and (proc / "labelStudio" / "interface.xml").exists()

    choose = {"blobs/00.png": "stripes", "blobs/01.jpg": "excluded", "checks/02.jpg": "no label"}
    for task in tasks:
        if choice := choose.get(task["data"]["path"]):
            chosen = {**task["predictions"][0]["result"][0], "value": {"choices": [choice]}}
            task["annotations"] = [{"was_cancelled": False, "result": [chosen]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    run_main("1_prepareData", small_run(parameters.rootDir, importLabels=tmp_path / "export.json"))
    said = capsys.readouterr().out
    assert "2 labels and marks imported" in said and "there is no label 'no label'" in said
    labels = {row["path"]: row["label"] for row in rows(proc / "examples.csv")}
    assert labels["stripes/00-2.png"] == "stripes" and "blobs/01.jpg" not in labels and len(labels) == 47

    run_main("1_prepareData", small_run(parameters.rootDir, importLabels=tmp_path / "export.json"))
    assert "0 labels and marks imported" in capsys.readouterr().out, "the image has moved, and is marked already"


@pytest.mark.parametrize("name", ["metadata.csv", "croissant.json", "interface.xml"])
def test_export_never_overwrites_what_the_user_made(parameters: Parameters, name: str) -> None:
    proc = parameters.rootDir / "proc" / "textures"
    folder = proc / "labelStudio" if name.endswith("xml") else parameters.rootDir / "images" / "textures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("file_name,patient,age\ncat/000.png,P1,55\n")
    before = hashes(parameters.rootDir)
    with pytest.raises(StorageError, match=rf"{name} was not written by this script, or has been changed since"):
        run_main("1_prepareData", parameters, export=True)
    assert hashes(parameters.rootDir) == before
    run_main("1_prepareData", parameters)
    (folder / name).unlink()
    run_main("1_prepareData", parameters, export=True)
    run_main("1_prepareData", parameters, export=True)


def test_the_users_table_of_labels_is_not_overwritten_by_an_export(tmp_path: Path, pictures: Path) -> None:
    table = tmp_path / "data" / "images" / "textures" / "metadata.csv"
    table.parent.mkdir(parents=True)
    names = [path.relative_to(pictures).as_posix() for path in sorted(pictures.rglob("*.*"))]
    table.write_text("".join(["file_name,label\n", *(f"{name},{name.partition('/')[0]}\n" for name in names)]))
    parameters = small_run(tmp_path / "data", imgLabelsPath=table, imgFolder=pictures)
    run_main("0_downloadData", parameters)
    before = hashes(table.parent)
    with pytest.raises(StorageError, match=r"metadata\.csv was not written by this script, or has been changed since"):
        run_main("1_prepareData", parameters, export=True)
    assert hashes(table.parent) == before and len(before) == len(names) + 1


def test_another_file_names_what_to_do(parameters: Parameters, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("no JSON")
    with pytest.raises(InputError, match="is not an export of Label Studio in JSON"):
        run_main("1_prepareData", small_run(parameters.rootDir, importLabels=tmp_path / "export.json"))


def test_findings_are_listed(parameters: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (200, 200), (20, 20, 60)).save(parameters.rootDir / "images" / "textures" / "blobs" / "black.png")
    run_main("1_prepareData", parameters)
    said = capsys.readouterr().out
    assert "Worth a second look: 1 dark, " in said and "1 uniform (showImages.ipynb shows them)" in said
    found = rows(parameters.rootDir / "proc" / "textures" / "quality.csv")
    assert [row["finding"] for row in found if row["path"] == "blobs/black.png"] == ["dark", "uniform"]
