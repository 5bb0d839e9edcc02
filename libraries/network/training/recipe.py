"""How a network is trained: the options, the optimiser, the learning rate, the loss, and random views of images.

A batch is augmented all at once on the training device: one affine resampling and one colour change. Every number is
drawn on the CPU from a seed, a few per image, so a batch comes out the same on every device and in every run.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from libraries.base.layout import LR_PEAK
from libraries.network.backbones import EmbeddingNetwork

Augmentation = Literal["photo", "anyOrientation", "none"]

WARM_UP = 0.1  # fraction of all steps in which the learning rate rises to its peak, for rf_lrPerMb 'auto'

KINDS: tuple[Augmentation, ...] = get_args(Augmentation)
AREA = (0.65, 1.0)  # fraction of the stored image in a crop: mild, since the object usually fills the picture
RATIO = (0.85, 1 / 0.85)  # width / height of a crop
JITTER = 0.2  # brightness, contrast and saturation are each multiplied by 1 ± this
STORED_PER_INPUT = 1.15  # training images are stored this much larger than the input, so that crops keep their detail
# The eight orientations of a square: quarter turns, and the same mirrored. [8, 2, 2]
_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
_MIRROR = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
_ORIENTATIONS = torch.stack(
    [mirror @ torch.linalg.matrix_power(_TURN, k) for mirror in (torch.eye(2), _MIRROR) for k in range(4)]
)
_ORIENTATIONS_OF = {"photo": (0, 4), "anyOrientation": tuple(range(8)), "none": (0,)}


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
        balance: give every class the same weight in the loss, whatever its number of images (rf_boBalanceTrainingSet).
        label_smoothing: fraction of the target that is spread over all classes.
        average_epochs: the weights that are kept are a running average over about so many epochs.
        seed: for everything random.
        device: 'cpu', 'cuda' or 'mps'.
        peak: highest learning rate of the recipe's own schedule (rf_lrPeak).
        bf16: compute in mixed precision; None: if that is faster on the device.
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
    peak: float = LR_PEAK


def make_optimizer(network: EmbeddingNetwork, options: RefineOptions) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters; its learning rate is set before every step.

    With a list of learning rates it is the tutorial's: SGD whose momentum averages gradients (dampening = momentum,
    CNTK's unit gain), so that learning rates mean the same as there.
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
    """The learning rate of a step: from the list, or a linear rise and then half a cosine down to 0.

    Args:
        epoch, step: counted from 0.
        steps: number of steps in an epoch.
    """
    if options.learning_rates is not None:
        return options.learning_rates[min(epoch, len(options.learning_rates) - 1)]
    total = options.epochs * steps
    position = (epoch * steps + step + 1) / total  # in (0, 1]
    if position < WARM_UP:
        return options.peak * position / WARM_UP
    return options.peak * 0.5 * (1 + math.cos(math.pi * (position - WARM_UP) / (1 - WARM_UP)))


def class_weights(counts: Tensor) -> Tensor:
    """Weights [K], of mean 1 over the images, that make every class count the same in the loss.

    Args:
        counts: images of each class, [K].
    """
    return (counts.sum() / (len(counts) * counts.clamp(min=1).double())).float()


def batches(count: int, steps: int, *, seed: int) -> Iterator[Tensor]:
    """Yield the image indices of every step of an epoch, in random order.

    Batch sizes differ by at most one: a small last batch would disturb batch normalisation.
    """
    yield from torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tensor_split(steps)


def steps_per_epoch(count: int, options: RefineOptions) -> int:
    """The number of batches of `count` images, none larger than `options.batch`."""
    return math.ceil(count / options.batch)


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed derived from a few numbers; other numbers give another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether mixed precision in bf16 is faster than float32 on a device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile"))
    return False


def stored_size(input_size: int) -> int:
    """Side of the images to decode for training at `input_size`, in pixels."""
    return round(input_size * STORED_PER_INPUT)


def augment(images: Tensor, *, size: int, kind: Augmentation, seed: int) -> Tensor:
    """A random view of each image: uint8 [N, S', S', 3] → float32 [N, size, size, 3] from 0 to 255, on the same device.

    'photo': a random crop, mirrored left to right, brightness, contrast and saturation changed, all mildly.
    'anyOrientation': upside down and by quarter turns as well, for cells, minerals, satellite pictures and microscopy.
    'none': the whole image.
    """
    generator = torch.Generator().manual_seed(seed)
    views = resample(images, _affine(len(images), kind, generator), size)
    if kind != "none":
        views = _change_colours(views, generator)
    return views


def resample(images: Tensor, affine: Tensor, size: int) -> Tensor:
    """Images [N, S', S', 3] seen through affine maps [N, 2, 3] → float32 [N, size, size, 3].

    A map leads from the view to the image, both from -1 to 1. Bilinear without antialiasing, which is good enough as
    long as a view is not much smaller than the area it shows.
    """
    grid = functional.affine_grid(affine.to(images.device), [len(images), 3, size, size], align_corners=False)
    views = functional.grid_sample(
        images.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return views.permute(0, 2, 3, 1).contiguous()


def _affine(count: int, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop and orientation of each view as an affine map [count, 2, 3]."""
    choices = torch.tensor(_ORIENTATIONS_OF[kind])
    orientation = _ORIENTATIONS[choices[torch.randint(len(choices), (count,), generator=generator)]]
    if kind == "none":
        return torch.cat([orientation, torch.zeros(count, 2, 1)], dim=2)
    area = _uniform(*AREA, count, generator)
    ratio = _uniform(math.log(RATIO[0]), math.log(RATIO[1]), count, generator).exp()
    extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)  # [count, 2]
    centre = (1 - extent) * torch.rand(count, 2, generator=generator).mul(2).sub(1)
    return torch.cat([extent[:, :, None] * orientation, centre[:, :, None]], dim=2)


def _change_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change saturation, contrast and brightness of float images [N, S, S, 3], with own factors for each image."""
    count = len(images)
    factors = _uniform(1 - JITTER, 1 + JITTER, 3 * count, generator).to(images.device).view(3, count, 1, 1, 1)
    brightness, contrast, saturation = factors
    grey = images.mean(dim=3, keepdim=True)
    mean = grey.mean(dim=(1, 2), keepdim=True)
    # grey + saturation·(image − grey), then mean + contrast·(… − mean), then brightness·…, in one expression
    grey_part = grey.mul(1 - saturation)
    return images.mul(saturation).add_(grey_part).sub_(mean).mul_(contrast).add_(mean).mul_(brightness).clamp_(0, 255)


def _uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
