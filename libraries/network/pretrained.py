"""Loads the network that rf_pretrainedModelFilename names, from any source.

An EfficientNet-Lite that only embeds is made without PyTorch, in a second. Networks of CNTK and ONNX are graphs. A
ResNet of CNTK is converted to timm's, so that it can be trained; other graphs are used unchanged, for embeddings.
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union, overload

import numpy as np

from libraries.base.errors import NetworkError
from libraries.cntk.graph import read_graph
from libraries.cntk.resnet import read_resnet
from libraries.cntk.wire import ModelError
from libraries.data.images import ResizeMode
from libraries.network.efficientnet_lite import WHEELS, efficientnet_lite
from libraries.network.graphs.graph_network import EMBEDDING, GraphNetwork
from libraries.network.graphs.load import GraphOptions, load_graph_network
from libraries.network.source import KNOWN, graph_path

if TYPE_CHECKING:
    from libraries.network.backbones import EmbeddingNetwork

TOLERANCE = 1e-3  # relative to the largest value: between timm's network and CNTK's graph, in float32


@dataclass(frozen=True)
class NetworkOptions:
    """Which pretrained network to use, and how images become its input.

    Attributes:
        name: as in `names`, or the path of a .model or .onnx file (rf_pretrainedModelFilename).
        size: width and height of its input, in pixels (rf_inputResolution).
        mode: how an image becomes square (rf_resizeMode).
        views: how many views of an image are averaged (rf_views).
        maps: how many feature maps make the embedding (rf_featureMaps).
        graph: options for a network in a file.
    """

    name: str
    size: int = 224
    mode: ResizeMode = "pad"
    views: int = 1
    maps: int = 1
    graph: GraphOptions = field(default_factory=GraphOptions)


@overload
def load_network_for(options: NetworkOptions, *, refine: Literal[True]) -> "EmbeddingNetwork": ...
@overload
def load_network_for(options: NetworkOptions, *, refine: bool) -> Union["EmbeddingNetwork", GraphNetwork]: ...
def load_network_for(options: NetworkOptions, *, refine: bool) -> Union["EmbeddingNetwork", GraphNetwork]:
    """The pretrained network, without a head.

    Args:
        refine: whether it must be trainable.

    Raises:
        NetworkError: it cannot be found, read or converted, or cannot be trained though it must be.
    """
    path = graph_path(options.name)
    if path is None:
        options.graph.check_unused(options.name)
        if KNOWN.get(options.name) in WHEELS and not refine:
            return efficientnet_lite(KNOWN[options.name], size=options.size, views=options.views, maps=options.maps)
        from libraries.network.backbones import load_pretrained

        return _with_options(load_pretrained(options.name, input_size=options.size), options)
    if options.maps != 1:
        raise NetworkError(f"rf_featureMaps = {options.maps} is not for {path}: use none")
    graph = load_graph_network(path, size=options.size, options=options.graph)
    try:
        return _with_options(as_timm(path, graph, options.graph), options)
    except ModelError as error:
        if refine:
            raise NetworkError(
                f"{path} cannot be trained: {error}; set classifier to 'svm', or set rf_maxEpochs to 0 to use the "
                "network unchanged, with its own classes"
            ) from error
        if options.views != 1:
            raise NetworkError(f"{path} can only be used unchanged ({error}): set rf_views to 1") from error
    return graph


def load_as_it_is(options: NetworkOptions) -> GraphNetwork:
    """The network in a .model or .onnx file with the scores of its own classes.

    Raises:
        NetworkError: it is not such a file, or cannot be read, converted, or used unchanged.
    """
    path = graph_path(options.name)
    if path is None or options.views != 1 or options.maps != 1:
        raise NetworkError(
            "rf_maxEpochs = 0 uses a network with its own classes: set rf_pretrainedModelFilename to a .model or .onnx "
            "file, rf_views to 1, and rf_featureMaps to none"
        )
    return load_graph_network(path, size=options.size, options=options.graph, with_head=True)


def _with_options(network: "EmbeddingNetwork", options: NetworkOptions) -> "EmbeddingNetwork":
    network.views = options.views
    network.use_maps(options.maps)
    return network


def as_timm(path: Path, graph: GraphNetwork, options: GraphOptions) -> "EmbeddingNetwork":
    """The ResNet in a CNTK file as a network of timm, after checking that it computes the same as the graph.

    Args:
        graph: the same network, converted to ONNX.

    Raises:
        ModelError: timm has no such network, or the options ask for another cut or normalisation.
    """
    if path.suffix != ".model":
        raise ModelError("it is an ONNX network")
    if importlib.util.find_spec("torch") is None:
        raise ModelError("PyTorch is not installed: run make setup-refine, or pip install -r requirements-refine.txt")
    if options != GraphOptions():
        raise ModelError("the options ask for another cut or normalisation than the file's")
    import torch

    from libraries.network.backbones import build

    architecture, weights = read_resnet(read_graph(path))
    weights["conv1.weight"] = weights["conv1.weight"][:, ::-1]  # CNTK's images are blue, green, red
    state = {name: torch.tensor(np.array(values, np.float32)) for name, values in weights.items()}
    try:
        network = build(architecture, input_size=graph.input_size, state=state)
    except NetworkError as error:
        raise ModelError(f"the widths of its layers are not those of {architecture}") from error
    network.normalise_by(graph.mean, graph.std)
    network.interpolation = graph.interpolation
    size = graph.input_size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    expected = graph.run(images)[EMBEDDING]
    with torch.inference_mode():
        actual = network(torch.from_numpy(images))[0].numpy()
    if not np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max():
        raise ModelError(f"its results differ from those of {architecture}")
    return network
