"""A network as files: model.onnx to run anywhere, checked against PyTorch, and weights.safetensors to train further.

Most networks end in a feature map whose mean over the positions is the embedding: each position contributes its share
to the embedding, and so to the scores of a linear classifier. The graph outputs this map too, for heatmaps. Other
networks, such as transformers with a class token and networks that normalise after pooling, have none.
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from libraries.base.errors import NetworkError, StorageError
from libraries.base.storage import atomic_path, read_json
from libraries.network import efficientnet_lite
from libraries.network.backbones import EmbeddingNetwork, build
from libraries.network.engine import load_openvino
from libraries.network.graphs.graph_network import MANIFEST, ONNX, WEIGHTS, GraphNetwork, network_facts
from libraries.network.weights import first_line, read_state_dict, write_state_dict

MAP_TOLERANCE = 1e-4  # relative to the largest value: between the embedding and the mean of the map, in float32
TOLERANCE = 1e-3  # relative to the largest value: between PyTorch and OpenVINO, in float32


def channels_first(features: Tensor) -> Tensor:
    """[N, C, h, w], unchanged."""
    return features


def channels_last(features: Tensor) -> Tensor:
    """[N, h, w, C] → [N, C, h, w]."""
    return features.permute(0, 3, 1, 2)


def tokens(features: Tensor) -> Tensor:
    """[N, T, C], a square row by row, perhaps after other tokens → [N, C, h, h]."""
    side = math.isqrt(features.shape[1])
    return features[:, -(side**2) :].transpose(1, 2).reshape(features.shape[0], -1, side, side)


LAYOUTS: dict[int, tuple[Callable[[Tensor], Tensor], ...]] = {3: (tokens,), 4: (channels_first, channels_last)}


class MappedNetwork(nn.Module):
    """A network that outputs its feature map after its other outputs."""

    def __init__(self, network: EmbeddingNetwork, layout: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.layout = network, layout
        self.architecture, self.input_size = network.architecture, network.input_size
        self.output_names = (*network.output_names, "features")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for images [N, S, S, 3] in evaluation mode, then its map [N, C, h, w]."""
        backbone: Any = self.network.backbone
        views = self.network.views
        features = backbone.forward_features(self.network.preprocess(images))  # as in the backbone's own forward
        maps = self.layout(features).float()  # [views * N, C, h, w]
        if views > 1:
            maps = torch.stack(upright(maps.view(views, -1, *maps.shape[1:]).unbind())).mean(0)
        return *self.network.classify(backbone.forward_head(features)), maps


def with_map(network: EmbeddingNetwork) -> EmbeddingNetwork | MappedNetwork:
    """The network with its feature map, found by trying the layouts; the network itself if it has none."""
    backbone: Any = network.backbone
    size = network.input_size
    if network.maps > 1 or not (hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head")):
        return network
    images = torch.randint(0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(0)).byte()
    with torch.inference_mode():
        expected = network(images)[0]
        features = backbone.forward_features(network.preprocess(images))
        for layout in LAYOUTS.get(features.ndim, ()) if isinstance(features, Tensor) else ():
            if layout(features).shape[1] != network.embedding_size:
                continue
            mapped = MappedNetwork(network, layout).eval()
            embedding, *_, maps = mapped(images)
            if _near(embedding, expected) and _near(maps.mean((2, 3)), expected):
                return mapped
    return network


def upright(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [N, C, h, w] of the first `orientations` of images, each turned back to the image's own orientation."""
    flips: list[list[int]] = [[], [3], [2], [2, 3]]
    flipped = [x.flip(axes) if axes else x for x, axes in zip(maps, 2 * flips, strict=False)]
    return [*flipped[:4], *(x.transpose(2, 3) for x in flipped[4:])]


def _near(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and bool(
        (actual - expected).abs().max() <= MAP_TOLERANCE * expected.abs().max()
    )


def save_network(network: EmbeddingNetwork, folder: Path) -> dict[str, Any]:
    """Write model.onnx and weights.safetensors into `folder`, and return the facts about them for model.json.

    model.onnx has the input `images` uint8 [N, S, S, 3] and the outputs `embedding` float32 [N, D]; with a head,
    `scores` float32 [N, K]; and if the embedding is the mean over a feature map, `features` float32 [N, D, h, w]. It
    replaces an earlier file only after OpenVINO has computed the same results as PyTorch.

    Returns:
        architecture, input_size, embedding_size, classes (None without a head), views, maps, mean, std, interpolation.

    Raises:
        NetworkError: the architecture cannot be exported, or the exported graph computes different results.
        StorageError: the files cannot be written.
    """
    network = network.cpu().eval()
    with atomic_path(folder / ONNX) as temporary:
        exported = with_map(network)
        if network.architecture in efficientnet_lite.REPEATS:
            onnx.save(_graph(network).model, temporary)
        else:
            export_onnx(exported, temporary)
        difference = largest_difference(exported, temporary)
        if not difference <= TOLERANCE:
            raise NetworkError(
                f"{network.architecture}: the ONNX file's results differ from PyTorch's by {difference:.1e} of the "
                "largest value: choose another network"
            )
    save_weights(network, folder / WEIGHTS)
    return network_facts(network)


def _graph(network: EmbeddingNetwork) -> GraphNetwork:
    """An EfficientNet-Lite as a graph; the exporter takes ten times as long."""
    return efficientnet_lite.with_weights(
        network.architecture,
        _weights(network),
        size=network.input_size,
        views=network.views,
        maps=network.maps,
        mean=network.mean,
        std=network.std,
    )


def load_network(folder: Path, device: str | torch.device = "cpu") -> EmbeddingNetwork:
    """The network that `save_network` wrote into `folder`, in evaluation mode on `device`.

    Raises:
        StorageError: model.json or the weights are missing or damaged.
        NetworkError: the weights do not fit what model.json says.
    """
    model, state = read_json(folder / MANIFEST), read_state_dict(folder / WEIGHTS)
    try:
        network = build(model["architecture"], input_size=model["input_size"])
        network.use_maps(model.get("maps", 1))
        if model["classes"]:
            network.add_head(model["classes"], dropout=0.0, seed=0)
        network.normalise_by(tuple(model["mean"]), tuple(model["std"]))
        network.views = model["views"]
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise StorageError(
            f"{folder} holds no complete network ({first_line(error)}): run scripts/2_refineDNN.py again"
        ) from error
    return network.to(device).eval()


def save_weights(network: EmbeddingNetwork, path: Path) -> None:
    """Write every parameter and buffer of the network; architecture and normalisation go into the file's metadata."""
    write_state_dict(path, _weights(network), architecture=network.architecture, mean=network.mean, std=network.std)


def _weights(network: EmbeddingNetwork) -> dict[str, npt.NDArray[Any]]:
    return {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in network.state_dict().items()}


def export_onnx(network: EmbeddingNetwork | MappedNetwork, path: Path) -> None:
    """Write a network with inputs and outputs as in `save_network`, for any batch size, with its weights inside."""
    size = network.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with quiet(), out_of_place(network):
            torch.onnx.export(
                network,
                (example,),
                path,
                input_names=["images"],
                output_names=list(network.output_names),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise NetworkError(
            f"{network.architecture} cannot be written as ONNX ({first_line(error)}): choose another network"
        ) from error


def largest_difference(network: EmbeddingNetwork | MappedNetwork, path: Path) -> float:
    """The largest difference between PyTorch and OpenVINO on random images, relative to the largest value."""
    size = network.input_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    compiled = load_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        expected = [output.numpy() for output in network(torch.from_numpy(images))]
    results = compiled(images)
    actual = [results[name] for name in network.output_names]
    return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in zip(actual, expected, strict=True))


@contextlib.contextmanager
def out_of_place(network: nn.Module) -> Iterator[None]:
    """Make activations work out of place inside the block: the exporter needs a third less time, for the same graph."""
    changed: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False)]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings, log lines and prints off the user's console."""
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
