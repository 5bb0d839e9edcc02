"""Type aliases of NumPy arrays by dtype, and a way to choose rows; docstrings give the shapes, e.g. [N, K]."""

from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Integer = npt.NDArray[np.integer[Any]]  # of any width
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]  # of any precision
Pixels = npt.NDArray[np.uint8]  # RGB unless stated otherwise, [H, W, 3]


def as_slice(chosen: Bool) -> slice | Bool:
    """What chooses the same rows of an array; without a copy, if they follow each other.

    Args:
        chosen: [N].
    """
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return slice(0, 0)
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else chosen
