"""Finds the last layer of an ONNX classification network, and the embedding: the input of that layer.

The search goes backwards from the scores: past softmax and the addition of a bias, to the multiplication by weights
that gives the classes (Gemm, MatMul, or a convolution of a single position). If there is none, as in SqueezeNet, which
averages a map for each class, it goes to the convolution before the last pooling; the embedding is then that
convolution's input, averaged over the positions.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx

from libraries.base.errors import NetworkError

SAME_ORDER = {"Softmax", "LogSoftmax", "Sigmoid"}  # do not change the order of the classes' scores
MOVED = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"}  # do not change values
SCALED = {"Add", "Sub", "Mul", "Div"}  # with a constant
POOLED = {"GlobalAveragePool", "ReduceMean", "AveragePool"}
NONLINEAR = {"Relu", "LeakyRelu", "PRelu", "Clip", "BatchNormalization"}
WEIGHED = {"Gemm", "MatMul"}
PREFIX = "network/"  # of all names in the graph, so that none equals one of the pipeline's
CANDIDATES = 12  # nodes listed in a message


@dataclass(frozen=True)
class LastLayer:
    """Where a network ends.

    Attributes:
        embedding: the tensor that is the last layer's input.
        is_map: whether it still has positions, which have to be averaged.
        layer: the output of the node with this input; None if it is not a single linear layer before the scores.
        scores: the tensor [N, K] that the layer computes, before any softmax.
    """

    embedding: str
    is_map: bool
    layer: str | None
    scores: str


class Links:
    """The connections of a graph: which node computes a tensor, and which tensors are constant."""

    def __init__(self, model: Any) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {tensor.name for tensor in model.graph.initializer}
        for node in model.graph.node:  # ONNX stores the nodes in order of computation
            if node.op_type == "Constant" or (
                node.input and all(name in self.constants for name in node.input if name)
            ):
                self.constants.update(node.output)

    def values(self, node: Any) -> list[str]:
        """The inputs of a node that depend on the image."""
        return [name for name in node.input if name and name not in self.constants]

    def needed(self, tensor: str) -> set[str]:
        """All tensors that one is computed from, including itself."""
        needed, waiting = {tensor}, [tensor]
        while waiting:
            node = self.makers.get(waiting.pop())
            new = set(node.input) - needed if node is not None else set()
            needed |= new
            waiting += new
        return needed

    def back(self, tensor: str, kinds: Iterable[str]) -> str:
        """The tensor reached by going back through nodes of some kinds."""
        kinds = frozenset(kinds)
        while (node := self.makers.get(tensor)) is not None and node.op_type in kinds and len(self.values(node)) == 1:
            (tensor,) = self.values(node)
        return tensor


def ends(model: Any) -> list[str]:
    """The outputs of an onnx.ModelProto that no other output is computed from, in order."""
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
        NetworkError: the network ends in another way; lists nodes, one of which the user has to name.
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
        f"it is not clear which layer gives the embedding: set rf_embeddingNode to one of its nodes; the last are "
        f"{', '.join(nodes)}"
    )


def feature_map(model: Any, embedding: str) -> str | None:
    """The map [N, C, h, w] whose mean over the positions is the embedding; None if there is none."""
    links = Links(model)
    node = links.makers.get(links.back(embedding, MOVED))
    if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return None
    if node.op_type == "ReduceMean" and _axes(model, node) != [2, 3]:
        return None
    return str(node.input[0])


def _axes(model: Any, node: Any) -> list[int]:
    """The axes, of four, that a ReduceMean averages."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    known |= {
        maker.output[0]: attribute.t
        for maker in model.graph.node
        for attribute in maker.attribute
        if maker.op_type == "Constant" and attribute.name == "value"
    }
    axes = known.get(node.input[1]) if len(node.input) > 1 else None
    return sorted(int(axis) % 4 for axis in onnx.numpy_helper.to_array(axes)) if axes is not None else []
