"""How a network is trained: the options, the optimiser, the learning rate over time, the loss."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from libraries.network.augmentation import Augmentation
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.devices import find_device

WARM_UP = 0.1  # part of all steps over which the learning rate rises to its peak, for rf_lrPerMb 'auto'


@dataclass(frozen=True)
class RefineOptions:
    """How to train.

    Attributes:
        epochs, batch: passes over the training images, and images per step (rf_maxEpochs, rf_mbSize).
        learning_rates: one per epoch, the last repeated, for plain SGD as in the tutorial; None for the recipe's own.
        momentum, l2: of the optimiser: AdamW's first beta and its weight decay, or SGD's (rf_momentumPerMb,
            rf_l2RegWeight).
        dropout: before the head, while training (rf_dropoutRate).
        freeze: train the head only (rf_boFreezeWeights).
        balance: weigh every class alike in the loss, whatever its number of images (rf_boBalanceTrainingSet).
        label_smoothing: part of the target that is spread over all classes.
        average_epochs: the weights that count are a running average over about so many epochs.
        seed: of everything random.
        device: 'cpu', 'cuda' or 'mps'.
        peak: highest learning rate of the recipe's own schedule.
        bf16: compute in mixed precision; None for where the device has it fast.
    """

    epochs: int = 45
    batch: int = 16
    learning_rates: tuple[float, ...] | None = None
    momentum: float = 0.9
    l2: float = 0.0005
    dropout: float = 0.5
    freeze: bool = False
    balance: bool = False
    augmentation: Augmentation = "photo"
    label_smoothing: float = 0.1
    average_epochs: float = 2.0
    seed: int = 0
    device: str = "cpu"
    bf16: bool | None = None
    peak: float = 5e-4


def options_from(values: Mapping[str, Any]) -> RefineOptions:
    """What the run's parameters say about training."""
    return RefineOptions(
        epochs=values["rf_maxEpochs"],
        batch=values["rf_mbSize"],
        learning_rates=None if values["rf_lrPerMb"] == "auto" else values["rf_lrPerMb"],
        momentum=values["rf_momentumPerMb"],
        l2=values["rf_l2RegWeight"],
        dropout=values["rf_dropoutRate"],
        freeze=values["rf_boFreezeWeights"],
        balance=values["rf_boBalanceTrainingSet"],
        augmentation=values["rf_augmentation"],
        seed=values["randomSeed"],
        device=find_device(values["device"]),
    )


def make_optimizer(network: EmbeddingNetwork, options: RefineOptions) -> torch.optim.Optimizer:
    """The optimiser over what is to be trained; its learning rate is set before every step.

    With a list of learning rates it is the tutorial's: SGD whose momentum averages gradients (dampening = momentum,
    which CNTK calls unit gain), so that a learning rate means what it meant there.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if options.learning_rates is not None:
        return torch.optim.SGD(
            parameters, lr=0.0, momentum=options.momentum, dampening=options.momentum, weight_decay=options.l2
        )
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # biases and normalisation
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(options.momentum, 0.999), weight_decay=options.l2)


def learning_rate(options: RefineOptions, *, epoch: int, step: int, steps: int) -> float:
    """Of a step in an epoch of `steps`, both from 0: the list's, or a linear rise and half a cosine down to 0."""
    if options.learning_rates is not None:
        return options.learning_rates[min(epoch, len(options.learning_rates) - 1)]
    total = options.epochs * steps
    position = (epoch * steps + step + 1) / total  # in (0, 1]
    if position < WARM_UP:
        return options.peak * position / WARM_UP
    return options.peak * 0.5 * (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP)))


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights [K] of mean 1 over the images, with which every class counts alike in the loss."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def batches(count: int, options: RefineOptions, epoch: int) -> Iterator[Tensor]:
    """The indices of the images of every step of an epoch: a new order each time, batches of equal size within one.

    So there is no small last batch, which would disturb batch normalisation.
    """
    generator = torch.Generator().manual_seed(derived_seed(options.seed, epoch))
    yield from torch.randperm(count, generator=generator).tensor_split(steps_per_epoch(count, options))


def steps_per_epoch(count: int, options: RefineOptions) -> int:
    """Of `count` images: as many batches as needed so that none is larger than `options.batch`."""
    return math.ceil(count / options.batch)


def derived_seed(*numbers: int) -> int:
    """A seed of 63 bits from a few numbers, unlike that of any other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether mixed precision in bf16 is faster than float32 there."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False
