"""Memory encoder: a frame's embedding and an object's mask to one memory (SAM 2 paper, section 4 "Memory encoder").

Shapes: N objects, S image side, h = S/16, D = 256, C = 64 memory channels.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.layers import LayerNorm2d, in_pieces, layer_norm
from sam2_pipeline.model.learning import learns_on_gpu, with_bias
from sam2_pipeline.model.linear import Linear, product

_CHANNELS = (1, 4, 16, 64, 256)
_FEW_CHANNELS = 16  # see `MaskDownsampler`


class MaskDownsampler(nn.Module):
    """Mask ``[N, 1, S, S]`` to ``[N, D, S/16, S/16]`` by four strided convolutions."""

    def __init__(self, dim: int):
        super().__init__()
        steps: list[nn.Module] = []
        for a, b in pairwise(_CHANNELS):
            steps += [nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1), LayerNorm2d(b), nn.GELU()]
        self.encoder = nn.Sequential(*steps, nn.Conv2d(_CHANNELS[-1], dim, kernel_size=1))

    def forward(self, masks_N1SS: Tensor) -> Tensor:
        return self._channels_last(masks_N1SS) if learns_on_gpu(masks_N1SS) else self.encoder(masks_N1SS)

    def _channels_last(self, masks_N1SS: Tensor) -> Tensor:
        """The same with maps channels-last, as norms read them. A GPU has no fast gradient for convolutions of a few channels, so
        these are products."""
        x = masks_N1SS.permute(0, 2, 3, 1)
        for at in range(0, len(self.encoder) - 1, 3):
            conv, norm = cast(nn.Conv2d, self.encoder[at]), cast(LayerNorm2d, self.encoder[at + 1])
            if conv.in_channels < _FEW_CHANNELS:
                x, bias = _halved(x, conv.weight), conv.get_parameter("bias")
                x = with_bias(x + bias.detach().to(x.dtype), bias)
            else:
                x = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = F.gelu(layer_norm(x, norm.weight, norm.bias, norm.eps, rounds=True))
        last = cast(nn.Conv2d, self.encoder[-1])
        return product(x, last.weight.flatten(1), last.bias).permute(0, 3, 1, 2).contiguous()


def _halved(x_NHWC: Tensor, weight_OC33: Tensor) -> Tensor:
    """A 3 x 3 convolution of stride 2, padded by 1, as one product: a cell of 2 x 2 entries has its share in its own place of the
    result and in three others: to the right, below, and both."""
    outs, C = weight_OC33.shape[:2]
    cells = x_NHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
    # With a row and a column of zeros before it, the kernel is 2 x 2 cells of 2 x 2 entries: those before the place, and its own.
    weight = F.pad(weight_OC33, (1, 0, 1, 0)).view(outs, C, 2, 2, 2, 2).permute(2, 4, 0, 3, 5, 1).reshape(4 * outs, 4 * C)
    both, below, right, own = F.linear(cells, weight).unflatten(3, (4, outs)).unbind(3)
    x = own + F.pad(below[:, :-1], (0, 0, 0, 0, 1, 0)) + F.pad(right[:, :, :-1], (0, 0, 1, 0))
    return x + F.pad(both[:, :-1, :-1], (0, 0, 1, 0, 1, 0))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7 convolution and a pointwise MLP, scaled by ``gamma`` (Liu et al., 2022)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.pwconv2 = Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x_NDHW: Tensor) -> Tensor:
        x = self.norm(self.dwconv(x_NDHW)).permute(0, 2, 3, 1)
        x = in_pieces(lambda rows: self.gamma * self.pwconv2(self.pwconv1(rows, "gelu")), x, dim=0)
        return x_NDHW + x.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Two ConvNeXt blocks."""

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(dim) for _ in range(2))

    def forward(self, x_NDHW: Tensor) -> Tensor:
        for layer in self.layers:
            x_NDHW = layer(x_NDHW)
        return x_NDHW


class MemoryEncoder(nn.Module):
    """`project_frames` once per picture, then `forward` per object."""

    def __init__(self, dim: int, memory_dim: int):
        super().__init__()
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, memory_dim, kernel_size=1)

    def project_frames(self, stride16_VDHW: Tensor) -> Tensor:
        """The frame's share of a memory, ``[V, D, h, h]``, the same for all its objects."""
        return self.pix_feat_proj(stride16_VDHW)

    def forward(self, projected_NDHW: Tensor, masks_N1SS: Tensor) -> Tensor:
        """``[N, C, h, h]`` from projected frames and masks scaled to -10..10."""
        return self.out_proj(self.fuser(projected_NDHW + self.mask_downsampler(masks_N1SS)))
