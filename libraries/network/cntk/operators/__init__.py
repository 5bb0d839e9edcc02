"""What CNTK's operations are in ONNX: a function each, by CNTK's name of the operation."""

from libraries.network.cntk.operators import elementwise, layers, shaping, windows
from libraries.network.cntk.operators.table import OPERATORS

__all__ = ["OPERATORS", "elementwise", "layers", "shaping", "windows"]
