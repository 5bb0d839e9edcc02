"""What makes training on a CPU fast: gradients of depthwise convolutions in float32, and memory that is kept."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have the C library (glibc) keep large blocks that are freed, for the rest of this process.

    Otherwise every large tensor is fetched from the system and zeroed anew: a fifth of the time of a training step.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, 2**31 - 1)
            library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class DepthwiseGradients(TorchFunctionMode):
    """Inside this context, the gradients of depthwise convolutions are computed in float32, whatever autocast says.

    In bf16 oneDNN has no good kernels for them: they take three quarters of a training step of EfficientNet-Lite0,
    about five times what they take in float32 (PyTorch 2.15). Forward, bf16 is the faster one and stays.
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
    """Depthwise convolution of images [N, C, H, W] with weight [C, 1, k, k], in whatever precision autocast chooses."""

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
