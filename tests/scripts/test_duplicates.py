"""Script 1 and duplicates, as a user meets them."""

import csv
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from libraries.base.errors import ParameterError, StaleInput
from PARAMETERS import Parameters
from tests.conftest import files, run_main, small_run
from tests.data.pictures import cropped, rescaled, scene

Process = Callable[..., subprocess.CompletedProcess[str]]

COPIES = 6  # of each kind


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes; of some pictures of the first there are other sizes, mirror images and copies. Read only."""
    folder = tmp_path_factory.mktemp("made")
    for k, label in enumerate(("cat", "dog", "cow")):
        (folder / label).mkdir(parents=True)
        for i in range(16):
            scene(100 * k + i).save(folder / label / f"{i:02d}.png")
    for i in range(COPIES):
        rescaled(scene(i), 1.5).save(folder / "cat" / f"{i:02d} large.png")
        ImageOps.mirror(scene(i)).save(folder / "cat" / f"{i:02d} mirrored.png")
        shutil.copy(folder / "cat" / f"{i:02d}.png", folder / "cat" / f"{i:02d} copy.png")
    Image.open(folder / "dog" / "03.png").save(folder / "cow" / "of a dog.bmp")
    return folder


@pytest.fixture
def images(made: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(made, tmp_path / "data" / "images" / "textures"))


@pytest.fixture
def parameters(images: Path, quick_export: None) -> Parameters:
    return small_run(images.parents[1])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sides(parameters: Parameters) -> dict[str, str]:
    return {row["path"]: row["split"] for row in read_csv(proc(parameters) / "examples.csv")}


def proc(parameters: Parameters) -> Path:
    return parameters.rootDir / "proc" / "textures"


def test_groups_on_one_side_a_table_and_a_warning(
    parameters: Parameters, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        run_main("1_prepareData", parameters.model_copy(update={"randomSeed": seed}))
        side = sides(parameters)
        assert len(side) == 48 + 3 * COPIES + 1
        for i in range(COPIES):
            assert len({side[f"cat/{i:02d}{kind}.png"] for kind in ("", " large", " mirrored", " copy")}) == 1
        assert side["dog/03.png"] == side["cow/of a dog.bmp"]
    said = capsys.readouterr().out
    assert f"Duplicates: {4 * COPIES + 2} images in {COPIES + 1} groups (1 exact, {COPIES} near)" in said
    assert "Warning: cow/of a dog.bmp and dog/03.png are the same picture but have different labels" in said
    rows = {row["path"]: row for row in read_csv(proc(parameters) / "duplicates.csv")}
    assert len(rows) == 4 * COPIES + 2
    assert rows["cat/00 copy.png"] == {
        **{"group": "1", "kind": "exact", "path": "cat/00 copy.png", "label": "cat"},
        **{"like": "cat/00.png", "distance": "0", "similarity": ""},
    }
    assert rows["cat/00 large.png"]["kind"] == "near" and int(rows["cat/00 large.png"]["distance"]) <= 10


def test_other_parameters_of_duplicates_make_the_examples_stale(parameters: Parameters) -> None:
    run_main("1_prepareData", parameters)
    run_main("2_refineDNN", parameters)
    with pytest.raises(StaleInput, match=r'duplicates = "near", but now it is "exact": run scripts/1_prepareData'):
        run_main("3_runDNN", parameters.model_copy(update={"duplicates": "exact"}))


def test_removed_and_brought_back(parameters: Parameters, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(images)
    run_main("1_prepareData", parameters)
    first = (proc(parameters) / "examples.csv").read_bytes()
    capsys.readouterr()
    run_main("1_prepareData", parameters, removeDuplicates=True)
    said = capsys.readouterr().out
    assert f"{3 * COPIES:,} duplicates moved to" in said and "left as they are: 1 group with two labels" in said
    assert set(sides(parameters)) == {
        *(
            f"{label}/{i:02d}.png"
            for label in ("cat", "dog", "cow")
            for i in range(16)
            if (label, i // COPIES) != ("cat", 0)
        ),
        *(f"cat/{i:02d} large.png" for i in range(COPIES)),
        "cow/of a dog.bmp",
    }
    assert {row["path"] for row in read_csv(proc(parameters) / "duplicates.csv")} == {"dog/03.png", "cow/of a dog.bmp"}
    run_main("1_prepareData", parameters, removeDuplicates=True)
    assert "0 duplicates moved to" in capsys.readouterr().out
    run_main("1_prepareData", parameters, restoreDuplicates=True)
    assert f"{3 * COPIES:,} duplicates brought back" in capsys.readouterr().out
    assert files(images) - {".annotations.jsonl.lock"} == before
    assert (proc(parameters) / "examples.csv").read_bytes() == first


def test_both_at_once_are_refused(parameters: Parameters) -> None:
    with pytest.raises(ParameterError, match="opposites"):
        run_main("1_prepareData", parameters, removeDuplicates=True, restoreDuplicates=True)


def test_a_given_test_set_is_kept_and_its_leaks_are_told(
    parameters: Parameters, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "dedicatedTestImages.tsv").write_text("cat\t00.png\ncat\t09.png\ndog\t01.png\ncow\t01.png\n")
    run_main("1_prepareData", parameters)
    assert "Warning: 1 of these test images has a duplicate in training" in capsys.readouterr().out
    assert [path for path, side in sides(parameters).items() if side == "test"] == [
        *("cat/00.png", "cat/09.png", "cow/01.png", "dog/01.png")
    ]
    run_main("1_prepareData", parameters, removeDuplicates=True)  # cat/00.png is smaller than its copy, and goes
    assert "a duplicate in training" not in capsys.readouterr().out
    assert sum(side == "test" for side in sides(parameters).values()) == 3


def test_leak_report(parameters: Parameters, process: Process) -> None:
    run_main("1_prepareData", parameters)
    done = process("5_evaluate", parameters, "--leakReport")
    assert done.returncode == 1 and "run scripts/2_refineDNN.py first" in done.stderr
    for step in ("2_refineDNN", "3_runDNN"):
        run_main(step, parameters)
    reports = []
    for _ in range(2):
        done = process("5_evaluate", parameters, "--leakReport")
        assert done.returncode == 0 and done.stderr == ""
        reports.append(done.stdout)
        run_main("4_trainSVM", parameters)  # the report has changed nothing
    for text in reports:
        assert "Under a plain random split" in text
        assert "Accuracy of a linear SVM, mean (range) of 10 splits each: plain" in text


def test_scenes_by_the_pretrained_network(
    parameters: Parameters, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cropped(scene(9), 0.1).save(images / "cat" / "09 cropped.png")
    ImageOps.expand(scene(10), 16, "white").save(images / "cat" / "10 framed.png")
    scenes = parameters.model_copy(update={"duplicates": "scene"})
    run_main("1_prepareData", scenes)
    rows = {row["path"]: row for row in read_csv(proc(scenes) / "duplicates.csv")}
    assert rows["cat/09 cropped.png"]["like"] == "cat/09.png"
    assert rows["cat/09 cropped.png"]["kind"] == "scene" and float(rows["cat/09 cropped.png"]["similarity"]) >= 0.95
    assert rows["cat/10 framed.png"]["like"] == "cat/10.png"
    assert not {f"cat/{i}.png" for i in range(11, 16)} & set(rows), "different pictures are not taken for one"
    assert not (proc(scenes) / "dnn_fixed").exists(), "that is for script 2 to make"
    with monkeypatch.context() as patch:
        patch.setattr("libraries.network.runners.Engine", None)  # nothing is computed twice
        run_main("1_prepareData", scenes)
    run_main("2_refineDNN", scenes)
    capsys.readouterr()
    run_main("3_runDNN", scenes)
    assert "by earlier runs: 69 of 69 embeddings" in capsys.readouterr().out, "those that step 1 compared"
