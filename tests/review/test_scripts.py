"""The queue as the scripts make it: wrong labels are in it, answers leave it, and other tools get it."""

import json
import shutil
from pathlib import Path

import pytest

from libraries.base.layout import Layout
from libraries.data.annotations import Annotations
from libraries.review.queue import read_queue
from PARAMETERS import Parameters
from tests.conftest import run_main, small_run
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]

WRONG = {
    "checks/odd-00.png": "blobs/00.png",
    "checks/odd-03.jpg": "blobs/03.jpg",
    "stripes/odd-05.jpg": "checks/05.jpg",
}


@pytest.fixture
def parameters(evaluated: Path, tmp_path: Path) -> Parameters:
    """Of a whole run on images of which some have a wrong label."""
    shutil.copytree(evaluated, tmp_path / "data")
    folder = tmp_path / "data" / "images" / "textures"
    for now, was in WRONG.items():
        (folder / was).rename(folder / now)
    parameters = small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True)
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM"):
        run_main(step, parameters)
    return parameters


def asked(parameters: Parameters) -> dict[str, tuple[str, str | None]]:
    return {row.path: (row.reason, row.suggested) for row in read_queue(Layout(parameters).review)}


def test_wrong_labels_are_in_it_and_answers_leave_it(
    parameters: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main("5_evaluate", parameters)
    found = asked(parameters)
    assert {path: found.get(path) for path in WRONG} == {
        path: ("mislabelled", was.split("/")[0]) for path, was in WRONG.items()
    }
    assert f"Worth a look: {len(found)} images" in capsys.readouterr().out
    folder = Layout(parameters).images
    kept, mended, open_still = WRONG
    Annotations(folder).decide({kept: kept.split("/")[0]})
    run_main("5_evaluate", parameters, review=True)  # a label that is kept makes nothing stale
    assert kept not in asked(parameters) and mended in asked(parameters)
    Annotations(folder).relabel([mended], "blobs")
    for step in ("1_prepareData", "3_runDNN"):
        run_main(step, parameters)
    run_main("5_evaluate", parameters, review=True)
    assert set(asked(parameters)) & {*WRONG, "blobs/odd-03.jpg"} == {open_still}
    Annotations(folder).undo()
    Annotations(folder).undo()
    for step in ("1_prepareData", "3_runDNN"):
        run_main(step, parameters)
    run_main("5_evaluate", parameters, review=True)
    assert set(WRONG) <= set(asked(parameters)), "what is undone is asked again"


def test_label_studio_gets_it(parameters: Parameters) -> None:
    run_main("5_evaluate", parameters, review=True)
    run_main("1_prepareData", parameters, export=True)
    tasks = json.loads((Layout(parameters).proc / "labelStudio" / "tasks.json").read_text(encoding="utf-8"))
    first = {task["data"]["path"]: task["predictions"][-1] for task in tasks[: len(asked(parameters))]}
    assert set(WRONG) <= set(first)
    assert all(first[path]["result"][0]["value"]["choices"] == [was.split("/")[0]] for path, was in WRONG.items())
