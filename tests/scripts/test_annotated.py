"""What the scripts do after labels were changed by hand: none uses the old ones unawares, and no service stops."""

import shutil
from pathlib import Path

import pytest

from libraries.base.errors import StaleInput
from libraries.data.annotations import Annotations
from PARAMETERS import Parameters
from tests.conftest import run_main, small_run
from tests.widgets.conftest import evaluated

__all__ = ["evaluated"]


@pytest.fixture
def parameters(evaluated: Path, tmp_path: Path) -> Parameters:
    """Of a whole run, after which one label was changed and one image excluded."""
    shutil.copytree(evaluated, tmp_path / "data")
    annotations = Annotations(tmp_path / "data" / "images" / "textures")
    annotations.relabel(["blobs/00.png"], "stripes")
    annotations.mark(["blobs/01.jpg"], "excluded")
    return small_run(tmp_path / "data", svm_CVals=(0.01,), svm_boL2Normalize=True)


@pytest.mark.parametrize("step", ["3_runDNN", "4_trainSVM", "5_evaluate"])
def test_later_scripts_name_the_first(parameters: Parameters, step: str) -> None:
    with pytest.raises(StaleInput, match=r"1 moved, 1 marked.*: run scripts/1_prepareData.py again"):
        run_main(step, parameters)


def test_after_script_1_they_use_the_new_labels(parameters: Parameters) -> None:
    for step in ("1_prepareData", "3_runDNN", "4_trainSVM", "5_evaluate"):
        run_main(step, parameters)
    table = (parameters.rootDir / "proc" / "textures" / "examples.csv").read_text()
    assert "stripes/00-2.png,stripes," in table and "blobs/00.png" not in table and "blobs/01.jpg" not in table


def test_deploying_goes_on_with_a_note(parameters: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    run_main("deploymain", parameters, stage=True)
    said = capsys.readouterr().out
    assert said.startswith("Note: labels have been changed by hand since this classifier was trained")
    with pytest.raises(StaleInput, match="svm_CVals"):
        run_main("deploymain", small_run(parameters.rootDir, svm_CVals=(0.1,), svm_boL2Normalize=True), stage=True)
    run_main("1_prepareData", parameters)
    with pytest.raises(StaleInput, match=r"examples.csv has changed since .* was made from it"):
        run_main("deploymain", parameters, stage=True)
