"""Image encoder: Hiera trunk and FPN neck (SAM 2 paper, figure 3 left; section 4).

Shapes: V pictures, S image side, D = 256 channels of the neck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.config import TrunkConfig
from sam2_pipeline.model.conventions import PIXEL_MEAN, PIXEL_STD
from sam2_pipeline.model.hiera import Hiera
from sam2_pipeline.model.kept import Kept
from sam2_pipeline.model.layers import constant


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """What the image encoder says of V pictures; computed once per picture, shared by all its objects.

    Attributes:
        stride16_VDHW: ``[V, 256, S/16, S/16]``, the image embedding, untouched by memory.
        stride8_VCHW: ``[V, 64, S/8, S/8]``, already through the decoder's ``conv_s1``.
        stride4_VCHW: ``[V, 32, S/4, S/4]``, already through the decoder's ``conv_s0``.
    """

    stride16_VDHW: Tensor
    stride8_VCHW: Tensor
    stride4_VCHW: Tensor

    def __len__(self) -> int:
        return self.stride16_VDHW.shape[0]

    def select(self, lanes: Tensor | slice) -> FrameFeatures:
        """The features of some of the pictures (``lanes`` indexes V; repeats allowed)."""
        return FrameFeatures(self.stride16_VDHW[lanes], self.stride8_VCHW[lanes], self.stride4_VCHW[lanes])

    def __repr__(self) -> str:
        shapes = (tuple(t.shape) for t in (self.stride16_VDHW, self.stride8_VCHW, self.stride4_VCHW))
        return f"FrameFeatures(stride16={next(shapes)}, stride8={next(shapes)}, stride4={next(shapes)})"


class _Lateral(nn.Module):
    """A 1 x 1 convolution under the checkpoint's key ``convs.N.conv``."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size=1)


class FpnNeck(nn.Module):
    """1 x 1 laterals to D channels; only stride 16 receives the level above it (stride 32).

    ``convs`` runs from the coarsest level to the finest, as in the checkpoints.
    """

    def __init__(self, stage_dims: tuple[int, ...], dim: int):
        super().__init__()
        self.convs = nn.ModuleList(_Lateral(d, dim) for d in reversed(stage_dims))
        self._joined = [Kept() for _ in stage_dims]

    def _lateral(self, level: int) -> nn.Conv2d:
        return cast(nn.Conv2d, self.convs[level].conv)

    def image_embedding(self, stride16: Tensor, stride32: Tensor) -> Tensor:
        """Stride-16 lateral plus the stride-32 lateral enlarged (nearest)."""
        coarse = self._lateral(0)(stride32)
        return self._lateral(1)(stride16) + F.interpolate(coarse.float(), scale_factor=2.0, mode="nearest").to(coarse.dtype)

    def high_resolution(self, stage: Tensor, level: int, conv: nn.Conv2d) -> Tensor:
        """Lateral ``level`` (2: stride 8, 3: stride 4) followed by the decoder's 1 x 1 ``conv``, as one convolution.

        Two 1 x 1 convolutions in a row are one; the 256-channel map between them is large and nobody else reads it.
        """
        first, second = self._lateral(level), conv

        def joined() -> tuple[Tensor, Tensor | None]:
            weight = second.weight.flatten(1) @ first.weight.flatten(1)
            return weight[..., None, None], F.linear(first.get_parameter("bias"), second.weight.flatten(1), second.bias)

        sources = (*first.parameters(), *second.parameters())
        return F.conv2d(stage, *self._joined[level](joined, *sources))


class ImageEncoder(nn.Module):
    """Trunk and neck under the checkpoint's names."""

    def __init__(self, config: TrunkConfig, dim: int):
        super().__init__()
        self.trunk = Hiera(config)
        self.neck = FpnNeck(config.stage_dims, dim)

    def forward(self, images_V3SS: Tensor, conv_s0: nn.Conv2d, conv_s1: nn.Conv2d) -> FrameFeatures:
        stride4, stride8, stride16, stride32 = self.trunk(images_V3SS)
        return FrameFeatures(
            self.neck.image_embedding(stride16, stride32),
            self.neck.high_resolution(stride8, 2, conv_s1),
            self.neck.high_resolution(stride4, 3, conv_s0),
        )


def normalise(images: Tensor) -> Tensor:
    """RGB in 0..1 (float) or 0..255 (uint8), ``[..., 3, H, W]``, to the zero-mean unit-variance input of the network."""
    mean, std = (constant(values, images.device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return (scaled - mean) / std
