"""Chooses the device that networks run on. Without a GPU, PyTorch is not imported, which would take seconds."""

import importlib.util
import shutil
import sys
from typing import Literal

from libraries.base.errors import ParameterError

Device = Literal["cpu", "cuda", "mps"]
Wanted = Literal["auto", "cpu", "cuda", "mps"]


def find_device(wanted: Wanted) -> Device:
    """The device to use: `wanted`, or for 'auto' a GPU if PyTorch can use one, else the CPU.

    Raises:
        ParameterError: there is no such device.
    """
    if wanted == "cpu" or (wanted == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    if wanted == "auto":
        return "cpu"
    raise ParameterError(f"device = {wanted}: PyTorch {torch.__version__} finds no such device here; use auto or cpu")


def _may_have_gpu() -> bool:
    has_pytorch = importlib.util.find_spec("torch") is not None
    return has_pytorch and (sys.platform == "darwin" or shutil.which("nvidia-smi") is not None)
