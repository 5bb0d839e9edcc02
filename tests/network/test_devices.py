"""Which device is found, and at what price."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from libraries.base.errors import ParameterError
from libraries.network import devices
from libraries.network.devices import find_device

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "wanted", ["cpu", pytest.param("auto", marks=pytest.mark.skipif(sys.platform == "darwin", reason="has Metal"))]
)
def test_cpu_is_found_without_importing_torch(wanted: str, tmp_path: Path) -> None:
    code = f"import sys, libraries.network.devices as d; print(d.find_device({wanted!r}), 'torch' in sys.modules)"
    without_programs = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=without_programs, capture_output=True, text=True)
    assert done.stdout.split() == ["cpu", "False"], done.stderr


def machine(monkeypatch: pytest.MonkeyPatch, *, driver: bool = True, cuda: bool = False, mps: bool = False) -> None:
    monkeypatch.setattr(devices, "_may_have_gpu", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
@pytest.mark.parametrize("driver", [True, False])
def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, wanted: str, driver: bool) -> None:
    machine(monkeypatch, driver=driver)
    with pytest.raises(ParameterError, match=rf"device = {wanted}: PyTorch .* finds no such device .*use auto or cpu"):
        find_device(wanted)  # type: ignore[arg-type]


def test_other_gpu_is_no_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=True)
    with pytest.raises(ParameterError, match="device = mps"):
        find_device("mps")


@pytest.mark.parametrize(("cuda", "mps", "found"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_gpu_that_pytorch_can_use(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, found: str
) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert find_device("auto") == found
    if found != "cpu":
        assert find_device(found) == found  # type: ignore[arg-type]
    assert find_device("cpu") == "cpu"
