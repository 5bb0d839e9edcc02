"""Warnings about images that are new or gone since script 1."""

import shutil
from pathlib import Path

import pytest

from libraries.base.layout import Layout
from libraries.base.storage import write_json
from libraries.data import checking, dataset
from libraries.data.dataset import changes_since_prepared
from tests.conftest import small_run
from tests.data.test_dataset import two_classes


@pytest.fixture
def prepared(tmp_path: Path) -> Layout:
    """A data set of two classes as script 1 leaves it, with a file that is not an image."""
    layout = Layout(small_run(tmp_path))
    two_classes(layout.images)
    (layout.images / "cat" / "text.jpg").write_text("no picture")
    checked = checking.check_images(layout.images, dataset.scan(layout.images), workers=1)
    table = layout.examples.folder / "examples.csv"
    dataset.write_examples(table, checked.examples)
    layout.examples.commit([table], left_out=[str(error.path) for error in checked.refused])
    return layout


def test_no_warning_where_nothing_has_changed(prepared: Layout) -> None:
    (prepared.images / "cat" / "notes.txt").touch()
    assert changes_since_prepared(prepared) == ""


def test_new_and_missing_images_are_reported(prepared: Layout) -> None:
    shutil.copytree(prepared.images / "dog", prepared.images / "wolf")
    assert changes_since_prepared(prepared) == (
        "Warning: 3 images are new (such as wolf/0.png) since the data set was prepared: "
        "run scripts/1_prepareData.py again"
    )
    shutil.rmtree(prepared.images / "wolf")
    (prepared.images / "cat" / "1.png").rename(prepared.images / "cat" / "9.png")
    warning = "1 image is new (such as cat/9.png) and 1 image is gone (such as cat/1.png) since"
    assert warning in changes_since_prepared(prepared)
    (prepared.images / "cat" / "9.png").unlink()
    assert "Warning: 1 image is gone (such as cat/1.png) since" in changes_since_prepared(prepared)


def test_no_warning_for_a_data_set_that_an_earlier_version_prepared(prepared: Layout) -> None:
    manifest = prepared.examples.read()
    del manifest["left_out"]
    write_json(prepared.examples.manifest, manifest)
    assert changes_since_prepared(prepared) == ""


def test_folders_that_script_1_would_refuse(prepared: Layout) -> None:
    (prepared.images / "empty").mkdir()
    assert changes_since_prepared(prepared) == "", "without images it says nothing of images"
    (prepared.images / "Cat").mkdir()
    problem = "can no longer be prepared as they are: labels 'Cat' and 'cat' differ only in case"
    assert problem in changes_since_prepared(prepared)
