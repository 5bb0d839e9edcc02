"""Elementwise operations."""

import numpy as np

from libraries.cntk import attributes
from libraries.cntk.graph import Function
from libraries.cntk.operators.table import operator
from libraries.cntk.wire import ModelError
from libraries.cntk.writer import GraphWriter, Tensor

UNARY = {
    "Negate": "Neg", "Sigmoid": "Sigmoid", "StableSigmoid": "Sigmoid", "Tanh": "Tanh", "ReLU": "Relu", "Exp": "Exp",
    "Sqrt": "Sqrt", "Floor": "Floor", "Abs": "Abs", "Reciprocal": "Reciprocal", "Sin": "Sin", "Cos": "Cos",
    "Tan": "Tan", "Asin": "Asin", "Acos": "Acos", "Atan": "Atan", "Sinh": "Sinh", "Cosh": "Cosh", "Asinh": "Asinh",
    "Atanh": "Atanh", "Log": "Log",
}  # fmt: skip
BINARY = {"Plus": "Add", "Minus": "Sub", "ElementTimes": "Mul", "Pow": "Pow"}
COMPARISONS = {
    "Equal": ("Equal", False), "NotEqual": ("Equal", True), "Less": ("Less", False), "GreaterEqual": ("Less", True),
    "Greater": ("Greater", False), "LessEqual": ("Greater", True),
}  # fmt: skip  # ONNX's operation, and whether its result is negated


@operator("Dropout", "Pass", "NoOp", "StopGradient")
def same(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Operations that do nothing outside training."""
    return x


@operator(*UNARY)
def unary(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    return writer.node(UNARY[function.operation], [x], x.shape)


@operator("ELU")
def elu(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    return writer.node("Elu", [x], x.shape, alpha=attributes.number(function, "alpha", 1.0))


@operator(*BINARY, inputs=2)
def binary(writer: GraphWriter, function: Function, x: Tensor, y: Tensor) -> Tensor:
    return broadcast(writer, function, BINARY[function.operation], x, y)


@operator("LogPlus", inputs=2)
def log_plus(writer: GraphWriter, function: Function, x: Tensor, y: Tensor) -> Tensor:
    """log(exp x + exp y), relative to the larger of the two, so that nothing overflows."""
    larger = broadcast(writer, function, "Max", x, y)
    parts = [writer.node("Exp", [broadcast(writer, function, "Sub", value, larger)], larger.shape) for value in (x, y)]
    total = broadcast(writer, function, "Add", *parts)
    return broadcast(writer, function, "Add", larger, writer.node("Log", [total], total.shape))


@operator(*COMPARISONS, inputs=2)
def compare(writer: GraphWriter, function: Function, x: Tensor, y: Tensor) -> Tensor:
    """1 where the comparison holds, 0 elsewhere."""
    kind, is_negated = COMPARISONS[function.operation]
    truth = broadcast(writer, function, kind, x, y)
    if is_negated:
        truth = writer.node("Not", [truth], truth.shape)
    return cast(writer, truth, writer.dtype)


@operator("Select", inputs=3)
def select(writer: GraphWriter, function: Function, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return broadcast(writer, function, "Where", cast(writer, condition, np.dtype(bool)), x, y)


@operator("Clip", inputs=3)
def clip(writer: GraphWriter, function: Function, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bounds are tensors in CNTK but scalars in ONNX's Clip, which is therefore not used."""
    return broadcast(writer, function, "Min", broadcast(writer, function, "Max", x, low), high)


@operator("Cast")
def change_type(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Does nothing: the graph computes in one type throughout."""
    return x


@operator("ConstantOp")
def fill(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """One value in the shape of x."""
    nothing = writer.node("Mul", [x, writer.constant(0.0)], x.shape)
    return writer.node("Add", [nothing, writer.constant(attributes.number(function, "fillValue"))], x.shape)


def broadcast(writer: GraphWriter, function: Function, kind: str, *inputs: Tensor) -> Tensor:
    """A node on samples that broadcast as in NumPy, whichever of them have a batch."""
    try:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
    except ValueError as error:
        shapes = " and ".join(str(list(x.shape)) for x in inputs)
        raise ModelError(f"{function}: {shapes} do not fit") from error
    return writer.node(kind, [writer.of_rank(x, len(shape)) for x in inputs], shape)


def cast(writer: GraphWriter, x: Tensor, dtype: "np.dtype[np.generic]") -> Tensor:
    from onnx import helper

    return writer.node("Cast", [x], x.shape, to=helper.np_dtype_to_tensor_dtype(dtype))
