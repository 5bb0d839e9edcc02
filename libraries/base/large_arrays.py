"""Arrays that may be larger than memory.

They are in a temporary file that is mapped into memory: the system keeps in memory what is in use, and writes the rest
to disk. NumPy, and the linear algebra below it, work on them as on all others.
"""

import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from libraries.base.arrays import Float32
from libraries.base.file_system import TEMPORARY, storage_error

LARGE = 2 * 2**30  # bytes; smaller arrays are in memory
_ZEROS = 2**20  # bytes written at once


def empty(shape: tuple[int, int], *, folder: Path | None) -> Float32:
    """A float32 array to be filled.

    Args:
        folder: where its file is, if it is large; the file has no name, or disappears with the array. None: in memory.

    Raises:
        StorageError: the file cannot be written; the disk is full, for example.
    """
    size = shape[0] * shape[1] * np.dtype(np.float32).itemsize
    if folder is None or size < LARGE:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY) as file:
            _reserve(file, size)
            return np.memmap(file, np.float32, "r+", shape=shape)  # lives on when the file is closed
    except OSError as error:
        raise storage_error(error, folder / "a temporary file") from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Take the space on disk now: where there is none later, the system would end the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _ZEROS):
        file.write(bytes(min(_ZEROS, size - start)))
    file.flush()
