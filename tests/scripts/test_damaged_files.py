"""Whatever befalls the files of a run: one line that names the file and what to do, never an unexpected error."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libraries.base import storage
from libraries.base.command import _explained
from libraries.base.errors import PipelineError
from libraries.base.layout import ANNOTATIONS, Layout
from libraries.classifier import learning_curve, sweep
from libraries.classifier import outputs as svm_outputs
from libraries.data.annotations import Annotations
from libraries.data.split import DEDICATED_TEST_IMAGES
from libraries.evaluation import metrics, outputs, plots
from PARAMETERS import Parameters
from tests import fake_service
from tests.conftest import STEPS, files, hashes, run_main, small_run, texture
from tests.network.graphs import networks
from tests.unprivileged import denied

LABELS = ("stripes", "checks", "blobs")
MADE_BY = {  # the beginning of a path below proc/<datasetName>/ → the step that writes it
    "dnn_fixed/": "2_refineDNN",
    "features_svm/": "3_runDNN",
    "svm_svm/": "4_trainSVM",
    "model_svm/metrics.json": "5_evaluate",
    "model_svm/": "4_trainSVM",
    "evaluation_svm/": "5_evaluate",
    "review.csv": "5_evaluate",
    "": "1_prepareData",
}
DAMAGES = ("folder", "denied", "empty", "garbage", "truncated", "broken link")


def step_of(path: str) -> str:
    """The step that writes a file below proc/<datasetName>/."""
    return next(step for beginning, step in MADE_BY.items() if path.startswith(beginning))


@cache
def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that computes once and then gives that again: what it computes is not what these tests are about."""
    results: list[Any] = []

    def remembering(*arguments: Any, **keywords: Any) -> Any:
        if not results:
            results.append(function(*arguments, **keywords))
        return results[0]

    return remembering


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Steps 4 and 5 without their computations and pictures, but for the first time."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (sweep, "sweep"),
            (learning_curve, "learning_curve"),
            (metrics, "metrics"),
            (svm_outputs, "sweep_figure"),
            (learning_curve, "learning_curve_figure"),
            (plots, "roc_and_confusion"),
            (plots, "precision_recall"),
            (plots, "reliability"),
            (outputs, "_mistakes"),
        ):
            patch.setattr(module, name, remembered(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Parameters:
    """A finished run of a network that is no more than a convolution, with a mark and a list of test images."""
    root = tmp_path_factory.mktemp("finished")
    images = root / "images" / "textures"
    generator = np.random.default_rng(0)
    for label in LABELS:
        (images / label).mkdir(parents=True)
        for i in range(6):
            texture(label, generator).save(images / label / f"{i}.jpg")
    Annotations(images).mark(["blobs/5.jpg"], "excluded")
    lines = [f"{label}\t{i}.jpg\n" for label in LABELS for i in (0, 1)]
    (images / DEDICATED_TEST_IMAGES).write_text("".join(lines), encoding="utf-8")
    parameters = small_run(
        root,
        rf_pretrainedModelFilename=str(networks.write(root / "network.onnx")),
        svm_CVals=(0.1, 1.0),
        svm_boL2Normalize=True,
        svm_folds=2,
    )
    for step in STEPS:
        run_main(step, parameters)
    return parameters


def proc(parameters: Parameters) -> Path:
    return Layout(parameters).proc


@contextlib.contextmanager
def damaged(path: Path, how: str) -> Iterator[None]:
    """Something else in the place of a file, or a whole folder, during the block."""
    if how == "denied":
        with denied(path):
            yield
        return
    aside = path.with_name(f"aside-{path.name}")
    path.rename(aside)
    content = aside.read_bytes() if aside.is_file() else b""
    if how == "folder":
        path.mkdir()
        (path / "mine.txt").write_text("of the user", encoding="utf-8")
    elif how == "broken link":
        path.symlink_to("nowhere")
    else:
        garbage = np.random.default_rng(0).bytes(3000)
        path.write_bytes({"empty": b"", "garbage": garbage, "truncated": content[: len(content) // 2]}[how])
    try:
        yield
        assert how != "folder" or (path / "mine.txt").exists(), "what is the user's is kept"
    finally:
        if how == "folder":
            (path / "mine.txt").unlink(missing_ok=True)
            path.rmdir()
        path.unlink(missing_ok=True)
        aside.rename(path)


def said(step: str, parameters: Parameters, **flags: bool) -> str:
    """What a step says at its end: one line of what is wrong, or nothing."""
    storage._sha256_of.cache_clear()  # as in a process of its own
    try:
        run_main(step, parameters, **flags)
    except PipelineError as error:
        return " ".join(str(error).split())
    except Exception as error:  # which `command.run` tells, too
        line = _explained(error)
        assert "unexpected" not in line, f"{step}: {line}"
        return line
    return ""


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_of_an_earlier_step_is_named_with_the_script_to_run(finished: Parameters, how: str) -> None:
    below = proc(finished)
    before = hashes(below)
    for path in sorted(files(below)):
        maker = step_of(path)
        if path in ("duplicates.csv", "quality.csv"):  # for people, and the viewer
            continue
        for reader in STEPS[STEPS.index(maker) + 1 :]:
            if (reader, maker) == ("2_refineDNN", "1_prepareData"):  # the pretrained network needs no examples
                continue
            with damaged(below / path, how):
                line = said(reader, finished)
            assert str(below / path) in line, (reader, path, line)
            assert f"run scripts/{maker}.py" in line, (reader, path, line)
    assert hashes(below) == before


@pytest.mark.parametrize("how", DAMAGES)
def test_the_script_to_run_makes_a_damaged_file_again(finished: Parameters, how: str) -> None:
    below = proc(finished)
    before = hashes(below)
    for path in ("examples.csv", "dnn_fixed/model.onnx", "dnn_fixed/model.json", "features_svm/part-00000.parquet"):
        content = (below / path).read_bytes()
        with contextlib.suppress(FileNotFoundError), damaged(below / path, how):
            line = said(step_of(path), finished)
            if how == "folder":
                assert str(below / path) in line and "it is a folder; move it away" in line, (path, line)
            else:
                assert line == ""
                (below / path).chmod(0o644)
                assert path.endswith(".json") or (below / path).read_bytes() == content
        said(step_of(path), finished)
    assert hashes(below) == before


def test_a_folder_in_the_place_of_a_file_to_be_written_is_named_and_kept(finished: Parameters) -> None:
    below = proc(finished)
    before = files(below)
    for path in sorted(files(below)):
        maker = step_of(path)
        if path.endswith((".png", ".csv")) and maker in STEPS[3:]:  # one is written as the other, which takes its time
            continue
        with damaged(below / path, "folder"):
            line = said(maker, finished)
        assert f"{below / path} " in line and "it is a folder; move it away" in line, (path, line)
        run_main(maker, finished)
    assert files(below) == before


@contextlib.contextmanager
def unusable(folder: Path, how: str) -> Iterator[None]:
    """Something is wrong with a folder during the block."""
    kind = {"a file": "empty", "read-only": "denied"}
    with denied(folder, 0o555) if how == "read-only" else damaged(folder, kind.get(how, how)):
        yield


@pytest.mark.parametrize("how", ["denied", "read-only", "a file"])
@pytest.mark.parametrize("folder", ["", "dnn_fixed", "features_svm", "svm_svm", "model_svm", "evaluation_svm"])
def test_folders_that_cannot_be_used_are_named(finished: Parameters, folder: str, how: str) -> None:
    """Where the step that writes there has nothing to do, it may say nothing."""
    place = proc(finished) / folder
    maker = step_of(f"{folder}/") if folder else STEPS[0]
    with unusable(place, how):
        line = said(maker, finished)
        assert str(place) in line or (how == "read-only" and maker in ("2_refineDNN", "3_runDNN"))
        for reader in STEPS[STEPS.index(maker) + 1 : 4]:
            said(reader, finished)
    run_main(maker, finished)


@pytest.mark.parametrize("how", ["denied", "a file", "broken link"])
@pytest.mark.parametrize("folder", [".", "proc", "images", "images/textures", "images/textures/blobs"])
def test_no_folder_is_passed_over_in_silence(finished: Parameters, folder: str, how: str) -> None:
    place = finished.rootDir / folder
    remembered_files = {"store/files/textures.parquet"}  # written once the files are a few seconds old
    before = files(finished.rootDir) | remembered_files
    with unusable(place, how):
        line = said(STEPS[0], finished)
        assert str(place) in line or (folder.endswith("blobs") and how == "a file"), "a file may lie beside the classes"
        said(STEPS[-1], finished)
    run_main(STEPS[0], finished)
    assert files(finished.rootDir) | remembered_files == before


def test_images_need_not_be_writable(finished: Parameters) -> None:
    with denied(finished.rootDir / "images" / "textures", 0o555):
        assert said(STEPS[0], finished) == ""


def test_a_new_data_set_where_nothing_can_be_written(finished: Parameters) -> None:
    other = finished.model_copy(update={"datasetName": "other"})
    link = finished.rootDir / "images" / "other"
    link.symlink_to(finished.rootDir / "images" / "textures")
    with denied(finished.rootDir / "proc", 0o555):
        line = said(STEPS[0], other)
    link.unlink()
    assert line.startswith(f"{proc(other) / 'examples.csv'} could not be written because of {proc(other)}: permission")


@pytest.mark.parametrize("name", [ANNOTATIONS, DEDICATED_TEST_IMAGES, "blobs/0.jpg"])
def test_what_a_person_has_put_there_is_named_where_it_cannot_be_read(
    finished: Parameters, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for how in ("folder", "denied", "empty", "broken link"):
        with damaged(finished.rootDir / "images" / "textures" / name, how):
            line = said(STEPS[0], finished)
            told = line + capsys.readouterr().out
            assert how not in ("folder", "denied") or Path(name).name in told, (how, told)
            said(STEPS[-1], finished)
    run_main(STEPS[0], finished)


# Scripts 0, 6 and deploymain


@pytest.fixture
def sources(tmp_path: Path, finished: Parameters) -> Path:
    """A folder with a list of URLs that lead nowhere, a folder of images with a table of their labels, and a key."""
    (tmp_path / "list.tsv").write_text("a\thttp://127.0.0.1:9/1.jpg\nb\thttp://127.0.0.1:9/2.jpg\n")
    shutil.copytree(finished.rootDir / "images" / "textures" / "blobs", tmp_path / "flat")
    rows = [f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(6)]
    (tmp_path / "table.csv").write_text("".join(["image,label\n", *rows]))
    (tmp_path / "key").write_text("0123456789abcdef")
    return tmp_path


@pytest.mark.parametrize("how", DAMAGES)
def test_sources_of_images_that_cannot_be_read_are_named(
    sources: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    urls, table, flat = sources / "list.tsv", sources / "table.csv", sources / "flat"
    of_list = small_run(sources, datasetName="web", imgUrlsPath=urls)
    of_table = small_run(sources, datasetName="table", imgLabelsPath=table, imgFolder=flat)
    for parameters, path in ((of_list, urls), (of_table, table), (of_table, flat)):
        with damaged(path, how):
            line = said("0_downloadData", parameters)
        assert str(path) in line or (path, how) == (urls, "truncated"), "half a list is a list"
    run_main("0_downloadData", of_table)
    capsys.readouterr()
    with damaged(flat / "1.jpg", how):
        assert said("0_downloadData", of_table) == ""
    assert how == "denied" or "1.jpg" in capsys.readouterr().out, "one that is there already need not be read"


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_table_of_downloads_is_named_or_made_again(sources: Path, how: str) -> None:
    parameters = small_run(sources, datasetName="web", imgUrlsPath=sources / "list.tsv")
    run_main("0_downloadData", parameters)
    table = proc(parameters) / "downloads.csv"
    with damaged(table, how):
        line = said("0_downloadData", parameters)
        assert line.startswith(f"{table} ") == (how in ("folder", "denied", "garbage"))
        assert line or len(table.read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize("how", DAMAGES)
def test_what_script_6_cannot_use_is_named(sources: Path, how: str) -> None:
    with fake_service.running() as fake:
        one = small_run(sources, url=fake.url, imagePath=sources / "flat" / "0.jpg", keyFile=sources / "key", calls=1)
        all_of_them = small_run(sources, url=fake.url, folder=sources / "flat")
        run_main("6_callWebservice", all_of_them)
        table = proc(all_of_them) / "predictions" / "flat.csv"
        whole = table.read_bytes()
        is_sent = how in ("empty", "garbage", "truncated")
        for parameters, path, is_named in (
            (one, sources / "key", True),
            (one, sources / "flat" / "0.jpg", not is_sent),  # or the service says what it is
            (all_of_them, sources / "flat", True),
            (all_of_them, table, how != "broken link"),
            (all_of_them, table.with_name("flat.csv.journal"), how in ("folder", "denied")),
        ):
            with damaged(path, how):
                line = said("6_callWebservice", parameters)
            where = (sources / "nowhere") if (path.name, how) == ("flat", "broken link") else path
            assert (str(where) in line) == is_named, (path, line)
            run_main("6_callWebservice", all_of_them)
            assert table.read_bytes() == whole


@pytest.mark.parametrize("how", DAMAGES)
def test_what_deploymain_cannot_use_is_named(finished: Parameters, sources: Path, how: str) -> None:
    key, bundle, staged = sources / "key", proc(finished) / "model_svm", proc(finished) / "deployment_svm"
    given = finished.model_copy(update={"bundle": bundle, "port": 0})
    for path in (bundle / "model.onnx", bundle / "model.json", bundle):
        for parameters, flags in ((finished, {"stage": True}), (finished, {}), (given, {"stage": True}), (given, {})):
            with damaged(path, how):
                assert str(path) in said("deploymain", parameters, **flags), (path, flags)
    with damaged(key, how):
        assert str(key) in said("deploymain", given.model_copy(update={"keyFile": key}))
    with damaged(bundle / "metrics.json", how):
        line = said("deploymain", finished, stage=True)
        assert line.startswith(f"{bundle / 'metrics.json'} cannot be read (") == (how in ("folder", "denied"))
    run_main("deploymain", finished, stage=True)
    with damaged(staged / "staged.json", how):
        line = said("deploymain", finished, stage=True)
    assert str(staged) in line
    shutil.rmtree(staged)
