"""Random views of a batch of images, all at once on the training device: one affine resampling and one colour change.

Every number is drawn on the CPU from a seed, a few per image, so a batch comes out the same on every device and in
every run.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as functional
from torch import Tensor

Augmentation = Literal["photo", "anyOrientation", "none"]
KINDS: tuple[Augmentation, ...] = get_args(Augmentation)

AREA = (0.65, 1.0)  # part of the stored image that a crop covers: mild, since the object usually fills the picture
RATIO = (0.85, 1 / 0.85)  # width / height of a crop
JITTER = 0.2  # brightness, contrast and saturation are each multiplied by 1 ± this
STORED_PER_INPUT = 1.15  # training images are stored this much larger than the input, so that crops keep their detail

# The eight ways to lay a square on itself: quarter turns, and the same mirrored. [8, 2, 2]
_TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
_MIRROR = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
_ORIENTATIONS = torch.stack(
    [mirror @ torch.linalg.matrix_power(_TURN, k) for mirror in (torch.eye(2), _MIRROR) for k in range(4)]
)
_ORIENTATIONS_OF = {"photo": (0, 4), "anyOrientation": tuple(range(8)), "none": (0,)}


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

    A map leads from the view to the image, both from -1 to 1. Bilinear without
    antialiasing: right as long as a view is not much smaller than what it shows.
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
    """Saturation, contrast and brightness of float images [N, S, S, 3], each image by its own factors."""
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
