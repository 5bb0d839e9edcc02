"""The state of a training run in one file, replaced whole after every epoch; nothing in it is unpickled."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from libraries.base.storage import atomic_path


def save_checkpoint(path: Path, *, key: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors by name and facts (JSON) as one .safetensors file, in place of an earlier one.

    Args:
        key: what identifies the run; a run with another key will not take it up.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    # distinct memory for every name, which safetensors insists on
    flat = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(flat, temporary, metadata={"key": key, "facts": json.dumps(facts)})


def load_checkpoint(path: Path, *, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts as saved; None where there is no file, a damaged one, or one of another run."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            # Copies: tensors that keep the file mapped into memory would keep Windows from replacing it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(metadata["facts"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
