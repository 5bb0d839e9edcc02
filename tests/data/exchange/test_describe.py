"""metadata.csv and croissant.json, read by the libraries that they are for."""

import csv
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from libraries.base.tables import plain
from libraries.data.class_folders import image_files
from libraries.data.dataset import Example, scan
from libraries.data.exchange.export import describe, is_ours

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of those libraries are not ours to fix


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Images of three classes, one in a sub-folder, two formats; a spreadsheet would take a label for a formula."""
    found = []
    for i, path in enumerate(("cat/a.jpg", "cat/tom/b.png", "dog, big/c.jpg", "dog, big/d.PNG", "=1/-x.png")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 8), (50 * i, 0, 0)).save(tmp_path / path)
        split = "test" if i % 2 else "train"
        found.append(Example(path, path.split("/")[0], split, path, 8 + i, 8, 1, "0" * 64))
    return found


def write(folder: Path, examples: list[Example]) -> Path:
    """Both files; gives the path of croissant.json."""
    for name, text in describe(examples, name="pets").items():
        (folder / name).write_bytes(text.encode())
    return folder / "croissant.json"


def test_hugging_face_loads_it(tmp_path: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    write(tmp_path, examples)
    folder = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / ".cache"))["train"]
    rows = {row["image"].width: (plain(row["label"]), row["split"]) for row in folder}
    assert rows == {e.width: (e.label, e.split) for e in examples}


def test_croissant_is_valid_and_gives_the_records(
    tmp_path: Path, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    croissant = write(tmp_path, examples)
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(croissant))  # raises where it is not valid
    assert "context" not in caplog.text
    records = [{key.split("/")[1]: value for key, value in row.items()} for row in dataset.records("examples")]
    assert sorted(
        (r["path"].decode().removeprefix("./"), plain(r["label"].decode()), r["split"].decode()) for r in records
    ) == sorted((e.path, e.label, e.split) for e in examples)
    images = {row["images/path"].decode(): row for row in dataset.records("images")}
    assert set(images) == {e.path for e in examples}
    for example in examples:
        assert images[example.path]["images/label"].decode() == example.label
        assert images[example.path]["images/image"].size == (example.width, example.height)


def test_the_folder_stays_what_it_was(tmp_path: Path, examples: list[Example]) -> None:
    before = scan(tmp_path).paths
    write(tmp_path, examples)
    assert scan(tmp_path).paths == before and not image_files(tmp_path / "cat").others


def test_no_cell_is_a_formula_and_every_file_name_is_the_path(tmp_path: Path, examples: list[Example]) -> None:
    write(tmp_path, examples)
    with (tmp_path / "metadata.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    assert [(tmp_path / name).resolve() for name, *_ in rows] == [(tmp_path / e.path).resolve() for e in examples]
    assert not [cell for row in rows for cell in row if cell.startswith(tuple("=+-@"))]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("metadata.csv", lambda text: text.replace("test", "train", 1)),
        ("metadata.csv", lambda text: text.rpartition("=")[0]),
        ("metadata.csv", lambda text: "file_name,patient,age\ncat/000.png,P1,55\n"),
        ("metadata.csv", lambda text: "\xff"),
        ("croissant.json", lambda text: text.replace('"name": "pets"', '"name": "pets", "license": "CC BY"')),
        ("croissant.json", lambda text: text.replace("  ", " ")),
        ("croissant.json", lambda text: "[]"),
        ("croissant.json", lambda text: "[" * 100_000),
        ("croissant.json", lambda text: '{"name": {}}'),
    ],
)
def test_own_files_are_distinguished_from_changed_ones(
    tmp_path: Path, examples: list[Example], name: str, change: Callable[[str], str]
) -> None:
    write(tmp_path, examples)
    assert is_ours(tmp_path / "metadata.csv") and is_ours(tmp_path / "croissant.json")
    text = (tmp_path / name).read_bytes().decode()
    assert change(text) != text
    (tmp_path / name).write_bytes(change(text).encode("latin-1" if change(text) == "\xff" else "utf-8"))
    assert not is_ours(tmp_path / "metadata.csv") and not is_ours(tmp_path / "croissant.json")


def test_labels_where_the_split_is_on_disk(tmp_path: Path) -> None:
    paths = ("train/cat/a.jpg", "train/=1/b.jpg", "test/cat/tom/c.jpg")
    examples = [Example(path, path.split("/")[1], "train", path, 8, 8, 1, "0" * 64) for path in paths]
    croissant = write(tmp_path, examples)
    assert is_ours(croissant)
    fields = {each["@id"]: each for each in json.loads(croissant.read_text())["recordSet"][1]["field"]}
    regex = fields["images/label"]["source"]["transform"]["regex"]
    assert [re.match(regex, path)[1] for path in paths] == [e.label for e in examples]  # type: ignore[index]
