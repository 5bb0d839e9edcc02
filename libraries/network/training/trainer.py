"""Trains one epoch: the network, its running average, its optimiser, and their state.

For speed on a CPU, gradients of depthwise convolutions are computed in float32, and freed memory is kept.
"""

import contextlib
import copy
import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.overrides import TorchFunctionMode

from libraries.base.errors import NetworkError
from libraries.network.backbones import EmbeddingNetwork
from libraries.network.training.recipe import (
    RefineOptions,
    augment,
    batches,
    class_weights,
    derived_seed,
    has_fast_bf16,
    learning_rate,
    make_optimizer,
    steps_per_epoch,
)
from libraries.network.training.training_sets import ImageSet
from libraries.network.training.world import ALONE, World

CLIP_NORM = 1.0  # largest norm of the gradient, with the recipe's own learning rate

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class Trainer:
    """Trains `network` in place.

    Attributes:
        averaged: a copy whose weights are the running average of those in training; it is evaluated and kept.
    """

    def __init__(
        self, network: EmbeddingNetwork, train: ImageSet, options: RefineOptions, world: World = ALONE
    ) -> None:
        """
        Args:
            train: the images of this process; all classes of the network are among those of all processes.
        """
        self.options, self.device, self.world = options, torch.device(options.device), world
        if self.device.type == "cpu":
            keep_freed_memory()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.network.backbone.requires_grad_(not options.freeze)
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimizer = make_optimizer(self.network, options)
        self.images = resident(train, self.device)
        self.labels = torch.from_numpy(train.labels).to(self.device)
        self.steps = steps_per_epoch(world.total(len(train)), options)
        counts = world.sum(torch.from_numpy(np.bincount(train.labels, minlength=network.classes or 0)))
        self.weights = class_weights(counts).to(self.device) if options.balance else None
        self.bf16 = has_fast_bf16(self.device) if options.bf16 is None else options.bf16
        self._together = world.together(self.network)
        # What is drawn at random differs between processes.
        self._seed = derived_seed(options.seed, world.rank, world.size) if world.rank else options.seed

    def train_epoch(self, epoch: int, on_step: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """One pass over the training images.

        Returns:
            learning_rate of the last step, train_loss and train_error (a fraction), both on the augmented images.

        Raises:
            NetworkError: the loss is not finite.
        """
        steps = self.steps
        loss_sum = torch.zeros((), device=self.device)
        wrong = torch.zeros((), device=self.device, dtype=torch.int64)
        torch.manual_seed(derived_seed(self._seed, epoch, 1))  # for dropout
        self._train_mode()
        rate = 0.0
        for step, indices in enumerate(batches(len(self.labels), steps, seed=derived_seed(self._seed, epoch))):
            rate = learning_rate(self.options, epoch=epoch, step=step, steps=steps)
            loss, errors = self._step(indices, rate=rate, seed=derived_seed(self._seed, epoch, 2, step))
            loss_sum += loss * len(indices)
            wrong += errors
            self._update_average(done=epoch * steps + step + 1, steps=steps)
            if on_step:
                on_step(step + 1, steps)
        self.world.average_buffers(self.network, self.averaged)
        sums = torch.tensor([loss_sum.item(), wrong.item(), len(self.labels)], dtype=torch.float64)
        total_loss, total_wrong, count = self.world.sum(sums).tolist()
        mean_loss = total_loss / count
        if not math.isfinite(mean_loss):
            raise NetworkError(
                f"the training loss is {mean_loss} in epoch {epoch + 1}: lower rf_lrPerMb (last {rate:g}) and run again"
            )
        return {"learning_rate": rate, "train_loss": mean_loss, "train_error": total_wrong / count}

    def state(self) -> dict[str, Tensor]:
        """Everything the next epoch depends on, as tensors by name."""
        return {
            **{f"network/{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"averaged/{name}": tensor for name, tensor in self.averaged.state_dict().items()},
            **{
                f"optimizer/{index}/{name}": tensor
                for index, slots in self.optimizer.state_dict()["state"].items()
                for name, tensor in slots.items()
                if tensor is not None
            },
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.network.load_state_dict(with_prefix(state, "network/"))
        self.averaged.load_state_dict(with_prefix(state, "averaged/"))
        slots: dict[int, dict[str, Any]] = {}
        for key, tensor in with_prefix(state, "optimizer/").items():
            index, name = key.split("/")
            slots.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})

    def _step(self, indices: Tensor, *, rate: float, seed: int) -> tuple[Tensor, Tensor]:
        """One step of the optimiser. Returns the mean loss and the number of wrong predictions, on the device."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        labels = self.labels[indices.to(self.device)]
        images = self.images[indices.to(self.images.device)].to(self.device, non_blocking=True)
        views = augment(images, size=self.network.input_size, kind=options.augmentation, seed=seed)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16), self._gradients():
            scores = self._together(views)[1]
        loss = functional.cross_entropy(scores, labels, self.weights, label_smoothing=options.label_smoothing)
        self.optimizer.zero_grad()
        (loss * self._part(labels)).backward()  # type: ignore[no-untyped-call]
        if options.learning_rates is None:
            torch.nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.grad is not None], CLIP_NORM)
        self.optimizer.step()
        return loss.detach(), (scores.argmax(dim=1) != labels).sum()

    def _part(self, labels: Tensor) -> Tensor | float:
        """By what the gradients of these images count in the mean over all processes: 1 if all have equally many."""
        if self.world.size == 1:
            return 1.0
        own = self.weights[labels].sum() if self.weights is not None else torch.tensor(float(len(labels)))
        return self.world.size * own / self.world.sum(own).to(own.device)

    def _gradients(self) -> contextlib.AbstractContextManager[Any]:
        """`DepthwiseGradients` where it makes training faster."""
        return DepthwiseGradients() if self.bf16 and self.device.type == "cpu" else contextlib.nullcontext()

    def _train_mode(self) -> None:
        """Set training mode; a frozen backbone stays in evaluation mode, so that nothing in it changes."""
        self.network.train()
        if self.options.freeze:
            self.network.backbone.eval()

    @torch.no_grad()
    def _update_average(self, *, done: int, steps: int) -> None:
        """Move the average towards the current weights; faster at the beginning."""
        decay = min(math.exp(-1 / max(self.options.average_epochs * steps, 1e-9)), done / (done + 10))
        averages, currents = [], []
        for average, current in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:  # counters
                average.copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - decay)


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def resident(images: ImageSet, device: torch.device) -> Tensor:
    """The images [N, S, S, 3], on a GPU if they take less than a quarter of its free memory, else in main memory."""
    tensor = torch.from_numpy(images.images)
    if device.type == "cuda" and tensor.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
        return tensor.to(device)
    return tensor


def keep_freed_memory() -> None:
    """Make the C library (glibc) keep large freed blocks, for the rest of this process.

    Otherwise the system provides and zeroes new memory for every large tensor: a fifth of the time of a training step.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
            library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class DepthwiseGradients(TorchFunctionMode):
    """Inside this context, gradients of depthwise convolutions are computed in float32, regardless of autocast.

    oneDNN has no good bf16 kernels for them: they take three quarters of a training step of EfficientNet-Lite0, about
    five times as long as in float32 (PyTorch 2.15). In the forward pass bf16 is faster, and is kept.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (
            func is torch.conv2d and not kwargs and len(args) == 7
        ):  # the call of torch.nn.Conv2d, and of timm's variants
            images, weight, bias, stride, padding, dilation, groups = args
            if groups == images.shape[1] == len(weight) and isinstance(padding, tuple):
                output = _Depthwise.apply(images, weight, stride, padding, dilation)
                return output if bias is None else output + bias[:, None, None].to(output.dtype)
        return func(*args, **(kwargs or {}))


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of images [N, C, H, W] with weight [C, 1, k, k], in the precision that autocast chooses."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, *geometry: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.geometry = geometry
        stride, padding, dilation = geometry
        return torch.conv2d(images, weight, None, stride, padding, dilation, images.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        for_images, for_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(),
            images.float(),
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            images.shape[1],
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
        )
        return for_images.to(images.dtype) if for_images is not None else None, for_weight, None, None, None
