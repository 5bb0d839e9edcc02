"""The network a user means by rf_pretrainedModelFilename, from wherever it comes.

Networks of CNTK and of ONNX come as graphs. A ResNet of CNTK becomes timm's, with all that can be done with that; other
graphs are used as they are, for embeddings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libraries.base.errors import NetworkError
from libraries.cntk.graph import read_graph
from libraries.cntk.resnet import read_resnet
from libraries.cntk.wire import ModelError
from libraries.network.backbones import EmbeddingNetwork, build, load_pretrained
from libraries.network.graphs.graph_network import EMBEDDING, GraphNetwork
from libraries.network.graphs.load import GraphOptions, load_graph_network
from libraries.network.names import graph_path

TOLERANCE = 1e-3  # of the largest value: between timm's network and CNTK's graph, both in float32


def load_network_for(values: Mapping[str, Any], *, refine: bool) -> EmbeddingNetwork | GraphNetwork:
    """The pretrained network, without a head.

    Args:
        values: the run's parameters: rf_pretrainedModelFilename, a name as in `names`, or the path of a .model or
            .onnx file; and the others that make a network (`layout.NETWORK`, `layout.GRAPH`).
        refine: whether it has to be one that can be trained.

    Raises:
        NetworkError: it cannot be found, read or converted, or not be trained where that is asked for.
    """
    name, size, options = values["rf_pretrainedModelFilename"], values["rf_inputResolution"], graph_options(values)
    path = graph_path(name)
    if path is None:
        options.check_unused(name)
        return _with_views(load_pretrained(name, input_size=size), values["rf_views"])
    graph = load_graph_network(path, size=size, options=options)
    try:
        return _with_views(as_timm(path, graph, options), values["rf_views"])
    except ModelError as error:
        if refine:
            raise NetworkError(
                f"{path} cannot be trained on: {error}; set classifier to 'svm', or rf_maxEpochs to 0 to take the "
                "network with its own classes as it is"
            ) from error
        if values["rf_views"] != 1:
            raise NetworkError(f"{path} is run as it is ({error}): set rf_views to 1") from error
    return graph


def load_as_it_is(values: Mapping[str, Any]) -> GraphNetwork:
    """The network in a .model or .onnx file with the scores of its own classes.

    Raises:
        NetworkError: it is no such file, or one that cannot be read, converted, or taken as it is.
    """
    path = graph_path(values["rf_pretrainedModelFilename"])
    if path is None or values["rf_views"] != 1:
        raise NetworkError(
            "rf_maxEpochs = 0 takes the classes of a .model or .onnx file as they are, with rf_views = 1"
        )
    return load_graph_network(path, size=values["rf_inputResolution"], options=graph_options(values), with_head=True)


def graph_options(values: Mapping[str, Any]) -> GraphOptions:
    """What the run's parameters say about a network in a file."""
    return GraphOptions(
        values["rf_embeddingNode"], values["rf_channelOrder"], values["rf_channelMeans"], values["rf_channelStds"]
    )


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
