"""Operations that rearrange values without changing them."""

import math

from libraries.cntk import attributes
from libraries.cntk.graph import Function
from libraries.cntk.operators.table import operator
from libraries.cntk.wire import MAX_RANK, Axis, ModelError
from libraries.cntk.writer import GraphWriter, Tensor

PAD_MODES = {0: "constant", 1: "reflect"}


@operator("Reshape")
def reshape(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Replace some adjacent axes, by default all, by others; one of the new sizes may be left open."""
    start, stop = 0, x.rank  # as the file counts: the fastest varying axis first
    if "beginAxis" in function.attributes:
        start = _edge(function, "beginAxis", x.rank)
    if "endAxis" in function.attributes:
        stop = _edge(function, "endAxis", x.rank)
    if start > stop:
        raise ModelError(f"{function}: axes from {start} to {stop}")
    before, replaced, after = (
        x.shape[: x.rank - stop],
        x.shape[x.rank - stop : x.rank - start],
        x.shape[x.rank - start :],
    )
    new = attributes.shape(function, "newShape")
    if sum(size < 0 for size in new) > 1:
        raise ModelError(f"{function}: a shape {new} with more than one open size")
    known = math.prod(size for size in new if size >= 0)
    if known < 1 or (math.prod(replaced) % known):
        raise ModelError(f"{function}: {list(replaced)} cannot become {new}")
    return writer.reshape(x, (*before, *(math.prod(replaced) // known if size < 0 else size for size in new), *after))


def _edge(function: Function, name: str, rank: int) -> int:
    """A position between axes, in the file's order."""
    axis = function.attributes[name]
    if not isinstance(axis, Axis):
        raise ModelError(f"{function}: its {name!r} is not an axis")
    if axis.index > attributes.LAST_STATIC_INDEX:
        return rank  # the end, whatever the rank
    index = axis.index + rank if axis.index < 0 else axis.index
    if not 0 <= index <= rank:
        raise ModelError(f"{function}: there is no axis {axis.index}")
    return index


@operator("TransposeAxes")
def transpose_axes(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Swap two axes, or permute all of them."""
    if "axisVec" in function.attributes:
        order = attributes.axes(function, "axisVec", x.rank)[::-1]
    else:
        first, second = (attributes.axis(function, name, x.rank) for name in ("axis1", "axis2"))
        order = list(range(x.rank))
        order[first], order[second] = second, first
    if sorted(order) != list(range(x.rank)):
        raise ModelError(f"{function}: axes {order}")
    places = [0, *(i + 1 for i in order)] if x.batched else order
    return writer.node("Transpose", [x], [x.shape[i] for i in order], perm=places)


@operator("Slice")
def cut(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """From a beginning up to, but excluding, an end (negative: from the end of the axis), on one or more axes.

    A negative step goes through the same values from the last one back, unlike in NumPy.
    """
    if "axisVec" in function.attributes:
        axes = attributes.axes(function, "axisVec", x.rank)
        begins, ends = (attributes.wholes(function, f"{name}IndexVec") for name in ("begin", "end"))
        has_strides = "sliceStridesVec" in function.attributes
        steps = attributes.wholes(function, "sliceStridesVec") if has_strides else [1] * len(axes)
    else:
        axes = [attributes.axis(function, "axis", x.rank)]
        begins, ends = ([attributes.whole(function, f"{name}Index")] for name in ("begin", "end"))
        steps = [attributes.whole(function, "sliceStrides", 1)]
    if not len(axes) == len(begins) == len(ends) == len(steps) or 0 in steps:
        raise ModelError(f"{function}: beginnings {begins} and ends {ends} for axes {axes}")
    starts, stops, strides = [0] * x.rank, list(x.shape), [1] * x.rank
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        size = x.shape[axis]
        starts[axis] = begin + size if begin < 0 else begin
        stops[axis] = end if end > 0 else end + size
        strides[axis] = step
        if not 0 <= starts[axis] < stops[axis] <= size:
            raise ModelError(f"{function}: from {begin} to {end} by {step} on an axis of {size}")
    ahead = [max(1, step) for step in strides]
    return _walk_back(writer, writer.crop(x, starts, stops, ahead), [min(1, step) for step in strides])


def _walk_back(writer: GraphWriter, x: Tensor, steps: list[int]) -> Tensor:
    """Reverse the axes with a negative step: from the last value towards the first."""
    backwards = [i for i, step in enumerate(steps) if step < 0]
    if not backwards:
        return x
    sizes = [-(-size // -step) if step < 0 else size for size, step in zip(x.shape, steps, strict=True)]
    starts, stops = [x.shape[i] - 1 for i in backwards], [-x.shape[i] - 1 for i in backwards]
    bounds = (starts, stops, [x.axis(i) for i in backwards], [steps[i] for i in backwards])
    return writer.node("Slice", [x, *map(writer.indices, bounds)], sizes)


@operator("Splice", inputs=range(1, 10_000))
def splice(writer: GraphWriter, function: Function, *inputs: Tensor) -> Tensor:
    """Concatenate on an axis."""
    named = function.attributes.get("axis")
    beyond = named.index + 1 if isinstance(named, Axis) and named.index < MAX_RANK else 0  # it may be a new axis
    rank = max(beyond, *(x.rank for x in inputs))
    axis = attributes.axis(function, "axis", rank)
    aligned = [writer.reshape(x, (1,) * (rank - x.rank) + x.shape) for x in inputs]
    shapes = {x.shape[:axis] + x.shape[axis + 1 :] for x in aligned}
    if len(shapes) > 1 or len({(x.batched, x.rank) for x in aligned}) > 1:
        raise ModelError(f"{function}: {' and '.join(str(list(x.shape)) for x in inputs)} do not fit")
    sizes = list(aligned[0].shape)
    sizes[axis] = sum(x.shape[axis] for x in aligned)
    return writer.node("Concat", aligned, sizes, axis=aligned[0].axis(axis))


@operator("Squeeze")
def squeeze(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    """Without the named axes of size 1, by default all of them."""
    axes = [i for i, size in enumerate(x.shape) if size == 1]
    for name in ("axisVec", "axis"):
        if name in function.attributes:
            axes = attributes.axes(function, name, x.rank)
    return writer.reshape(x, [size for i, size in enumerate(x.shape) if i not in axes])


@operator("Pad")
def pad(writer: GraphWriter, function: Function, x: Tensor) -> Tensor:
    mode = attributes.whole(function, "paddingMode")
    if mode not in PAD_MODES:
        raise ModelError(f"{function} pads in the mode {mode}: only 0 (constant) and 1 (reflect) are read")
    head, foot = (attributes.wholes(function, f"padding{end}")[::-1] for end in ("Head", "Foot"))
    if len(head) != x.rank or len(foot) != x.rank or min(head + foot, default=0) < 0:
        raise ModelError(f"{function}: {head} before and {foot} after {list(x.shape)}")
    value = writer.constant(attributes.number(function, "paddingConstantValue", 0.0))
    batch = [0] * x.batched
    sizes = [low + size + high for low, size, high in zip(head, x.shape, foot, strict=True)]
    return writer.node("Pad", [x, writer.indices([*batch, *head, *batch, *foot]), value], sizes, mode=PAD_MODES[mode])


@operator("Crop", inputs=2)
def crop(writer: GraphWriter, function: Function, x: Tensor, like: Tensor) -> Tensor:
    """Crop x [C, H, W] at an offset to the positions of `like`."""
    offset = attributes.wholes(function, "offset")[::-1]
    if len(offset) != x.rank - 1 or like.rank != x.rank:
        raise ModelError(f"{function}: {list(x.shape)} cropped like {list(like.shape)} at {offset}")
    stops = [start + size for start, size in zip(offset, like.shape[1:], strict=True)]
    if min(offset) < 0 or any(stop > size for stop, size in zip(stops, x.shape[1:], strict=True)):
        raise ModelError(f"{function}: {list(x.shape)} cropped like {list(like.shape)} at {offset}")
    return writer.crop(x, [0, *offset], [x.shape[0], *stops])
