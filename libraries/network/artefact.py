"""The network folder as an artefact: model.onnx, the weights if PyTorch can train it, and model.json, written last."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from libraries.base.storage import Artefact
from libraries.data.depth import FULL_RANGE
from libraries.data.images import ResizeMode, ResizeRule
from libraries.network.graphs.graph_network import ONNX, WEIGHTS, GraphNetwork, network_facts
from libraries.network.weights import write_state_dict

if TYPE_CHECKING:
    from libraries.network.backbones import EmbeddingNetwork


def resize_rule(
    network: Union["EmbeddingNetwork", GraphNetwork], mode: ResizeMode, *, white_level: int | None = None
) -> ResizeRule:
    """How images become the network's input; padding has the colour that normalisation turns into zero.

    Args:
        white_level: of the images that the network is trained on; None: full range.
    """
    red, green, blue = (round(255 * mean) for mean in network.mean)
    return ResizeRule(
        network.input_size,
        mode,
        network.interpolation,
        (red, green, blue),
        white_level or FULL_RANGE,
    )


def write_network(
    artefact: Artefact,
    network: Union["EmbeddingNetwork", GraphNetwork],
    *,
    rule: ResizeRule,
    labels: Sequence[str] | None = None,
    files: Sequence[Path] = (),
    **facts: Any,
) -> None:
    """Write the folder of a network.

    Args:
        rule: how images become its input.
        labels: the classes of its head, in order; None without a head.
        files: other files of the artefact, which are in its folder already.
        facts: further entries of model.json.

    Raises:
        NetworkError, StorageError: see `save_network`.
    """
    artefact.begin()
    weights = artefact.folder / WEIGHTS
    if isinstance(network, GraphNetwork):
        weights.unlink(missing_ok=True)  # of a network that was here before
        network.save(artefact.folder / ONNX)
        if network.weights:
            write_state_dict(
                weights, network.weights, architecture=network.architecture, mean=network.mean, std=network.std
            )
        described = network_facts(network)
    else:
        from libraries.network.export import save_network

        described = save_network(network, artefact.folder)
    written = [artefact.folder / ONNX, *files, *([weights] if weights.exists() else [])]
    artefact.commit(written, **described, resize=rule.to_json(), labels=list(labels) if labels else None, **facts)
