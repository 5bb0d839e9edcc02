"""Convolution and pooling: windows that move over the axes of a sample.

CNTK has its own automatic padding (ConvolveGeometry.h): the windows' centres are spread evenly. At strides above 1 it
is neither TensorFlow's SAME nor PyTorch's padding, and may even omit values at the border.
"""

from dataclasses import dataclass
from typing import Any

from libraries.cntk import attributes
from libraries.cntk.graph import Function
from libraries.cntk.operators.table import operator
from libraries.cntk.wire import ModelError
from libraries.cntk.writer import GraphWriter, Tensor

MAX_POOLING = 0
MAX_REACH = 2**20  # of a window, and of padding: far more than any image needs, far below overflow


@dataclass(frozen=True)
class WindowSettings:
    """How windows move along an axis, as given in a file."""

    stride: int
    dilation: int
    automatic: bool
    lower: int
    upper: int


@dataclass(frozen=True)
class AxisWindows:
    """The windows on one axis of `size`: `kernel` values, `dilation` apart, every `stride`, with padding."""

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

    @property
    def covers_all(self) -> bool:
        """Whether there is a single window, over the whole axis."""
        return self.kernel == self.size and self.output == 1 and not self.lower


def _window_settings(function: Function, *, given: int, rank: int) -> list[WindowSettings]:
    """The settings for each axis of a sample; the attributes are about the last `given` axes."""

    def each(name: str, default: int) -> list[int]:
        values = attributes.shape(function, name, [default])
        return attributes.per_axis(values, given=given, rank=rank, default=default)

    automatic = attributes.per_axis(attributes.flags(function, "autoPadding"), given=given, rank=rank, default=False)
    lists = (each("strides", 1), each("dilation", 1), automatic, each("lowerPad", 0), each("upperPad", 0))
    return [WindowSettings(*values) for values in zip(*lists, strict=True)]


def lay_windows(size: int, kernel: int, step: WindowSettings, *, ceil: bool = False) -> AxisWindows:
    """The windows on an axis; raises ModelError if none fits.

    Args:
        ceil: whether the last window may reach beyond the end.
    """
    stride, dilation = step.stride, step.dilation
    if min(size, kernel, stride, dilation) < 1 or min(step.lower, step.upper) < 0:
        raise ModelError(f"a window of {kernel} on an axis of {size}, at a stride of {stride}")
    extent = dilation * (kernel - 1) + 1
    if max(extent, step.lower, step.upper) > MAX_REACH:
        raise ModelError(f"a window of {extent} with a padding of {step.lower} and {step.upper}")
    if step.automatic:
        output = (size - 1) // stride + 1
        extra = size - ((output - 1) * stride + 1)  # values before the first centre and after the last
        before, after = (extent - 1) // 2, extent - 1 - (extent - 1) // 2
        return AxisWindows(size, kernel, stride, dilation, before - extra // 2, after - (extra - extra // 2), output)
    free = size + step.lower + step.upper - extent
    if free < 0:
        raise ModelError(f"a window of {extent} does not fit on an axis of {size}")
    output = -(-free // stride) + 1 if ceil else free // stride + 1
    beyond = (output - 1) * stride + extent - size - step.lower
    return AxisWindows(size, kernel, stride, dilation, step.lower, max(step.upper, beyond), output)


@operator("Pooling")
def pooling(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    if not x.batched or not x.rank:
        raise ModelError(f"{function}: its input {list(x.shape)} is not an image")
    windows = _pooling_windows(function, x.shape)
    if any(axis.dilation > 1 for axis in windows):
        raise ModelError(f"{function} is dilated: this is not read")
    if any(max(axis.lower, axis.upper) >= axis.kernel for axis in windows):
        raise ModelError(f"{function} has windows with nothing but padding")
    kind = "MaxPool" if attributes.whole(function, "poolingType") == MAX_POOLING else "AveragePool"
    if is_global(function, x.shape) and windows[0].is_plain:
        return writer.node(f"Global{kind}", [x], [x.shape[0], *(1 for _ in windows[1:])])
    includes = attributes.flag(function, "includePad", False)
    options: dict[str, Any] = {"count_include_pad": int(includes)} if kind == "AveragePool" else {}
    shape = x.shape
    if not windows[0].is_plain or x.rank == 1:  # over channels, too: they become one more axis of positions
        x, windows = writer.reshape(x, (1, *shape)), [AxisWindows(1, 1, 1, 1, 0, 0, 1), *windows]
    x, spatial = _crop(writer, x, windows[1:])
    y = writer.node(kind, [x], [x.shape[0], *(a.output for a in spatial)], **_sliding(spatial), **options)
    return writer.reshape(y, y.shape[-len(shape) :])


def is_global(function: Function, shape: tuple[int, ...]) -> bool:
    """Whether a pooling covers all positions of samples of this shape [C, ...] at once."""
    spatial = _pooling_windows(function, shape)[1:]
    return bool(spatial) and all(axis.covers_all for axis in spatial)


def _pooling_windows(function: Function, shape: tuple[int, ...]) -> list[AxisWindows]:
    window = attributes.shape(function, "poolingWindowShape")
    if min(window, default=0) < 0:  # not given: all positions
        window = list(shape[1:])
    rank, ceil = len(shape), attributes.flag(function, "ceilOutDim", False)
    kernel = attributes.per_axis(window, given=len(window), rank=rank, default=1)
    steps = _window_settings(function, given=len(window), rank=rank)
    return [lay_windows(*settings, ceil=ceil) for settings in zip(shape, kernel, steps, strict=True)]


def _crop(writer: GraphWriter, x: Tensor, spatial: list[AxisWindows]) -> tuple[Tensor, list[AxisWindows]]:
    """Crop what automatic padding omits at the borders, which ONNX cannot express."""
    starts = [0, *(max(0, -a.lower) for a in spatial)]
    stops = [x.shape[0], *(a.size - max(0, -a.upper) for a in spatial)]
    cropped = [
        AxisWindows(stop - start, a.kernel, a.stride, a.dilation, max(0, a.lower), max(0, a.upper), a.output)
        for a, start, stop in zip(spatial, starts[1:], stops[1:], strict=True)
    ]
    return writer.crop(x, starts, stops), cropped


def _sliding(spatial: list[AxisWindows]) -> dict[str, Any]:
    """The attributes of an ONNX node for windows on the axes after the channels."""
    settings = {
        "kernel_shape": [a.kernel for a in spatial],
        "strides": [a.stride for a in spatial],
        "pads": [a.lower for a in spatial] + [a.upper for a in spatial],
    }
    dilations = [a.dilation for a in spatial]
    return settings if max(dilations) == 1 else settings | {"dilations": dilations}


@operator("Convolution", inputs=2)
def convolution(writer: GraphWriter, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    if attributes.flag(function, "sequential", False):
        raise ModelError(f"{function} moves over a sequence: this is not read")
    if not all(attributes.flags(function, "sharing")):
        raise ModelError(f"{function} has other weights at every position: this is not read")
    if weights.batched or not x.batched or not 1 <= x.rank <= weights.rank <= x.rank + 1:
        raise _misfit(function, weights, x)
    if attributes.flag(function, "transpose", False):
        return _transposed(writer, function, weights, x)
    kernel = weights.shape[weights.rank - x.rank :]
    maps = weights.shape[0] if weights.rank > x.rank else 1
    groups = attributes.whole(function, "groups", 1)
    steps = _window_settings(function, given=x.rank - 1, rank=x.rank)
    spatial = [lay_windows(*settings) for settings in zip(x.shape[1:], kernel[1:], steps[1:], strict=True)]
    if kernel[0] * groups == x.shape[0] and spatial and not (steps[0].automatic and kernel[0] > 1):
        if maps % groups:
            raise _misfit(function, weights, x)
        x, spatial = _crop(writer, x, spatial)  # the stride over the channels has no meaning
        kernels = writer.reshape(weights, (maps, *kernel))
        return writer.node(
            "Conv", [x, kernels], [maps, *(a.output for a in spatial)], group=groups, **_sliding(spatial)
        )
    if groups != 1:
        raise _misfit(function, weights, x)
    channels = lay_windows(x.shape[0], kernel[0], steps[0])  # windows move over the channels, too, as one more axis
    kernels = writer.reshape(weights, (maps, 1, *kernel))
    x, spatial = _crop(writer, writer.reshape(x, (1, *x.shape)), [channels, *spatial])
    y = writer.node("Conv", [x, kernels], [maps, *(a.output for a in spatial)], **_sliding(spatial))
    return writer.reshape(y, (maps * y.shape[1], *y.shape[2:]))


def _transposed(writer: GraphWriter, function: Function, weights: Tensor, x: Tensor) -> Tensor:
    """A transposed convolution: from the output of a convolution, x, to the size of its input."""
    fits = weights.rank == x.rank + 1 > 2 and weights.shape[0] == x.shape[0]
    if not fits or attributes.whole(function, "groups", 1) != 1:
        raise _misfit(function, weights, x)
    steps = _window_settings(function, given=x.rank - 1, rank=x.rank)[1:]
    wanted = attributes.shape(function, "outputShape", [0])
    is_given = len(wanted) == x.rank and min(wanted) > 0
    spatial = []
    for i, (given, kernel, step) in enumerate(zip(x.shape[1:], weights.shape[2:], steps, strict=True)):
        least = 1 if step.automatic else kernel - step.lower - step.upper
        size = wanted[i + 1] if is_given else (given - 1) * step.stride + least
        axis = lay_windows(size, kernel, step)
        if axis.output != given or axis.lower < 0 or axis.dilation > 1:
            raise ModelError(f"{function}: {size} cannot come from {given} at a stride of {step.stride}")
        spatial.append(axis)
    ends = [(a.output - 1) * a.stride + a.kernel - a.lower - max(0, a.upper) for a in spatial]
    pads = [a.lower for a in spatial] + [max(0, a.upper) for a in spatial]
    more = [a.size - end for a, end in zip(spatial, ends, strict=True)]
    options = _sliding(spatial) | {"pads": pads, "output_padding": more}
    return writer.node("ConvTranspose", [x, weights], [weights.shape[1], *(a.size for a in spatial)], **options)


def _misfit(function: Function, weights: Tensor, x: Tensor) -> ModelError:
    groups = attributes.whole(function, "groups", 1)
    return ModelError(f"{function}: weights {list(weights.shape)} in {groups} groups for samples {list(x.shape)}")
