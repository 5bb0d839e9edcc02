"""Convolution and pooling: windows that move over the axes of a sample.

CNTK's automatic padding is its own (ConvolveGeometry.h): the windows' centres are spread evenly, so that at a stride
beyond 1 it is neither TensorFlow's SAME nor what PyTorch does, and may even leave out what lies at the border.
"""

from dataclasses import dataclass
from typing import Any

from libraries.network.cntk import attributes
from libraries.network.cntk.graph import Function
from libraries.network.cntk.operators.table import operator
from libraries.network.cntk.wire import ModelError
from libraries.network.cntk.writer import Tensor, Writer

MAX_POOLING = 0


@dataclass(frozen=True)
class Axis:
    """How windows lie on one axis of `size`: `kernel` values, `dilation` apart, every `stride`, with padding."""

    size: int
    kernel: int
    stride: int
    dilation: int
    lower: int
    upper: int
    output: int

    @property
    def is_plain(self) -> bool:
        """Whether nothing happens along this axis."""
        return self.kernel == self.stride == 1 and not self.lower and not self.upper


def lay(
    size: int, kernel: int, *, stride: int, dilation: int, automatic: bool, pads: tuple[int, int], ceil: bool
) -> Axis:
    """The windows on an axis; raises ModelError where none fits."""
    if min(size, kernel, stride, dilation) < 1 or min(pads) < 0:
        raise ModelError(f"a window of {kernel} on an axis of {size}, at a stride of {stride}")
    extent = dilation * (kernel - 1) + 1
    if automatic:
        output = (size - 1) // stride + 1
        extra = size - ((output - 1) * stride + 1)  # what lies before the first and behind the last centre
        before, after = (extent - 1) // 2, extent - 1 - (extent - 1) // 2
        return Axis(size, kernel, stride, dilation, before - extra // 2, after - (extra - extra // 2), output)
    lower, upper = pads
    free = size + lower + upper - extent
    if free < 0:
        raise ModelError(f"a window of {extent} does not fit on an axis of {size}")
    output = -(-free // stride) + 1 if ceil else free // stride + 1
    return Axis(
        size, kernel, stride, dilation, lower, max(upper, (output - 1) * stride + extent - size - lower), output
    )


@operator("Pooling")
def pooling(writer: Writer, function: Function, x: Tensor) -> Tensor:
    windows = _pooling_windows(function, x)
    kind = "MaxPool" if attributes.whole(function, "poolingType") == MAX_POOLING else "AveragePool"
    spatial = windows[1:]
    if (
        x.rank > 1
        and windows[0].is_plain
        and all(a.kernel == a.size and a.output == 1 and not a.lower for a in spatial)
    ):
        return writer.node(f"Global{kind}", [x], [x.shape[0], *(1 for _ in spatial)])
    options: dict[str, Any] = (
        {} if kind == "MaxPool" else {"count_include_pad": int(attributes.flag(function, "includePad", False))}
    )
    return _slide(writer, kind, x, windows, **options)


def is_global(function: Function, shape: tuple[int, ...]) -> bool:
    """Whether a pooling takes all positions of samples of this shape [C, ...] together."""
    windows = _pooling_windows(function, Tensor("", shape))[1:]
    return bool(windows) and all(a.kernel == a.size and a.output == 1 for a in windows)


def _pooling_windows(function: Function, x: Tensor) -> list[Axis]:
    window = attributes.shape(function, "poolingWindowShape")
    if min(window, default=0) < 0:  # not given: all positions
        window = list(x.shape[1:])
    given = len(window)
    kernel = attributes.per_axis(window, given=given, rank=x.rank, default=1)
    return _windows(function, x.shape, kernel, given=given, ceil=attributes.flag(function, "ceilOutDim", False))


def _windows(
    function: Function, sizes: tuple[int, ...], kernel: list[int], *, given: int, ceil: bool = False
) -> list[Axis]:
    """On every axis of a sample, with the attributes that convolution and pooling share."""
    rank = len(sizes)

    def each(values: list[int], default: int) -> list[int]:
        return attributes.per_axis(values, given=given, rank=rank, default=default)

    automatic = attributes.per_axis(attributes.flags(function, "autoPadding"), given=given, rank=rank, default=False)
    settings = zip(
        sizes,
        kernel,
        each(attributes.shape(function, "strides"), 1),
        each(attributes.shape(function, "dilation", [1]), 1),
        automatic,
        each(attributes.shape(function, "lowerPad"), 0),
        each(attributes.shape(function, "upperPad"), 0),
        strict=True,
    )
    return [
        lay(size, k, stride=stride, dilation=dilation, automatic=auto, pads=(lower, upper), ceil=ceil)
        for size, k, stride, dilation, auto, lower, upper in settings
    ]


def _slide(writer: Writer, kind: str, x: Tensor, windows: list[Axis], **options: Any) -> Tensor:
    """A pooling; where windows reach over channels, these become one more axis of positions."""
    shape = x.shape
    if not windows[0].is_plain or x.rank == 1:
        x, windows = writer.reshape(x, (1, *shape)), [lay_nothing(1), *windows]
    spatial = windows[1:]
    x, spatial = _crop(writer, x, spatial)
    y = writer.node(kind, [x], [x.shape[0], *(a.output for a in spatial)], **_sliding(spatial), **options)
    return writer.reshape(y, y.shape[-len(shape) :])


def lay_nothing(size: int) -> Axis:
    """An axis along which nothing happens."""
    return Axis(size, 1, 1, 1, 0, 0, size)


def _crop(writer: Writer, x: Tensor, spatial: list[Axis]) -> tuple[Tensor, list[Axis]]:
    """Without what automatic padding leaves out at the borders, which ONNX knows no word for."""
    starts = [0, *(max(0, -a.lower) for a in spatial)]
    stops = [x.shape[0], *(a.size - max(0, -a.upper) for a in spatial)]
    cropped = [
        Axis(stop - start, a.kernel, a.stride, a.dilation, max(0, a.lower), max(0, a.upper), a.output)
        for a, start, stop in zip(spatial, starts[1:], stops[1:], strict=True)
    ]
    return writer.crop(x, starts, stops), cropped


def _sliding(spatial: list[Axis]) -> dict[str, Any]:
    """The attributes of an ONNX node for windows on the axes behind the channels."""
    settings = {
        "kernel_shape": [a.kernel for a in spatial],
        "strides": [a.stride for a in spatial],
        "pads": [a.lower for a in spatial] + [a.upper for a in spatial],
    }
    dilations = [a.dilation for a in spatial]
    return settings if max(dilations) == 1 else settings | {"dilations": dilations}


@operator("Convolution", inputs=2)
def convolution(writer: Writer, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    if attributes.flag(function, "sequential", False):
        raise ModelError(f"{function} moves over a sequence: this is not read")
    if not all(attributes.flags(function, "sharing")):
        raise ModelError(f"{function} has other weights at every position: this is not read")
    if weights.batched or not x.rank <= weights.rank <= x.rank + 1:
        raise ModelError(f"{function}: weights {list(weights.shape)} for samples {list(x.shape)}")
    if attributes.flag(function, "transpose", False):
        return _transposed(writer, function, weights, x)
    kernel = list(weights.shape[weights.rank - x.rank :])
    maps = weights.shape[0] if weights.rank > x.rank else 1
    groups = attributes.whole(function, "groups", 1)
    over_channels = kernel[0] * groups == x.shape[0]  # all of them, at once
    windows = _windows(function, x.shape, kernel, given=x.rank - 1)
    automatic = attributes.per_axis(
        attributes.flags(function, "autoPadding"), given=x.rank - 1, rank=x.rank, default=False
    )
    if over_channels and not automatic[0] and x.rank > 1:
        weights = writer.reshape(weights, (maps, *kernel))
        if maps % groups:
            raise ModelError(f"{function}: {maps} maps in {groups} groups")
        x, spatial = _crop(writer, x, windows[1:])
        shape = [maps, *(a.output for a in spatial)]
        return writer.node("Conv", [x, weights], shape, group=groups, **_sliding(spatial))
    if groups != 1:
        raise ModelError(f"{function}: weights {list(weights.shape)} for samples {list(x.shape)} in {groups} groups")
    weights = writer.reshape(weights, (maps, 1, *kernel))  # windows move over the channels, too
    x, spatial = _crop(writer, writer.reshape(x, (1, *x.shape)), windows)
    y = writer.node("Conv", [x, weights], [maps, *(a.output for a in spatial)], **_sliding(spatial))
    return writer.reshape(y, (maps * y.shape[1], *y.shape[2:]))


def _transposed(writer: Writer, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    """A convolution run backwards: from what it gives, x, to the size it takes."""
    if weights.rank != x.rank + 1 or weights.shape[0] != x.shape[0] or attributes.whole(function, "groups", 1) != 1:
        raise ModelError(f"{function}: weights {list(weights.shape)} for samples {list(x.shape)}")
    given = x.rank - 1
    kernel = list(weights.shape[2:])

    def each(values: list[int], default: int) -> list[int]:
        return attributes.per_axis(values, given=given, rank=x.rank, default=default)[1:]

    strides, dilations = (each(attributes.shape(function, name, [1]), 1) for name in ("strides", "dilation"))
    lower, upper = (each(attributes.shape(function, name), 0) for name in ("lowerPad", "upperPad"))
    automatic = attributes.per_axis(attributes.flags(function, "autoPadding"), given=given, rank=x.rank, default=False)
    wanted = attributes.shape(function, "outputShape", [0])
    if max(dilations) > 1:
        raise ModelError(f"{function} is dilated and transposed: this is not read")
    sizes, laid = [], []
    for i in range(given):
        backwards = (x.shape[i + 1] - 1) * strides[i] + (1 if automatic[i + 1] else kernel[i] - lower[i] - upper[i])
        size = wanted[i + 1] if len(wanted) == x.rank and min(wanted) > 0 else backwards
        axis = lay(
            size,
            kernel[i],
            stride=strides[i],
            dilation=1,
            automatic=automatic[i + 1],
            pads=(lower[i], upper[i]),
            ceil=False,
        )
        if axis.output != x.shape[i + 1] or axis.lower < 0:
            raise ModelError(f"{function}: {size} cannot come from {x.shape[i + 1]} at a stride of {strides[i]}")
        sizes.append(size)
        laid.append(axis)
    ends = [(a.output - 1) * a.stride + a.kernel - a.lower - a.upper for a in laid]
    options = _sliding(laid) | {
        "pads": [a.lower for a in laid] + [max(0, a.upper) for a in laid],
        "output_padding": [size - end - min(0, a.upper) for size, end, a in zip(sizes, ends, laid, strict=True)],
    }
    return writer.node("ConvTranspose", [x, weights], [weights.shape[1], *sizes], **options)
