"""Loads a network of CNTK (.model) or an ONNX network (.onnx) for the pipeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx.compose
import onnx.version_converter

from libraries.base.errors import NetworkError
from libraries.cntk.convert import choose, convert_graph
from libraries.cntk.graph import Function, Graph, read_graph
from libraries.cntk.wire import ModelError, shown
from libraries.network.graphs import penultimate
from libraries.network.graphs.graph_network import GraphNetwork, Preprocessing, assemble
from libraries.network.graphs.penultimate import PREFIX, LastLayer

MAX_OUTPUTS = 100
LONGEST_MESSAGE = 1000  # characters; names in a file may be of any length
OPSET = 18  # needed by the nodes that the pipeline adds to a graph

CNTK_LEVEL = 114.0  # of all channels: the tutorial subtracts it from pixels, and pads images with it
TUTORIAL_POOLING, TUTORIAL_MAP = "poolingLayer", "z.x.x.r"
NORMALISING = frozenset({"Minus", "Plus", "ElementTimes"})


@dataclass(frozen=True)
class GraphOptions:
    """A user's options for a network in a file; None stands for the default of the file or its kind.

    Attributes:
        node: the node whose output is the embedding (rf_embeddingNode).
        order, mean, std: of the channels (rf_channelOrder, rf_channelMeans, rf_channelStds).
    """

    node: str | None = None
    order: Literal["rgb", "bgr"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def check_unused(self, name: str) -> None:
        """Raise NetworkError if any option is set, for a network that has none of them."""
        if self != GraphOptions():
            raise NetworkError(
                f"{name} brings its own normalisation and cut: rf_embeddingNode, rf_channelOrder, rf_channelMeans and "
                "rf_channelStds are for .model and .onnx files"
            )

    def preprocessing(self, usual: Preprocessing) -> Preprocessing:
        """The usual normalisation of the kind of file, with the user's changes."""
        return Preprocessing(self.order or usual.order, self.mean or usual.mean, self.std or usual.std)


def load_graph_network(path: Path, *, size: int, options: GraphOptions, with_head: bool = False) -> GraphNetwork:
    """The network in a file, cut at its penultimate layer, for images of `size` pixels.

    Args:
        with_head: whether it also outputs the scores of its own classes.

    Raises:
        NetworkError: the file cannot be read or converted, or it is not clear where to cut; says what to do.
    """
    try:
        if path.suffix == ".model":
            return _load_cntk(path, size=size, options=options, with_head=with_head)
        return _load_onnx(path, size=size, options=options, with_head=with_head)
    except (ModelError, NetworkError) as error:
        text = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        raise NetworkError(f"{path}{shown(text.removeprefix(str(path)), LONGEST_MESSAGE)}") from error


def _load_cntk(path: Path, *, size: int, options: GraphOptions, with_head: bool) -> GraphNetwork:
    graph = read_graph(path)
    node = graph.find(options.node) if options.node else tutorial_cut(graph)
    if options.node and node is None:
        raise NetworkError(_unknown(options.node, [f.name for f in graph.functions.values() if f.name]))
    wanted = [] if node is None else [node.uid]
    if with_head or node is None:
        wanted.append(classifier(graph))
    try:
        model = convert_graph(graph, outputs=wanted, image_size=(size, size), dtype="float32")
    except ModelError as error:
        sizes = [v.shape[1:] for v in graph.variables.values() if v.value is None and len(v.shape) == 3]
        if not sizes or sizes[0] == (size, size):
            raise
        height, width = sizes[0]
        raise NetworkError(
            f"{error}; it was trained on images of {height} x {width} pixels: set rf_inputResolution to {width}"
        ) from error
    model = prefixed(model)
    if with_head or node is None:
        last = penultimate.find(model, model.graph.output[-1].name)
    else:
        last = LastLayer(model.graph.output[0].name, False, None, "")
    level = 0.0 if has_own_normalisation(graph, node) else CNTK_LEVEL
    usual = Preprocessing("bgr", (level, level, level), (1.0, 1.0, 1.0))
    return assemble(
        model,
        name=path.name,
        size=size,
        last=last,
        preprocessing=options.preprocessing(usual),
        fill=(CNTK_LEVEL, CNTK_LEVEL, CNTK_LEVEL),
        with_head=with_head,
    )


def classifier(graph: Graph) -> str:
    """The uid of the node that gives the classes: the last output that no other output is computed from."""
    values = list(choose(graph, None))
    if len(values) > MAX_OUTPUTS:
        raise ModelError(f"it has {len(values):,} outputs, and it is not clear which gives the classes")
    behind = {uid: {function.uid for function in graph.order([uid])} for uid in values}
    makers = {uid: function for uid in values if (function := graph.producer(uid)[0]) is not None}
    ends = [
        function.uid
        for uid, function in makers.items()
        if not any(function.uid in made for other, made in behind.items() if other != uid)
    ]
    if not ends:
        raise ModelError("its outputs are its inputs")
    return ends[-1]


def tutorial_cut(graph: Graph) -> Function | None:
    """The node at which the tutorial cuts its networks; None in other networks.

    It is 'poolingLayer' in a network refined by the tutorial, and in those that it starts from 'z.x.x.r', whose mean
    over the positions is the embedding.
    """
    return graph.find(TUTORIAL_POOLING) or graph.find(TUTORIAL_MAP)


def has_own_normalisation(graph: Graph, node: Function | None) -> bool:
    """Whether the first operation on an image is arithmetic with constants, as in the tutorial's networks."""
    values = [graph.value_of(node)] if node is not None else list(choose(graph, None))
    order = graph.order(values)
    taken = [f for f in order for uid in f.inputs if (v := graph.variables.get(graph.resolve(uid))) and v.value is None]
    return bool(taken) and all(function.operation in NORMALISING for function in taken)


def _load_onnx(path: Path, *, size: int, options: GraphOptions, with_head: bool) -> GraphNetwork:
    model = prefixed(read_onnx(path))
    if options.node and not with_head:
        last = LastLayer(_named_tensor(model, options.node), False, None, "")
    else:
        last = penultimate.find(model, penultimate.ends(model)[0])
    preprocessing = options.preprocessing(Preprocessing())
    return assemble(
        model,
        name=path.name,
        size=size,
        last=last,
        preprocessing=preprocessing,
        fill=tuple(min(255.0, max(0.0, level)) for level in preprocessing.as_rgb(preprocessing.mean)),
        with_head=with_head,
    )


def read_onnx(path: Path) -> Any:
    """The onnx.ModelProto in a file, of at least the opset that the pipeline's own nodes need.

    Raises:
        NetworkError: there is no such file, it is damaged or not ONNX, or its opset cannot be upgraded.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf, the checker and external data each raise their own exceptions
        raise NetworkError(f"{path} is damaged, or not an ONNX network: {str(error).splitlines()[0][:200]}") from error
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), OPSET)
    if version >= OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except RuntimeError as error:
        raise NetworkError(
            f"{path} has opset {version}, and cannot be upgraded to {OPSET} ({str(error).splitlines()[0][:200]}): "
            f"export it again with opset {OPSET}"
        ) from error


def prefixed(model: Any) -> Any:
    """The model with prefixed names, so that none equals a name of the pipeline, such as 'features'."""
    return onnx.compose.add_prefix(model, PREFIX)


def _named_tensor(model: Any, name: str) -> str:
    """The tensor with a name, or the first output of the node with that name."""
    name = PREFIX + name
    tensors = [tensor for node in model.graph.node for tensor in node.output]
    if name in tensors:
        return name
    for node in model.graph.node:
        if node.name == name:
            return str(node.output[0])
    last = [node.name or node.output[0] for node in model.graph.node[-20:]]
    raise NetworkError(_unknown(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in last]))


def _unknown(name: str, names: list[str]) -> str:
    return f"no node is called {name!r} (rf_embeddingNode); there are {', '.join(names[:20]) or 'none with a name'}"
