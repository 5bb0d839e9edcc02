"""Finds the last layer of an ONNX classification network, and with it the embedding: what that layer takes.

The way goes from the scores backwards: past softmax, past additions of a bias, to the multiplication by weights that
tells the classes apart (Gemm, MatMul, or a convolution of a single position). Where such a network has none, as in
SqueezeNet, whose classes are maps that are averaged, it goes to the convolution before the last pooling; its input,
averaged over the positions, is the embedding then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx

from libraries.base.errors import NetworkError

SAME_ORDER = {"Softmax", "LogSoftmax", "Sigmoid"}  # the classes stay in the same order of likelihood
MOVED = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"}  # the values stay what they are
SCALED = {"Add", "Sub", "Mul", "Div"}  # with a constant
POOLED = {"GlobalAveragePool", "ReduceMean", "AveragePool"}
NONLINEAR = {"Relu", "LeakyRelu", "PRelu", "Clip", "BatchNormalization"}
WEIGHED = {"Gemm", "MatMul"}
PREFIX = "network/"  # of all names in the graph, so that none is one of the pipeline's
CANDIDATES = 12  # that a message names


@dataclass(frozen=True)
class LastLayer:
    """Where a network ends.

    Attributes:
        embedding: the tensor that the last layer takes.
        is_map: whether it still has positions, over which the mean is to be taken.
        layer: what the node that takes it gives; None where more than one linear layer lies between it and the scores.
        scores: the tensor [N, K] that comes out of the layer, before any softmax.
    """

    embedding: str
    is_map: bool
    layer: str | None
    scores: str


class Links:
    """Which node makes a tensor."""

    def __init__(self, model: Any) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:  # ONNX has the nodes in the order of computation
            if node.op_type == "Constant" or (
                node.input and all(name in self.constants for name in node.input if name)
            ):
                self.constants.update(node.output)

    def values(self, node: Any) -> list[str]:
        """The inputs of a node that depend on the image."""
        return [name for name in node.input if name and name not in self.constants]

    def needed(self, tensor: str) -> set[str]:
        """All tensors that one is made from, itself included."""
        found, waiting = {tensor}, [tensor]
        while waiting:
            node = self.makers.get(waiting.pop())
            new = set(node.input) - found if node is not None else set()
            found |= new
            waiting += new
        return found

    def back(self, tensor: str, kinds: Iterable[str]) -> str:
        """The tensor from which only nodes of some kinds lead to this one."""
        kinds = frozenset(kinds)
        while (node := self.makers.get(tensor)) is not None and node.op_type in kinds and len(self.values(node)) == 1:
            (tensor,) = self.values(node)
        return tensor


def ends(model: Any) -> list[str]:
    """The outputs of an onnx.ModelProto that no other output is made from, in order."""
    links = Links(model)
    sources = {output.name: links.back(output.name, {"Identity"}) for output in model.graph.output}
    needed = {name: links.needed(source) for name, source in sources.items()}
    return [
        name
        for name, source in sources.items()
        if not any(source in behind for other, behind in needed.items() if sources[other] != source)
    ]


def find(model: Any, output: str) -> LastLayer:
    """The last layer before an output of an onnx.ModelProto.

    Raises:
        NetworkError: the network ends in some other way; names the nodes there are, one of which has to be named.
    """
    links = Links(model)
    scores = links.back(output, SAME_ORDER | MOVED)
    tensor = links.back(scores, SCALED | MOVED)
    node = links.makers.get(tensor)
    if node is not None and node.op_type in WEIGHED and len(links.values(node)) == 1:
        return LastLayer(links.values(node)[0], False, node.output[0], scores)
    if node is not None and node.op_type == "Conv":
        return LastLayer(node.input[0], False, node.output[0], scores)
    if node is not None and node.op_type in POOLED:
        before = links.makers.get(links.back(node.input[0], NONLINEAR | MOVED))
        if before is not None and before.op_type == "Conv":
            return LastLayer(links.back(before.input[0], MOVED), True, None, scores)
    nodes = [
        f"{(node.name or node.output[0]).removeprefix(PREFIX)} ({node.op_type})"
        for node in model.graph.node[-CANDIDATES:]
    ]
    raise NetworkError(
        f"it does not show which layer gives the embedding: set rf_embeddingNode to one of its nodes; the last are "
        f"{', '.join(nodes)}"
    )


def feature_map(model: Any, embedding: str) -> str | None:
    """The map [N, C, h, w] whose mean over the positions the embedding is; None where it is no such mean."""
    links = Links(model)
    node = links.makers.get(links.back(embedding, MOVED))
    if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return None
    if node.op_type == "ReduceMean" and _axes(model, node) != [2, 3]:
        return None
    return str(node.input[0])


def _axes(model: Any, node: Any) -> list[int]:
    """The axes, of four, that a ReduceMean takes together."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    known |= {
        maker.output[0]: attribute.t
        for maker in model.graph.node
        for attribute in maker.attribute
        if maker.op_type == "Constant" and attribute.name == "value"
    }
    axes = known.get(node.input[1]) if len(node.input) > 1 else None
    return sorted(int(axis) % 4 for axis in onnx.numpy_helper.to_array(axes)) if axes is not None else []
