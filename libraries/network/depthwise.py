"""A faster way back through depthwise convolutions in bf16 on CPUs.

In bf16 oneDNN has no good kernels for the gradients of depthwise convolutions: they take three quarters of a training step
of EfficientNet-Lite0, ten times what the same gradients take in float32. Forward, bf16 is the faster one.
`DepthwiseGradients` takes the best of both. (PyTorch 2.15; `make bench` shows whether it still pays.)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class DepthwiseGradients(TorchFunctionMode):
    """Inside this context, the gradients of depthwise convolutions are computed in float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:  # the call of torch.nn.Conv2d, and of timm's variants
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
        return torch.conv2d(images, weight, None, *geometry, images.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
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
