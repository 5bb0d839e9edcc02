"""Matrix products, normalisation, reductions, softmax."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.cntk import attributes
from libraries.cntk.graph import Function
from libraries.cntk.operators.elementwise import cast
from libraries.cntk.operators.table import operator
from libraries.cntk.wire import ModelError
from libraries.cntk.writer import GraphWriter, Tensor

REDUCTIONS = {
    "Sum": "ReduceSum", "Mean": "ReduceMean", "Max": "ReduceMax", "Min": "ReduceMin", "Prod": "ReduceProd",
    "LogSum": "ReduceLogSumExp",
}  # fmt: skip
POSITIONS = {"Argmax": "ArgMax", "Argmin": "ArgMin"}


@operator("Times", inputs=2)
def times(writer: GraphWriter, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    """x [*map, *in] times weights [*in, *out] → [*map, *out]: the core of Dense."""
    outputs = attributes.whole(function, "outputRank", 1)
    if not 0 <= outputs <= weights.rank:
        raise ModelError(f"{function}: weights {list(weights.shape)} for {outputs} axes of results")
    inner, out = weights.shape[: weights.rank - outputs], weights.shape[weights.rank - outputs :]
    return _product(writer, function, x, weights, inner, out)


@operator("TransposeTimes", inputs=2)
def transpose_times(writer: GraphWriter, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    """The same with transposed weights [out, in]; or [in], for a single result."""
    if weights.rank == 1:
        turned = writer.reshape(weights, (*weights.shape, 1))
    elif weights.rank == 2:
        order = [weights.axis(1), weights.axis(0)]
        turned = writer.node("Transpose", [weights], weights.shape[::-1], perm=[0] * weights.batched + order)
    else:
        raise ModelError(f"{function}: weights {list(weights.shape)} that cannot be transposed")
    return _product(writer, function, x, turned, turned.shape[:1], turned.shape[1:])


def _product(
    writer: GraphWriter, function: Function, x: Tensor, weights: Tensor, inner: tuple[int, ...], out: tuple[int, ...]
) -> Tensor:
    free = x.shape[: max(0, x.rank - len(inner))]
    if x.shape[len(free) :] != inner:
        raise ModelError(f"{function}: weights {list(weights.shape)} for samples {list(x.shape)}")
    rows, columns = math.prod(inner), math.prod(out)
    x = writer.reshape(x, (math.prod(free), rows) if free or weights.batched or not x.batched else (rows,))
    y = writer.node("MatMul", [x, writer.reshape(weights, (rows, columns))], (*x.shape[:-1], columns))
    return writer.reshape(y, (*free, *out))


@operator("BatchNormalization", inputs=range(5, 7))
@np.errstate(all="ignore")  # NaN in the parameters, or a negative variance, gives NaN
def batch_normalization(writer: GraphWriter, function: Function, x: Tensor, *parameters: Tensor) -> Tensor:
    """With scale, bias, running mean and variance; the count of images, which follows them, is not needed."""
    epsilon = attributes.number(function, "epsilon")
    if epsilon < 0:
        raise ModelError(f"{function}: its attribute 'epsilon' is {epsilon}")
    spatial = attributes.flag(function, "spatial") and x.rank > 0
    shape = x.shape[:1] if spatial else x.shape
    known = [_fitting(function, parameter, shape) for parameter in parameters[:4]]
    if spatial and x.batched and all(values.shape == shape for values in known):
        return writer.node("BatchNormalization", [x, *map(writer.constant, known)], x.shape, epsilon=epsilon)
    scale, bias, mean, variance = (values.astype(np.float64) for values in known)
    factor = scale / np.sqrt(variance + epsilon)
    shift = bias - mean * factor
    ones = (1,) * (x.rank - len(shape))
    scaled = writer.node("Mul", [x, writer.constant(factor.reshape(factor.shape + ones))], x.shape)
    return writer.node("Add", [scaled, writer.constant(shift.reshape(shift.shape + ones))], x.shape)


def _fitting(function: Function, parameter: Tensor, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The parameter in this shape; a single value for all stays single, since an image may have many values."""
    values = parameter.array
    if values is None:
        raise ModelError(f"{function}: its parameters are computed, not stored")
    if values.size not in (1, math.prod(shape)):
        raise ModelError(f"{function}: {values.size} parameters for {list(shape)}")
    return values.reshape(shape if values.size == math.prod(shape) else (1,) * len(shape))


@operator("ReduceElements")
def reduce_elements(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    name = attributes.text(function, "reductionOpName")
    if name in POSITIONS:
        return _position(writer, function, x, POSITIONS[name])
    if name not in REDUCTIONS:
        raise ModelError(f"{function} reduces to {name!r}: this is not read")
    named = "axisVec" if "axisVec" in function.attributes else "axis"
    axes = attributes.axes(function, named, x.rank)
    keeps = attributes.flag(function, "reductionKeepDimensions", True) and not attributes.is_whole(function, named)
    sizes = [1 if i in axes else size for i, size in enumerate(x.shape)]
    if not keeps:
        sizes = [size for i, size in enumerate(x.shape) if i not in axes]
    places = writer.indices(sorted({x.axis(i) for i in axes}))
    return writer.node(REDUCTIONS[name], [x, places], sizes, batched=x.batched, keepdims=int(keeps))


def _position(writer: GraphWriter, function: Function, x: Tensor, kind: str) -> Tensor:
    """The position of the largest or smallest value along an axis."""
    axes = attributes.axes(function, "axisVec" if "axisVec" in function.attributes else "axis", x.rank)
    if len(axes) != 1:
        raise ModelError(f"{function} finds a position on {len(axes)} axes: this is not read")
    sizes = [1 if i in axes else size for i, size in enumerate(x.shape)]
    place = cast(writer, writer.node(kind, [x], sizes, axis=x.axis(axes[0]), keepdims=1), writer.dtype)
    if attributes.flag(function, "reductionKeepDimensions", True):
        return place
    return writer.reshape(place, [size for i, size in enumerate(x.shape) if i not in axes])


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Over one axis if one is named, else over the whole sample."""
    if "axis" in function.attributes:
        axis = attributes.axis(function, "axis", x.rank)
        return writer.node(function.operation, [x], x.shape, axis=x.axis(axis))
    flat = writer.reshape(x, (math.prod(x.shape),))
    return writer.reshape(writer.node(function.operation, [flat], flat.shape, axis=flat.axis(0)), x.shape)
