"""Operators with a gradient that is cheap on a GPU, from the kernels in ``native/row_kernels.py``.

They say what PyTorch's own say, and are used where a gradient may be asked on a GPU, nowhere else: inference keeps to operators
that compilers and exporters know.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sam2_pipeline.model.native import row_kernels


def learns_on_gpu(x: Tensor) -> bool:
    """Whether a gradient may be asked on a GPU, of ``x`` or of what it meets, and the kernels are there."""
    return x.device.type == "cuda" and torch.is_grad_enabled() and row_kernels.AVAILABLE and not torch.compiler.is_compiling()


def normalised(x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer norm over the last dimension, computed in float32, in ``dtype``."""
    return _Normalised.apply(x.contiguous(), weight_C, bias_C, eps, dtype)


def with_bias(product: Tensor, bias_C: Tensor) -> Tensor:
    """A product to which the bias has been added without its gradient, as if with it."""
    return _WithBias.apply(product, bias_C)


def turned(x: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
    """``[..., T, 2 P]`` with channels p and P + p turned together by the angle of their place."""
    return _Turned.apply(x.contiguous(), cos_TP, sin_TP)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y, moments = row_kernels.normalise(x, weight_C, bias_C, eps, dtype)
        ctx.save_for_backward(x, weight_C, moments)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, of_weight, of_bias = row_kernels.normalise_back(gradients[0].contiguous(), *ctx.saved_tensors)
        return given, of_weight, of_bias, None, None


class _WithBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, product: Tensor, bias_C: Tensor) -> Tensor:
        return product.view_as(product)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], row_kernels.sum_rows(gradients[0].flatten(0, -2).contiguous())


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TP, sin_TP)
        return row_kernels.turn(x, cos_TP, sin_TP)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos_TP, sin_TP = ctx.saved_tensors
        return row_kernels.turn(gradients[0].contiguous(), cos_TP, sin_TP, back=True), None, None
