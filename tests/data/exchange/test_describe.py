"""metadata.csv and croissant.json, read by the libraries that they are for."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from libraries.data.dataset import Example, scan
from libraries.data.exchange.describe import describe
from libraries.data.listing import image_files

pytestmark = pytest.mark.filterwarnings("ignore")  # what those libraries warn of is not ours to mend


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Four images of two classes, one in a sub-folder, two formats."""
    found = []
    for i, path in enumerate(("cat/a.jpg", "cat/tom/b.png", "dog, big/c.jpg", "dog, big/d.PNG")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + i, 8), (50 * i, 0, 0)).save(tmp_path / path)
        split = "test" if i % 2 else "train"
        found.append(Example(path, path.split("/")[0], split, path, 8 + i, 8, 1, "0" * 64))
    return found


def test_hugging_face_loads_it(tmp_path: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    describe(tmp_path, examples, name="pets")
    folder = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / ".cache"))["train"]
    assert sorted(zip(folder["label"], folder["split"], strict=True)) == sorted((e.label, e.split) for e in examples)
    widths = {row["image"].width: row["label"] for row in folder}
    assert widths == {e.width: e.label for e in examples}


def test_croissant_is_valid_and_gives_the_records(
    tmp_path: Path, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    _, croissant = describe(tmp_path, examples, name="pets")
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(croissant))  # raises where it is not valid
    assert "context" not in caplog.text
    records = [{key.split("/")[1]: value for key, value in row.items()} for row in dataset.records("examples")]
    assert sorted((r["path"].decode(), r["label"].decode(), r["split"].decode()) for r in records) == sorted(
        (e.path, e.label, e.split) for e in examples
    )
    images = {row["images/path"].decode(): row for row in dataset.records("images")}
    assert set(images) == {e.path for e in examples}
    for example in examples:
        assert images[example.path]["images/label"].decode() == example.label
        assert images[example.path]["images/image"].size == (example.width, example.height)


def test_the_folder_stays_what_it_was(tmp_path: Path, examples: list[Example]) -> None:
    before = scan(tmp_path).paths
    describe(tmp_path, examples, name="pets")
    assert scan(tmp_path).paths == before and not image_files(tmp_path / "cat").others
