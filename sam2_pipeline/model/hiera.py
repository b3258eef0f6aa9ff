"""Hiera image trunk: pictures to feature maps at strides 4, 8, 16 and 32 (SAM 2 paper, section 4 "Image encoder").

Shapes: B pictures, H x W tokens of a map kept channels-last, d channels, w window side.
Module names are those of the released checkpoints (``image_encoder.trunk``).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.attention import dot_product_attention
from sam2_pipeline.model.config import TrunkConfig
from sam2_pipeline.model.layers import LayerNorm, eager_on_cpu, in_pieces, learned, learns
from sam2_pipeline.model.linear import MLP, Linear

_EPS = 1e-6
_WINDOW_EMBED_SIDE = 8


def split_windows(x_BHWC: Tensor, sides: tuple[int, int]) -> Tensor:
    """Cuts maps into windows ``[B * windows, height * width, C]`` of sides that divide the map's."""
    x = x_BHWC.unflatten(2, (-1, sides[1])).unflatten(1, (-1, sides[0])).transpose(2, 3)
    return x.flatten(3, 4).flatten(0, 2)


def join_windows(windows: Tensor, sides: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undoes `split_windows`: ``[B, H, W, C]`` of ``size``."""
    x = windows.unflatten(1, sides).unflatten(0, (-1, size[0] // sides[0], size[1] // sides[1])).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def spans(length: int, window: int) -> list[tuple[int, int, int]]:
    """A side in stretches of windows of one size: (begin, end, the windows' side), whole windows and the rest."""
    whole = length // window * window
    return [span for span in ((0, whole, window), (whole, length, length - whole)) if span[0] < span[1]]


def pool(x_BHWC: Tensor) -> Tensor:
    """2 x 2 max pooling of channels-last maps."""
    if learns(x_BHWC):  # the gradient of a maximum of two takes a dozen passes over the map
        return F.max_pool2d(x_BHWC.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    x = x_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    x = torch.maximum(x[:, :, 0], x[:, :, 1])  # many times faster on a CPU than a reduction over the small dimensions
    return torch.maximum(x[:, :, :, 0], x[:, :, :, 1])


class MultiScaleAttention(nn.Module):
    """Self-attention inside each map or window; with ``pooled`` the queries are max-pooled, which halves the map."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, pooled: bool):
        super().__init__()
        self.num_heads, self.pooled = num_heads, pooled
        self.qkv = Linear(dim_in, 3 * dim_out)
        self.proj = Linear(dim_out, dim_out)

    def forward(self, x_BHWC: Tensor, window: int) -> Tensor:
        """``window`` 0 is the whole map.

        Where windows do not fit, the map is padded below and to the right with zeros, which take part in attention, as in the
        reference. On a CPU that work is spared (see `_attend_unpadded`); elsewhere few and large kernels are better.
        """
        if window and not eager_on_cpu(x_BHWC):
            return self._windows_as_maps(x_BHWC, window)
        C = self.proj.in_features
        q, kv = self.qkv(x_BHWC).split((C, 2 * C), dim=-1)
        if self.pooled:
            q = pool(q)
        H, W = kv.shape[1:3]
        if window and (H % window or W % window):
            return self.proj(self._attend_unpadded(q, kv, window))
        return self.proj(self._attend(q, kv, (window or H, window or W)))

    def _windows_as_maps(self, x_BHWC: Tensor, window: int) -> Tensor:
        """Cut out first, every window is a small map to attend to as a whole."""
        H, W = x_BHWC.shape[1:3]
        padded = F.pad(x_BHWC, (0, 0, 0, -W % window, 0, -H % window)) if H % window or W % window else x_BHWC
        attended = self(split_windows(padded, (window, window)).unflatten(1, (window, window)), 0)
        halves = 2 if self.pooled else 1
        size = padded.shape[1] // halves, padded.shape[2] // halves
        joined = join_windows(attended.flatten(1, 2), tuple(attended.shape[1:3]), size)
        return joined[:, : H // halves, : W // halves]

    def _attend_unpadded(self, q_BHWC: Tensor, kv_BHWC: Tensor, window: int) -> Tensor:
        """What padded windows give, by windows of up to four sizes: whole, cut at the right, at the bottom, or at both."""
        halves = 2 if self.pooled else 1

        def part(rows: tuple[int, int, int], columns: tuple[int, int, int]) -> Tensor:
            (top, bottom, height), (left, right, width) = rows, columns
            q = q_BHWC[:, top // halves : bottom // halves, left // halves : right // halves]
            return self._attend(q, kv_BHWC[:, top:bottom, left:right], (height, width), window * window - height * width)

        across, down = spans(kv_BHWC.shape[2], window), spans(kv_BHWC.shape[1], window)
        return torch.cat([torch.cat([part(rows, columns) for columns in across], dim=2) for rows in down], dim=1)

    def _attend(self, q_BHWC: Tensor, kv_BHWC: Tensor, sides: tuple[int, int], absent: int = 0) -> Tensor:
        """Attention in windows of ``sides``, as if each had ``absent`` positions of padding more.

        These are all alike: n equal keys with equal values are one whose weight is n times as large, or its score by log n.
        """
        query_sides = (sides[0] // 2, sides[1] // 2) if self.pooled else sides
        queries, keys, bias = split_windows(q_BHWC, query_sides), split_windows(kv_BHWC, sides), None
        if absent:
            padding = self.qkv.bias[self.proj.in_features :].to(keys.dtype)
            keys = torch.cat((keys, padding.expand(len(keys), 1, -1)), dim=1)
            bias = keys.new_zeros(keys.shape[1])
            bias[-1] = math.log(absent)
            bias = bias.expand(queries.shape[1], -1)

        def heads(x_NTC: Tensor) -> Tensor:
            return x_NTC.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        k, v = keys.chunk(2, dim=-1)
        x = dot_product_attention(heads(queries), heads(k), heads(v), bias)
        return join_windows(x.transpose(1, 2).flatten(2), query_sides, (q_BHWC.shape[1], q_BHWC.shape[2]))


class Block(nn.Module):
    """Pre-norm transformer block. Where channels change, the map is pooled and the shortcut starts from the *normed* input."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, window: int):
        super().__init__()
        self.window, self.pooled = window, dim_in != dim_out
        self.norm1 = LayerNorm(dim_in, _EPS)
        self.attn = MultiScaleAttention(dim_in, dim_out, num_heads, self.pooled)
        self.norm2 = LayerNorm(dim_out, _EPS)
        self.mlp = MLP([dim_out, 4 * dim_out, dim_out], "gelu")
        if self.pooled:
            self.proj = Linear(dim_in, dim_out)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if self.window:
            return in_pieces(lambda rows: self._feed(self._attend(rows)), x_BHWC, dim=1, step=self.window)
        return in_pieces(self._feed, self._attend(x_BHWC), dim=1)

    def _attend(self, x_BHWC: Tensor) -> Tensor:
        normed = self.norm1(x_BHWC)
        skip = pool(self.proj(normed)) if self.pooled else x_BHWC
        return skip + self.attn(normed, self.window)

    def _feed(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC + self.mlp(self.norm2(x_BHWC))


class PatchEmbed(nn.Module):
    """7 x 7 convolution of stride 4: ``[B, 3, S, S]`` to channels-last ``[B, S/4, S/4, d]``."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        # Channels last in memory too, as all that follows.
        return self.proj(images_B3SS.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk. Calling it gives four NCHW maps of strides 4, 8, 16, 32, each after the last block of its stage."""

    def __init__(self, config: TrunkConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim)
        grid = config.position_grid
        self.pos_embed = learned(1, config.embed_dim, grid, grid)
        self.pos_embed_window = learned(1, config.embed_dim, _WINDOW_EMBED_SIDE, _WINDOW_EMBED_SIDE)
        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        dim, heads, window = config.embed_dim, config.num_heads, config.windows[0]
        for stage, depth in enumerate(config.stage_depths):
            for first in (i == 0 for i in range(depth)):
                index = len(self.blocks)
                widen = 2 if first and stage else 1
                # The first block of a stage still uses the window of the stage before it.
                block_window = 0 if index in config.global_blocks else window
                self.blocks.append(Block(dim, dim * widen, heads * widen, block_window))
                dim, heads, window = dim * widen, heads * widen, config.windows[stage]
            self.stage_ends.append(len(self.blocks) - 1)

    def position_embedding(self, side: int) -> Tensor:
        """``[1, side, side, d]``: the coarse grid enlarged bicubically, plus the window pattern repeated."""
        # Bicubic enlargement is a matrix on either axis: that of enlarging the unit vectors. (`F.interpolate` of all channels
        # takes longer than some blocks do.)
        units = torch.eye(self.pos_embed.shape[-1], device=self.pos_embed.device)[None, None]
        enlarge = F.interpolate(units, size=(side, units.shape[-1]), mode="bicubic", align_corners=False)[0, 0]
        grid = torch.einsum("yi,xj,dij->yxd", enlarge, enlarge, self.pos_embed[0].float())
        repeats = side // _WINDOW_EMBED_SIDE
        return grid[None] + self.pos_embed_window.permute(0, 2, 3, 1).tile(1, repeats, repeats, 1)

    def forward(self, images_B3SS: Tensor) -> list[Tensor]:
        x = self.patch_embed(images_B3SS)
        x = x + self.position_embedding(x.shape[1])
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages
