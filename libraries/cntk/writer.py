"""Collects the nodes of an ONNX graph, with the sample shape of every tensor in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libraries.cntk.wire import ModelError

OPSET = 18
MAX_ELEMENTS = 2**31  # of one sample of a tensor: far more than any network has, far below overflow


@dataclass(frozen=True)
class Tensor:
    """A tensor of the ONNX graph.

    Attributes:
        shape: of one sample, e.g. (3, 224, 224); if `batched`, the graph's tensor has a batch axis before it.
        array: the values of a parameter or constant.
    """

    name: str
    shape: tuple[int, ...]
    batched: bool = True
    array: npt.NDArray[Any] | None = None

    @property
    def rank(self) -> int:
        """The number of axes of one sample."""
        return len(self.shape)

    def axis(self, index: int) -> int:
        """The axis of the graph's tensor that is axis `index` of a sample."""
        return index + self.batched


class GraphWriter:
    """Nodes and initialisers of a graph that computes in `dtype`.

    Attributes:
        scope: begins the names of the nodes that are added.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.scope = ""
        self.nodes: list[Any] = []
        self.initializers: dict[str, npt.NDArray[Any]] = {}
        self._names: dict[str, int] = {}

    def node(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        *,
        batched: bool | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Add a node; returns its output.

        Args:
            shape: of a sample of the output.
            batched: whether the output has a batch; by default if an input has.
        """
        from onnx import helper

        if min(shape, default=1) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise ModelError(f"a result of the shape {list(shape)}")
        name = self.name(self.scope)
        self.nodes.append(helper.make_node(kind, [self.use(x) for x in inputs], [name], name=name, **attributes))
        if batched is None:
            batched = any(x.batched for x in inputs if x is not None)
        return Tensor(name, tuple(shape), batched)

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Tensor:
        """Known values, in the graph's dtype unless another is given."""
        array = np.asarray(values, dtype or self.dtype)
        return Tensor(self.name(f"{self.scope}.constant"), array.shape, batched=False, array=array)

    def indices(self, values: Sequence[int]) -> Tensor:
        """Whole numbers: axes, sizes, positions."""
        return self.constant(values, np.int64)

    def use(self, tensor: Tensor | None) -> str:
        """The name of a tensor as a node's input; '' for an omitted one."""
        if tensor is None:
            return ""
        if tensor.array is not None:
            self.initializers[tensor.name] = tensor.array
        return tensor.name

    def name(self, wanted: str) -> str:
        """`wanted`, followed by a number if that is taken."""
        while True:
            count = self._names[wanted] = self._names.get(wanted, 0) + 1
            if count == 1:
                return wanted
            wanted = f"{wanted}.{count}"

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same values, in the same order, in samples of another shape."""
        if math.prod(shape) != math.prod(x.shape):
            raise ModelError(f"{list(x.shape)} cannot become {list(shape)}")
        if tuple(shape) == x.shape:
            return x
        if x.array is not None:
            return self.constant(x.array.reshape(shape))
        return self.node("Reshape", [x, self.indices([*([0] if x.batched else []), *shape])], shape)

    def of_rank(self, x: Tensor, rank: int) -> Tensor:
        """The tensor with axes of size 1 before a sample's own, as in broadcasting."""
        return self.reshape(x, (1,) * (rank - x.rank) + x.shape) if x.batched and x.rank < rank else x

    def crop(
        self, x: Tensor, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
    ) -> Tensor:
        """The part from `starts` up to, but excluding, `stops` on the axes of a sample."""
        steps = steps or [1] * x.rank
        sizes = [len(range(start, stop, step)) for start, stop, step in zip(starts, stops, steps, strict=True)]
        if tuple(sizes) == x.shape:
            return x
        bounds = [self.indices(values) for values in (starts, stops, [x.axis(i) for i in range(x.rank)], steps)]
        return self.node("Slice", [x, *bounds], sizes)
