"""CNTK's operations in ONNX: a function for each, by CNTK's name of the operation."""

from libraries.cntk.operators import elementwise, layers, shaping, windows
from libraries.cntk.operators.table import OPERATORS

__all__ = ["OPERATORS", "elementwise", "layers", "shaping", "windows"]
