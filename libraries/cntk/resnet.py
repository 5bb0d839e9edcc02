"""Finds a ResNet in a CNTK model and returns its weights under timm's names, so that it can be trained further.

CNTK's ResNets (Examples/Image/Classification/ResNet/Python/resnet_models.py) are the networks of He et al. 2015, 'Deep
residual learning for image recognition'; for kernels of odd size at a stride of 2, their automatic padding equals
PyTorch's. Two things differ: the order of the image channels, and the epsilon of batch normalisation. The ResNet-18 of
CNTK's examples has a third block in its last stage (it was later renamed to ResNet-20), and the networks from Caffe
halve the map in the first convolution of a bottleneck, as in the paper; `network.source` has both variants.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from libraries.base.arrays import Floating
from libraries.cntk import attributes
from libraries.cntk.convert import choose
from libraries.cntk.graph import Function, Graph
from libraries.cntk.wire import ModelError

ARCHITECTURES: dict[tuple[int, tuple[int, ...]], str] = {  # by the convolutions in a block and the blocks in a stage
    (2, (2, 2, 2, 2)): "resnet18",
    (2, (2, 2, 2, 3)): "cntk_resnet20",
    (2, (3, 4, 6, 3)): "resnet34",
    (3, (3, 4, 6, 3)): "resnet50",
    (3, (3, 4, 23, 3)): "resnet101",
    (3, (3, 8, 36, 3)): "resnet152",
}
TIMM_EPSILON = 1e-5
LAST_MAP = "z.x.x.r"


@dataclass(frozen=True)
class Unit:
    """A convolution with its batch normalisation, applied to the value `source`."""

    weights: Floating  # [out, in, k, k]
    normalisation: dict[str, Floating]
    stride: int
    source: str

    def named(self, convolution: str, normalisation: str) -> dict[str, Floating]:
        """Its weights under the names of two of timm's layers."""
        own = {f"{normalisation}.{name}": values for name, values in self.normalisation.items()}
        return {f"{convolution}.weight": self.weights} | own


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block, applied to the value `source`: units in sequence, and perhaps one on the shortcut."""

    units: tuple[Unit, ...]
    shortcut: Unit | None
    source: str

    def named(self, prefix: str) -> dict[str, Floating]:
        """Its weights under timm's names."""
        weights: dict[str, Floating] = {}
        for number, unit in enumerate(self.units, 1):
            weights |= unit.named(f"{prefix}.conv{number}", f"{prefix}.bn{number}")
        if self.shortcut is not None:
            weights |= self.shortcut.named(f"{prefix}.downsample.0", f"{prefix}.downsample.1")
        return weights

    @property
    def strides(self) -> list[int]:
        """Of its units, in order."""
        return [unit.stride for unit in self.units]


def read_resnet(graph: Graph) -> tuple[str, dict[str, Floating]]:
    """timm's name of the architecture, and the weights without the classifier's, for images in CNTK's BGR.

    Raises:
        ModelError: the network is not a ResNet that timm has; says where it differs.
    """
    walk = _Walk(graph)
    blocks, value = [], walk.last_map()
    while (block := walk.block(value)) is not None:
        blocks.append(block)
        value = block.source
    blocks.reverse()
    stem = walk.stem(value)
    stages: list[list[ResidualBlock]] = []
    for block in blocks:
        if not stages or block.shortcut is not None:
            stages.append([])
        stages[-1].append(block)
    units = len(blocks[0].units) if blocks else 0
    architecture = ARCHITECTURES.get((units, tuple(len(stage) for stage in stages)))
    if stem is None or architecture is None:
        counts = " + ".join(str(len(stage)) for stage in stages) or "no"
        raise ModelError(f"{counts} residual blocks, unlike {', '.join(ARCHITECTURES.values())}")
    weights = stem.named("conv1", "bn1")
    for number, stage in enumerate(stages, 1):
        for place, block in enumerate(stage):
            weights |= block.named(f"layer{number}.{place}")
    return _variant(architecture, stem, stages), weights


def _variant(architecture: str, stem: Unit, stages: list[list[ResidualBlock]]) -> str:
    """The variant, by where a stage halves the map: in a convolution of 3 x 3, or in the 1 x 1 one before it."""
    early, late = ([2, 1, 1], [1, 2, 1]) if len(stages[0][0].units) == 3 else ([], [2, 1])
    halving = [stage[0] for stage in stages[1:]]
    resting = [*stages[0], *(block for stage in stages[1:] for block in stage[1:])]
    fits = stem.stride == 2 and all(set(block.strides) == {1} for block in resting)
    fits &= all(block.shortcut is not None and block.shortcut.stride == 2 for block in halving)
    if fits and all(block.strides == late for block in halving):
        return architecture
    if fits and all(block.strides == early for block in halving):
        return f"caffe_{architecture}"
    raise ModelError("the strides of its convolutions are not those of a ResNet")


class _Walk:
    """Walks backwards through a graph, from the end of a ResNet to its beginning."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def last_map(self) -> str:
        """The value that is the input of the last pooling."""
        named = self.graph.find(LAST_MAP)
        if named is not None:
            return self.graph.value_of(named)
        poolings = [f for f in self.graph.order(choose(self.graph, None)) if f.operation == "Pooling"]
        if not poolings:
            raise ModelError("no pooling")
        return self.graph.resolve(poolings[-1].inputs[0])

    def maker(self, value: str, operation: str) -> Function | None:
        """The function that computes a value, if it is this operation."""
        function, _ = self.graph.producer(value)
        return function if function is not None and function.operation == operation else None

    def inputs(self, function: Function) -> list[str]:
        """The inputs of a function, without parameters and constants."""
        values = [self.graph.resolve(uid) for uid in function.inputs]
        return [uid for uid in values if self.known(uid) is None]

    def known(self, value: str) -> Floating | None:
        """The numbers of a parameter or constant; None for other values."""
        variable = self.graph.variables.get(value)
        return None if variable is None else variable.value

    def parameters(self, function: Function) -> list[Floating]:
        """The numbers of the parameters and constants among a function's inputs, in order."""
        known = [self.known(self.graph.resolve(uid)) for uid in function.inputs]
        return [values for values in known if values is not None]

    def unit(self, value: str, *, has_relu: bool) -> Unit | None:
        """The convolution and batch normalisation, perhaps followed by a ReLU, that compute a value."""
        if has_relu:
            relu = self.maker(value, "ReLU")
            if relu is None:
                return None
            (value,) = self.inputs(relu)
        normalisation = self.maker(value, "BatchNormalization")
        if normalisation is None or len(self.inputs(normalisation)) != 1:
            return None
        convolution = self.maker(self.inputs(normalisation)[0], "Convolution")
        if convolution is None or len(self.inputs(convolution)) != 1:
            return None
        (weights,) = self.parameters(convolution)
        return Unit(weights, _normalisation(self, normalisation), _stride(convolution), self.inputs(convolution)[0])

    def block(self, value: str) -> ResidualBlock | None:
        """The residual block that computes a value."""
        relu = self.maker(value, "ReLU")
        plus = self.maker(self.inputs(relu)[0], "Plus") if relu is not None else None
        if plus is None or len(self.inputs(plus)) != 2:
            return None
        first, second = self.inputs(plus)
        return self._block(first, second) or self._block(second, first)

    def _block(self, main: str, short: str) -> ResidualBlock | None:
        """The same from the two inputs of its sum, if `main` is the path through the convolutions."""
        shortcut = self.unit(short, has_relu=False)
        units: list[Unit] = []
        value = main
        while len(units) < 3 and (unit := self.unit(value, has_relu=bool(units))) is not None:
            units.append(unit)
            value = unit.source
            if len(units) > 1 and value == short:
                return ResidualBlock(tuple(reversed(units)), None, value)
            if len(units) > 1 and shortcut is not None and value == shortcut.source:
                return ResidualBlock(tuple(reversed(units)), shortcut, value)
        return None

    def stem(self, value: str) -> Unit | None:
        """The first convolution, whose result a pooling turns into a value."""
        pooling = self.maker(value, "Pooling")
        return self.unit(self.inputs(pooling)[0], has_relu=True) if pooling is not None else None


def _stride(convolution: Function) -> int:
    *_, height, width = [0, *attributes.shape(convolution, "strides")]
    if height != width:
        raise ModelError(f"{convolution} has the strides {height} and {width}")
    return width


def _normalisation(walk: _Walk, function: Function) -> dict[str, Floating]:
    """Scale, bias, mean and variance [C] under PyTorch's names, adjusted to timm's epsilon."""
    known = walk.parameters(function)
    if len(known) < 4:
        raise ModelError(f"{function}: its parameters are computed, not stored")
    names = ("weight", "bias", "running_mean", "running_var")
    values: Mapping[str, Floating] = dict(zip(names, (p.reshape(-1) for p in known), strict=False))
    epsilon = attributes.number(function, "epsilon")
    variance = values["running_var"].astype(np.float64) + (epsilon - TIMM_EPSILON)
    if (variance < 0).any():
        raise ModelError(f"{function}: its epsilon of {epsilon:g} cannot be replaced by timm's {TIMM_EPSILON:g}")
    return {**values, "running_var": variance.astype(np.float32)}
