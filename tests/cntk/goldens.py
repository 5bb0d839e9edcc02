"""The goldens of tests/cntk/networks, which are packed; see make_goldens.py."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "networks"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "goldens.json").read_text())


def golden(name: str) -> bytes:
    """The bytes of a file that CNTK wrote, e.g. of 'gap.model'."""
    return gzip.decompress((FOLDER / f"{name}.gz").read_bytes())


def unpacked(name: str, folder: Path) -> Path:
    """The same as a file in `folder`."""
    path = folder / name
    path.write_bytes(golden(name))
    return path


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """A golden's inputs and what CNTK computed, by the keys of the manifest."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        return dict(archive)
