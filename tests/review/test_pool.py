"""The pool of images without a label: what is in it, which of it is worth a look, and what becomes of the answers."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.data.class_folders import pool_of
from libraries.data.dataset import Example, read_examples
from libraries.review.pool import Worth, find_pool, hard_negatives, worth_labelling
from libraries.review.queue import QueueRow, read_queue
from PARAMETERS import Parameters
from tests.conftest import run_main, small_run
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]


def unit(*angles: float) -> np.ndarray:
    """Embeddings on a circle."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def worth(probabilities: list[list[float]], x: np.ndarray, labelled: np.ndarray, most: int = 9) -> list[Worth]:
    given = np.array(probabilities, np.float32)
    return worth_labelling(given, x, labelled, normalise=lambda embeddings: embeddings, most=most)


def test_what_is_uncertain_and_stands_for_others_comes_first_and_no_two_alike() -> None:
    x = unit(0.0, 0.5, 0.501, 0.502, 1.4, 1.4)
    sure, unsure = [0.98, 0.02], [0.52, 0.48]
    found = worth([sure, unsure, unsure, unsure, unsure, unsure], x, unit(0.1))
    assert [each.row for each in found[:2]] == [4, 2], "the two far from what has a label, then the middle of three"
    assert found[0].score == 1 > found[1].score > 0.1
    assert all(each.score < 0.05 for each in found[2:]), "the others are like these, or certain"
    assert [each.row for each in worth([sure, unsure], unit(0.5, 0.5), unit(0.5))] == [], "it has a label"


def test_an_image_that_is_like_a_class_but_clearly_of_another_is_a_hard_negative() -> None:
    probabilities = np.array(
        [[0.6, 0.3, 0.1], [0.5, 0.45, 0.05], [0.1, 0.15, 0.75], [0.6, 0.35, 0.05], [0.98, 0.015, 0.005]], np.float32
    )
    assert [(each.row, each.like) for each in hard_negatives(probabilities, of_each=2)] == [(3, 1), (0, 1), (2, 1)][:2]
    assert [each.row for each in hard_negatives(probabilities, of_each=9, but=[3])] == [0, 2, 4]


@pytest.fixture
def parameters(evaluated: Path, tmp_path: Path) -> Parameters:
    """Of a whole run; the test images of before are its training images, and half of those are in the pool."""
    root = tmp_path / "data"
    shutil.copytree(evaluated, root)
    parameters = small_run(root, svm_CVals=(0.01,), svm_boL2Normalize=True)
    folder = Layout(parameters).images
    pool = pool_of(folder)
    for label in ("blobs", "checks", "stripes"):
        for path in sorted((folder / label).iterdir())[8:]:
            target = pool / "from the camera" / f"{label} {path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    (pool / "broken.jpg").write_bytes(b"no image")
    (pool / "notes.txt").write_text("no image")
    (pool / ".hidden").mkdir()
    first = next(iter(sorted((folder / "blobs").iterdir())))
    shutil.copy(first, pool / f"known{first.suffix}")
    shutil.copy(pool / "from the camera" / "checks 09.jpg", pool / "again.jpg")
    Image.new("RGB", (300, 200), "red").save(pool / ".hidden" / "red.png")
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM"):
        run_main(step, parameters)
    return parameters


def rows(parameters: Parameters) -> list[QueueRow]:
    return [row for row in read_queue(Layout(parameters).review) if row.split == "pool"]


def examples(parameters: Parameters) -> dict[str, Example]:
    return {e.path: e for e in read_examples(Layout(parameters).examples.folder / "examples.csv")}


def test_every_content_is_in_it_once_and_nothing_that_has_a_label(parameters: Parameters) -> None:
    labelled = {example.sha256 for example in examples(parameters).values()}
    found = find_pool(Layout(parameters), labelled=labelled, decided={".pool/from the camera/blobs 08.png"})
    names = {image.path for image in found.images}
    assert len(names - {"broken.jpg"}) == 23 and "again.jpg" in names and "from the camera/checks 09.jpg" not in names
    assert {"known.png", "known.jpg", "from the camera/blobs 08.png"}.isdisjoint(names)


def test_labels_from_the_pool_go_into_training_and_leave_the_test_set_alone(
    parameters: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(parameters)
    before = examples(parameters)
    run_main("5_evaluate", parameters, review=True)
    output = capsys.readouterr().out
    assert "  left out of the pool: broken.jpg: is not a whole" in output
    asked = rows(parameters)
    assert f"{sum(row.reason == 'label next' for row in asked)} label next" in output
    true = {row.path: Path(row.path).name.split()[0] for row in asked if " " in Path(row.path).name}
    assert len(true) >= 3
    assert all(row.suggested for row in asked)
    assert all((row.label is None) == (row.reason == "label next") for row in asked)

    dismissed, *wanted = true
    annotations = Annotations(layout.images)
    assert annotations.decide({dismissed: ""} | {path: true[path] for path in wanted}).problems == ()
    moved = {annotations.moved[path] for path in wanted}
    assert all(path.startswith(f"{true[old]}/from the camera/") for old, path in annotations.moved.items())
    run_main("1_prepareData", parameters)
    now = examples(parameters)
    assert {path for path, e in now.items() if e.split == "test"} == {
        path for path, e in before.items() if e.split == "test"
    }
    assert {path for path, e in now.items() if e.split == "train"} >= moved
    run_main("3_runDNN", parameters)
    run_main("5_evaluate", parameters, review=True)
    assert {row.path for row in rows(parameters)}.isdisjoint(true), "nothing is asked twice"

    assert Annotations(layout.images).undo().problems == ()
    assert all((pool_of(layout.images) / path.removeprefix(".pool/")).is_file() for path in true)


def test_labels_that_callers_sent_are_proposed_and_contradictions_told(parameters: Parameters) -> None:
    layout = Layout(parameters)
    feedback = pool_of(layout.images) / "feedback"
    known = sorted((layout.images / "blobs").iterdir())[:2]
    for label, path, name in [
        ("checks", known[0], "against"),
        ("blobs", known[1], "same"),
        ("stripes", pool_of(layout.images) / "from the camera" / "stripes 09.jpg", "told"),
        ("owl", pool_of(layout.images) / "from the camera" / "stripes 10.jpg", "unknown"),
        ("blobs", pool_of(layout.images) / "from the camera" / "checks 10.jpg", "one"),
        ("checks", pool_of(layout.images) / "from the camera" / "checks 10.jpg", "another"),
    ]:
        (feedback / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, feedback / label / f"{name}{path.suffix}")
    run_main("5_evaluate", parameters, review=True)
    found = {row.path: row for row in read_queue(layout.review)}
    against = found.pop(f"blobs/{known[0].name}")
    assert (against.reason, against.suggested, against.score) == ("contradicting", "checks", 1.0)
    assert f"blobs/{known[1].name}" not in {row.path for row in found.values() if row.reason == "contradicting"}
    two = [row for row in rows(parameters) if row.reason == "contradicting"]
    assert len(two) == 1 and two[0].suggested in ("blobs", "checks"), "two callers disagree"
    told = next(row for row in rows(parameters) if "stripes 09" in row.path or "/told" in row.path)
    assert (told.reason, told.suggested, told.score) == ("label next", "stripes", 1.0)


def test_without_a_pool_there_is_nothing_to_say(parameters: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(pool_of(Layout(parameters).images))
    run_main("5_evaluate", parameters, review=True)
    assert rows(parameters) == []
    assert "left out" not in capsys.readouterr().out


def test_label_studio_gets_it_and_its_answers_come_back(
    parameters: Parameters, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(parameters)
    run_main("5_evaluate", parameters, review=True)
    asked = rows(parameters)
    gone, dismissed, moved_meanwhile, *wanted = [row.path for row in asked if " " in Path(row.path).name]
    file_of = Annotations(layout.images).file
    file_of(gone).unlink()
    run_main("1_prepareData", parameters, export=True)
    tasks = json.loads((layout.proc / "labelStudio" / "tasks.json").read_text(encoding="utf-8"))
    of_pool = {task["data"]["path"]: task for task in tasks if task["data"]["path"].startswith(".pool/")}
    assert list(of_pool) == [row.path for row in asked if row.path != gone]
    for task in of_pool.values():
        served = unquote(task["data"]["image"].partition("?d=")[2])
        assert (layout.images.parent / served).is_file(), "from the folder that Label Studio serves"
    (prediction,) = of_pool[wanted[0]]["predictions"]
    assert prediction["model_version"] == "suggested label"

    def answer(path: str, label: str) -> dict[str, Any]:
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
        return {**of_pool[path], "id": len(path), "annotations": [{"was_cancelled": False, "result": [result]}]}

    place = file_of(moved_meanwhile)
    place.rename(place.with_name(f"renamed {place.name}"))
    true = {path: Path(path).name.split()[0] for path in (*wanted, moved_meanwhile)}
    said = [answer(path, label) for path, label in true.items()] + [answer(dismissed, "excluded")]
    (tmp_path / "export.json").write_text(json.dumps(said))
    run_main("1_prepareData", parameters.model_copy(update={"importLabels": tmp_path / "export.json"}))
    assert f"{len(said)} labels and marks imported" in capsys.readouterr().out
    now = examples(parameters)
    labelled = {path for path in now if "from the camera" in path}
    assert {path.split("/")[0] for path in labelled} == set(true.values()) and len(labelled) == len(true)
    assert Annotations(layout.images).marks == {dismissed: "excluded"}
    run_main("3_runDNN", parameters)
    run_main("5_evaluate", parameters, review=True)
    assert {row.path for row in rows(parameters)}.isdisjoint({*true, dismissed})
    run_main("1_prepareData", parameters.model_copy(update={"importLabels": tmp_path / "export.json"}))
    assert "\n0 labels and marks imported" in capsys.readouterr().out
