"""The network a user means by rf_pretrainedModelFilename, from wherever it comes.

Networks of CNTK and of ONNX come as graphs. A ResNet of CNTK becomes timm's, with all that can be done with that; other
graphs are used as they are, for embeddings.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from libraries.base.errors import NetworkError
from libraries.cntk.graph import read_graph
from libraries.cntk.resnet import read_resnet
from libraries.cntk.wire import ModelError
from libraries.data.images import ResizeMode
from libraries.network.backbones import EmbeddingNetwork, build, load_pretrained
from libraries.network.graphs.graph_network import EMBEDDING, GraphNetwork
from libraries.network.graphs.load import GraphOptions, load_graph_network
from libraries.network.names import graph_path

TOLERANCE = 1e-3  # of the largest value: between timm's network and CNTK's graph, both in float32


@dataclass(frozen=True)
class NetworkOptions:
    """Which pretrained network a user means, and how images are put into it.

    Attributes:
        name: as in `names`, or the path of a .model or .onnx file (rf_pretrainedModelFilename).
        size: width and height of its input, in pixels (rf_inputResolution).
        mode: how an image becomes square (rf_resizeMode).
        views: of an image, whose embeddings are averaged (rf_views).
        graph: what is said of a network in a file.
    """

    name: str
    size: int = 224
    mode: ResizeMode = "pad"
    views: int = 1
    graph: GraphOptions = field(default_factory=GraphOptions)


def load_network_for(options: NetworkOptions, *, refine: bool) -> EmbeddingNetwork | GraphNetwork:
    """The pretrained network, without a head.

    Args:
        refine: whether it has to be one that can be trained.

    Raises:
        NetworkError: it cannot be found, read or converted, or not be trained where that is asked for.
    """
    path = graph_path(options.name)
    if path is None:
        options.graph.check_unused(options.name)
        return _with_views(load_pretrained(options.name, input_size=options.size), options.views)
    graph = load_graph_network(path, size=options.size, options=options.graph)
    try:
        return _with_views(as_timm(path, graph, options.graph), options.views)
    except ModelError as error:
        if refine:
            raise NetworkError(
                f"{path} cannot be trained on: {error}; set classifier to 'svm', or rf_maxEpochs to 0 to take the "
                "network with its own classes as it is"
            ) from error
        if options.views != 1:
            raise NetworkError(f"{path} is run as it is ({error}): set rf_views to 1") from error
    return graph


def load_as_it_is(options: NetworkOptions) -> GraphNetwork:
    """The network in a .model or .onnx file with the scores of its own classes.

    Raises:
        NetworkError: it is no such file, or one that cannot be read, converted, or taken as it is.
    """
    path = graph_path(options.name)
    if path is None or options.views != 1:
        raise NetworkError(
            "rf_maxEpochs = 0 takes the classes of a .model or .onnx file as they are, with rf_views = 1"
        )
    return load_graph_network(path, size=options.size, options=options.graph, with_head=True)


def _with_views(network: EmbeddingNetwork, views: int) -> EmbeddingNetwork:
    network.views = views
    return network


def as_timm(path: Path, graph: GraphNetwork, options: GraphOptions) -> EmbeddingNetwork:
    """The ResNet in a CNTK file as timm's, after making sure that it computes what the graph does.

    Args:
        graph: the same network, converted.

    Raises:
        ModelError: it is none that timm has, or is wanted in another way.
    """
    if path.suffix != ".model":
        raise ModelError("it is an ONNX network")
    if options != GraphOptions():
        raise ModelError("another cut or normalisation than the file's is asked for")
    architecture, weights = read_resnet(read_graph(path))
    weights["conv1.weight"] = weights["conv1.weight"][:, ::-1]  # CNTK's images are blue, green, red
    state = {name: torch.tensor(np.array(values, np.float32)) for name, values in weights.items()}
    try:
        network = build(architecture, input_size=graph.input_size, state=state)
    except NetworkError as error:
        raise ModelError(f"its layers have other widths than those of {architecture}") from error
    network.normalise_by(graph.mean, graph.std)
    network.interpolation = graph.interpolation
    size = graph.input_size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    expected = graph.run(images)[EMBEDDING]
    with torch.inference_mode():
        found = network(torch.from_numpy(images))[0].numpy()
    if not np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max():
        raise ModelError(f"it computes something else than {architecture}")
    return network
