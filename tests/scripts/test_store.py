"""The runs after the first: what was computed from an image is not computed again, and the results are the same."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from libraries.base import large_arrays
from libraries.base.layout import Layout
from libraries.data.dataset import Example, read_examples
from libraries.network.embedding_store import Features, read_features
from libraries.network.runners import RunOptions
from PARAMETERS import Parameters
from tests.conftest import hashes, run_main, small_run
from tests.scripts.conftest import FINISHED

STEPS = ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate")


@pytest.fixture
def finished(stages: Path, tmp_path: Path) -> Parameters:
    """Scripts 1 to 5 have run, on images of its own."""
    parameters = small_run(shutil.copytree(stages / FINISHED, tmp_path / "data"))
    run_main("1_prepareData", parameters)  # remembers the copies
    return parameters


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images over which step 3 runs the network."""
    names: list[str] = []
    real = RunOptions.open

    class Engine:
        def __init__(self, options: RunOptions, folder: Path) -> None:
            self._engine = real(options, folder)

        def stream(self, examples: object, load: Callable[..., object]) -> object:
            def noted(example: Example) -> object:
                names.append(example.path)
                return load(example)

            return self._engine.stream(examples, noted)  # type: ignore[arg-type]

    monkeypatch.setattr(RunOptions, "open", lambda options, folder: Engine(options, folder))
    return names


def embeddings(parameters: Parameters) -> Features:
    return read_features(Layout(parameters).features.folder)


def first_image(parameters: Parameters) -> Path:
    layout = Layout(parameters)
    return layout.images / read_examples(layout.examples.folder / "examples.csv")[0].path


@pytest.mark.parametrize("change", ["label", "name", "removed", "split", "other data set"])
def test_what_is_known_is_not_computed(finished: Parameters, computed: list[str], change: str) -> None:
    path, parameters = first_image(finished), finished
    match change:
        case "label":
            other = next(folder for folder in sorted(path.parent.parent.iterdir()) if folder != path.parent)
            path.rename(other / f"moved {path.name}")
        case "name":
            path.rename(path.with_name(f"renamed {path.name}"))
        case "removed":
            path.unlink()
        case "split":
            parameters = finished.model_copy(update={"randomSeed": 5, "ratioTrainTest": 0.5})
        case "other data set":
            shutil.copytree(path.parent.parent, path.parent.parent.with_name("copied"))
            parameters = finished.model_copy(update={"datasetName": "copied"})
            run_main("2_refineDNN", parameters)
    for step in STEPS:
        run_main(step, parameters)
    assert computed == []
    fresh = parameters.model_copy(update={"storeGigabytes": 0.0})
    expected = embeddings(parameters)
    shutil.rmtree(Layout(parameters).features.folder)
    run_main("3_runDNN", fresh)
    found = embeddings(fresh)
    assert len(computed) == len(found.path)
    assert (found.path, found.label, found.split) == (expected.path, expected.label, expected.split)
    assert (found.embedding == expected.embedding).all(), "to the bit"


def test_only_new_images_are_computed(finished: Parameters, computed: list[str]) -> None:
    from PIL import Image

    path = first_image(finished)
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path.with_name("new.png"))
    for step in STEPS:
        run_main(step, finished)
    assert [Path(name).name for name in computed] == ["new.png"]


def test_another_network_is_computed(finished: Parameters, computed: list[str]) -> None:
    other = finished.model_copy(update={"rf_resizeMode": "stretch"})
    run_main("2_refineDNN", other)
    run_main("3_runDNN", other)
    assert len(computed) == len(embeddings(other).path)


def test_without_the_store_the_results_are_the_same(finished: Parameters) -> None:
    before = hashes(finished.rootDir)
    shutil.rmtree(finished.rootDir / "store")
    shutil.rmtree(Layout(finished).features.folder)
    for step in STEPS:
        run_main(step, finished)
    assert hashes(finished.rootDir) == before


def test_arrays_in_files_give_the_same_results(finished: Parameters, monkeypatch: pytest.MonkeyPatch) -> None:
    root = finished.rootDir
    before = hashes(root)
    made: list[int] = []
    reserve = large_arrays._reserve

    def noted(file: IO[bytes], size: int) -> None:
        made.append(size)
        reserve(file, size)

    monkeypatch.setattr(large_arrays, "LARGE", 1)
    monkeypatch.setattr(large_arrays, "_reserve", noted)
    for step in ("4_trainSVM", "5_evaluate"):
        run_main(step, finished)
    assert len(made) >= 4
    assert hashes(root) == before


def test_the_whole_bundle_says_of_all_test_images_what_it_says_of_a_sample(finished: Parameters) -> None:
    before = hashes(Layout(finished).evaluation.folder)
    run_main("5_evaluate", finished, recheck=True)
    assert hashes(Layout(finished).evaluation.folder) == before


def test_a_bundle_that_says_something_else_of_images_than_of_their_embeddings_is_refused(
    finished: Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    from libraries.base.errors import StaleInput
    from libraries.classifier import bundle

    real = bundle.open_part

    def wrong(*arguments: object, **options: object) -> Callable[..., object]:
        part = real(*arguments, **options)  # type: ignore[arg-type]
        return lambda embeddings: part(embeddings[::-1])

    monkeypatch.setattr(bundle, "open_part", wrong)
    with pytest.raises(StaleInput, match=r"run scripts/3_runDNN\.py and scripts/4_trainSVM\.py again"):
        run_main("5_evaluate", finished)
