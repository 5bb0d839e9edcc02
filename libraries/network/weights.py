"""Weights as state dicts: from timm's hub or a local file, and written to one. Nothing is unpickled."""

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from libraries.base.errors import NetworkError
from libraries.base.storage import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm's repositories on the hub hold, best first
CONNECT_SECONDS = 3.0


def read_state_dict(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a .safetensors or PyTorch file, by name, on the CPU.

    Wrappers added by training programs (`state_dict`, `model`; `module.` before every key) are removed.

    Raises:
        NetworkError: not such a file, damaged, or a pickle that contains more than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from timm.models import clean_state_dict

    try:
        with warnings.catch_warnings(action="ignore"):  # the errors below are clearer than PyTorch's warnings
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"{path} is not a plain PyTorch state dict, and pickled code is never run: "
            "save `model.state_dict()` as .safetensors or .pth and use that"
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise NetworkError(
            f"{path} cannot be read as weights ({first_line(error)}): use a .safetensors or .pth file"
        ) from error
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise NetworkError(f"{path} holds no state dict (tensors by name): save `model.state_dict()` and use that file")
    return clean_state_dict(content)  # type: ignore[no-any-return]


def file_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a .safetensors file; empty for other and damaged files (reading those reports it)."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def write_state_dict(
    path: Path,
    state: Mapping[str, npt.NDArray[Any]],
    *,
    architecture: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Write parameters and buffers by name, with the architecture and normalisation in the file's metadata."""
    from safetensors.numpy import save_file

    facts = json.dumps({"architecture": architecture, "mean": mean, "std": std})
    with atomic_path(path) as temporary:
        # one entry: the order of several changes from run to run, and with it the file's SHA-256
        save_file(dict(state), temporary, metadata={"network": facts})


def file_facts(path: Path) -> dict[str, Any]:
    """The facts about its network that step 2 wrote into a .safetensors file.

    Returns:
        architecture ('' if unknown); mean and std, a tuple each, if known.

    Raises:
        NetworkError: the facts are damaged.
    """
    metadata = file_metadata(path)
    if "network" not in metadata:
        return {"architecture": metadata.get("architecture", "")}
    try:
        facts = json.loads(metadata["network"])
        mean, std = (tuple(float(level) for level in facts[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("not of three channels")
        return {"architecture": str(facts["architecture"]), "mean": mean, "std": std}
    except (ValueError, KeyError, TypeError) as error:
        raise NetworkError(
            f"{path}: the metadata about its network is damaged ({metadata['network'][:80]!r}): save the weights again"
        ) from error


def hub_file(architecture: str, config: Any) -> Path:
    """The weights of a timm name from timm's hub, downloaded once into the hub's cache.

    Raises:
        NetworkError: no weights exist under this name, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, names = config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    if not repository:
        raise NetworkError(
            f"timm has no pretrained weights for {architecture}: choose another name, or a local weights file"
        )
    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    _check_hub_answers(architecture, repository)
    try:
        try:
            return Path(hf_hub_download(repository, names[0]))
        except EntryNotFoundError:
            return Path(hf_hub_download(repository, names[-1]))
    except (OSError, ValueError) as error:
        raise NetworkError(
            f"the weights of {architecture} could not be downloaded from {repository}: {first_line(error)}"
        ) from error


def _check_hub_answers(architecture: str, repository: str) -> None:
    """Fail within seconds if there is no connection: the hub's own client tries for half a minute."""
    import requests
    from huggingface_hub import constants

    try:
        if constants.HF_HUB_OFFLINE:
            raise requests.ConnectionError("HF_HUB_OFFLINE is set")
        requests.head(constants.ENDPOINT, timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        raise NetworkError(
            f"the weights of {architecture} are not on this machine and {constants.ENDPOINT} cannot be reached: "
            f"download {HUB_FILES[0]} of {repository} on a machine that can, copy it here and set "
            f'rf_pretrainedModelFilename to "{architecture}@PATH", or use "EfficientNet_Lite0", which needs no download'
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of at most 200 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
