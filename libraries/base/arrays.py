"""Type aliases of NumPy arrays by dtype; docstrings give the shapes, e.g. [N, K]."""

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
