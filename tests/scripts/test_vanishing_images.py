"""Images that vanish after script 1: one line names the image and the script to run, and nothing half-made stays."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from libraries.base.errors import PipelineError, StaleInput
from libraries.base.layout import Layout
from libraries.data import dataset
from libraries.network.embedding_store import read_features
from PARAMETERS import Parameters
from tests.conftest import STEPS, run_main, small_run, texture
from tests.network.graphs import networks
from tests.scripts.test_bad_images import read_csv


@pytest.fixture
def prepared(tmp_path: Path) -> Parameters:
    """A data set after scripts 1 and 2, with a network that is no more than a convolution."""
    generator = np.random.default_rng(0)
    for label in ("stripes", "checks"):
        (tmp_path / "images" / "textures" / label).mkdir(parents=True)
        for i in range(8):
            texture(label, generator).save(tmp_path / "images" / "textures" / label / f"{i}.png")
    network = networks.write(tmp_path / "network.onnx")
    parameters = small_run(tmp_path, rf_pretrainedModelFilename=str(network), svm_CVals=(0.1,), svm_folds=2)
    for step in STEPS[:2]:
        run_main(step, parameters)
    return parameters


@contextlib.contextmanager
def vanishing(paths: list[Path]) -> Iterator[None]:
    """Images are gone once a script has read one image."""
    read, one_at_a_time = dataset.read_example, threading.Lock()

    def reading(example: dataset.Example, *, folder: Path) -> bytes:
        with one_at_a_time:
            data = read(example, folder=folder)
            for path in set(paths) - {folder / example.path}:
                path.unlink(missing_ok=True)
            return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "read_example", reading)
        yield


def images(parameters: Parameters, split: str) -> list[Path]:
    """The images on one side of the split."""
    layout = Layout(parameters)
    examples = dataset.read_examples(layout.examples.folder / "examples.csv")
    return [layout.images / example.path for example in examples if example.split == split]


def stops_in(step: str, parameters: Parameters, *, gone: list[Path]) -> None:
    """A script stops where an image is gone before it begins, and where they vanish meanwhile, each time with one line
    that names one of them."""
    lines = {
        f"{path} cannot be read any more (No such file or directory): run scripts/1_prepareData.py again"
        for path in gone
    }
    content = gone[0].read_bytes()
    gone[0].unlink()
    with pytest.raises(StaleInput) as before:
        run_main(step, parameters)
    gone[0].write_bytes(content)
    with vanishing(gone), pytest.raises(StaleInput) as meanwhile:
        run_main(step, parameters)
    assert {str(before.value), str(meanwhile.value)} <= lines


def finishes(parameters: Parameters) -> None:
    """From script 1 on, all is made again, of the images that are left."""
    for step in STEPS:
        run_main(step, parameters)
    layout = Layout(parameters)
    left = {path for path in layout.images.glob("*/*") if path.is_file()}
    tested = read_csv(layout.proc / "evaluation_svm" / "predictions.csv")
    assert {layout.images / path for path in read_features(layout.features.folder).path} == left
    assert {layout.images / row["path"] for row in tested} == {*images(parameters, "test")} < left


def test_before_and_while_the_embeddings_are_computed(prepared: Parameters) -> None:
    stops_in("3_runDNN", prepared, gone=images(prepared, "test"))
    with pytest.raises(PipelineError, match=r"run scripts/3_runDNN\.py"):
        run_main("4_trainSVM", prepared)
    finishes(prepared)


def test_before_and_while_the_bundle_is_evaluated(prepared: Parameters) -> None:
    for step in STEPS[2:4]:
        run_main(step, prepared)
    stops_in("5_evaluate", prepared, gone=images(prepared, "test"))
    assert not any((Layout(prepared).proc / "evaluation_svm").glob("*"))
    finishes(prepared)
