"""The map of features whose mean over the positions is the embedding, in networks that have one.

Most networks end so: what stands at a position of the map adds its share to the embedding, and so to the scores of a
linear classifier. Heatmaps are made from that. Other networks, such as transformers with a
class token and networks that normalise after pooling, have no such map.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from libraries.network.backbones import EmbeddingNetwork

TOLERANCE = 1e-4  # of the largest value: between the embedding and the mean of the map, both in float32


def channels_first(features: Tensor) -> Tensor:
    """[N, C, h, w] as it is."""
    return features


def channels_last(features: Tensor) -> Tensor:
    """[N, h, w, C] → [N, C, h, w]."""
    return features.permute(0, 3, 1, 2)


def tokens(features: Tensor) -> Tensor:
    """[N, T, C], row by row of a square, perhaps after other tokens → [N, C, h, h]."""
    side = math.isqrt(features.shape[1])
    return features[:, -(side**2) :].transpose(1, 2).reshape(features.shape[0], -1, side, side)


LAYOUTS: dict[int, tuple[Callable[[Tensor], Tensor], ...]] = {3: (tokens,), 4: (channels_first, channels_last)}


class MappedNetwork(nn.Module):
    """A network that gives its feature map beside its other outputs."""

    def __init__(self, network: EmbeddingNetwork, layout: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.layout = network, layout
        self.architecture, self.input_size = network.architecture, network.input_size
        self.output_names = (*network.output_names, "features")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the network makes of images [N, S, S, 3] in evaluation mode, then its map [N, C, h, w]."""
        backbone: Any = self.network.backbone
        views = self.network.views
        features = backbone.forward_features(self.network.see(images))  # as the backbone's own forward begins
        maps = self.layout(features).float()  # [views * N, C, h, w]
        if views > 1:
            maps = torch.stack(upright(maps.view(views, -1, *maps.shape[1:]).unbind())).mean(0)
        return *self.network.classify(backbone.forward_head(features)), maps


def with_map(network: EmbeddingNetwork) -> EmbeddingNetwork | MappedNetwork:
    """The network with its feature map, found by trying; the network itself where it has none."""
    backbone: Any = network.backbone
    size = network.input_size
    if not (hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head")):
        return network
    images = torch.randint(0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(0)).byte()
    with torch.inference_mode():
        expected = network(images)[0]
        features = backbone.forward_features(network.see(images))
        for layout in LAYOUTS.get(features.ndim, ()) if isinstance(features, Tensor) else ():
            if layout(features).shape[1] != network.embedding_size:
                continue
            mapped = MappedNetwork(network, layout).eval()
            embedding, *_, maps = mapped(images)
            if _near(embedding, expected) and _near(maps.mean((2, 3)), expected):
                return mapped
    return network


def upright(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [N, C, h, w] of the first `orientations` of images, each laid back as the image is."""
    flips: list[list[int]] = [[], [3], [2], [2, 3]]
    laid = [x.flip(axes) if axes else x for x, axes in zip(maps, 2 * flips, strict=False)]
    return [*laid[:4], *(x.transpose(2, 3) for x in laid[4:])]


def _near(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
