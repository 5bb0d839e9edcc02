"""The default needs no PyTorch; what needs it says so in one line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from PARAMETERS import Parameters
from tests.conftest import STEPS, command_line
from tests.network.test_pretrained import widened

Stage = Callable[[str], Callable[..., Parameters]]

WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
def hiding(name, path=None, target=None):
    hidden = ("torch", "torchvision", "timm", "onnxscript", "huggingface_hub")
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)
PathFinder.find_spec = hiding
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MESSAGE = "need: run make setup-refine, or pip install -r requirements-refine.txt"


def without_pytorch(step: str, parameters: Parameters) -> subprocess.CompletedProcess[str]:
    python, *command = command_line(step, parameters)
    return subprocess.run([python, "-c", WITHOUT, *command], capture_output=True, text=True, check=False)


def test_all_scripts_of_the_default(parameters: Callable[..., Parameters]) -> None:
    for step in STEPS:
        done = without_pytorch(step, parameters(duplicates="scene"))
        assert (done.returncode, done.stderr) == (0, ""), step


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier": "dnn"},
        {"rf_pretrainedModelFilename": "ResNet_18.model"},
        {"rf_pretrainedModelFilename": "resnet10t"},
        {"device": "cuda"},
    ],
    ids=str,
)
def test_what_needs_it_says_so(stage: Stage, changes: dict[str, object]) -> None:
    step = "3_runDNN" if "device" in changes else "2_refineDNN"
    done = without_pytorch(step, stage(step)(**changes))
    assert done.returncode == 1
    assert done.stderr.endswith(f"{MESSAGE}\n") and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_resnet_of_cntk_is_run_unchanged(stage: Stage, tmp_path: Path) -> None:
    path = widened("resnet_18", tmp_path / "ResNet_18.model", base=2)
    options = {"rf_pretrainedModelFilename": str(path)}
    parameters = stage("2_refineDNN")
    done = without_pytorch("2_refineDNN", parameters(**options))
    assert done.returncode == 0, done.stderr
    done = without_pytorch("2_refineDNN", parameters(classifier="svmDnnRefined", **options))
    assert done.returncode == 1
    assert "cannot be trained: PyTorch is not installed: run make setup-refine" in done.stderr
