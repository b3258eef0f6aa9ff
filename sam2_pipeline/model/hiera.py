"""Hiera image trunk: pictures to feature maps at strides 4, 8, 16 and 32 (SAM 2 paper, section 4 "Image encoder").

Shapes: B pictures, H x W tokens of a map kept channels-last, d channels, w window side.
Module names are those of the released checkpoints (``image_encoder.trunk``).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.config import TrunkConfig
from sam2_pipeline.model.layers import MLP, learned

_EPS = 1e-6
_WINDOW_EMBED_SIDE = 8


def split_windows(x_BHWC: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cuts maps into windows ``[B * windows, window, window, C]``, padding below and to the right with zeros.

    Padding happens after the norm and is not masked: padded positions take part in attention, as in the reference.
    Returns the windows and the padded (height, width).
    """
    B, H, W, C = x_BHWC.shape
    pad_h, pad_w = -H % window, -W % window
    if pad_h or pad_w:
        x_BHWC = F.pad(x_BHWC, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (H + pad_h) // window, (W + pad_w) // window
    x = x_BHWC.view(B, rows, window, columns, window, C).transpose(2, 3)
    return x.reshape(-1, window, window, C), (H + pad_h, W + pad_w)


def join_windows(windows: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undoes `split_windows` and crops the padding: ``[B, H, W, C]`` of ``size``."""
    window, C = windows.shape[1], windows.shape[-1]
    rows, columns = padded[0] // window, padded[1] // window
    x = windows.view(-1, rows, columns, window, window, C).transpose(2, 3)
    return x.reshape(-1, *padded, C)[:, : size[0], : size[1]]


def pool(x_BHWC: Tensor) -> Tensor:
    """2 x 2 max pooling of channels-last maps."""
    B, H, W, C = x_BHWC.shape
    return x_BHWC.view(B, H // 2, 2, W // 2, 2, C).amax(dim=(2, 4))


class MultiScaleAttention(nn.Module):
    """Self-attention inside each map (or window); with ``pooled`` the queries are max-pooled, which halves the map."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, pooled: bool):
        super().__init__()
        self.num_heads, self.pooled = num_heads, pooled
        self.qkv = nn.Linear(dim_in, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, _ = x_BHWC.shape
        q, k, v = self.qkv(x_BHWC).chunk(3, dim=-1)
        if self.pooled:
            q = pool(q)
            H, W = H // 2, W // 2

        def heads(x: Tensor) -> Tensor:
            return x.reshape(B, -1, self.num_heads, x.shape[-1] // self.num_heads).transpose(1, 2)

        x = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
        return self.proj(x.transpose(1, 2).reshape(B, H, W, -1))


class Block(nn.Module):
    """Pre-norm transformer block. Where channels change, the map is pooled and the shortcut starts from the *normed* input."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, window: int):
        super().__init__()
        self.window, self.pooled = window, dim_in != dim_out
        self.norm1 = nn.LayerNorm(dim_in, eps=_EPS)
        self.attn = MultiScaleAttention(dim_in, dim_out, num_heads, self.pooled)
        self.norm2 = nn.LayerNorm(dim_out, eps=_EPS)
        self.mlp = MLP([dim_out, 4 * dim_out, dim_out], F.gelu)
        if self.pooled:
            self.proj = nn.Linear(dim_in, dim_out)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        normed = self.norm1(x_BHWC)
        skip = pool(self.proj(normed)) if self.pooled else x_BHWC
        if self.window:
            windows, padded = split_windows(normed, self.window)
            attended = self.attn(windows)
            if self.pooled:
                padded = (padded[0] // 2, padded[1] // 2)
            attended = join_windows(attended, padded, (skip.shape[1], skip.shape[2]))
        else:
            attended = self.attn(normed)
        x = skip + attended
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """7 x 7 convolution of stride 4: ``[B, 3, S, S]`` to channels-last ``[B, S/4, S/4, d]``."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images_B3SS: Tensor) -> Tensor:
        return self.proj(images_B3SS).permute(0, 2, 3, 1)


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
        grid = F.interpolate(self.pos_embed.float(), size=(side, side), mode="bicubic", align_corners=False)
        repeats = side // _WINDOW_EMBED_SIDE
        return (grid + self.pos_embed_window.tile(1, 1, repeats, repeats)).permute(0, 2, 3, 1)

    def forward(self, images_B3SS: Tensor) -> list[Tensor]:
        x = self.patch_embed(images_B3SS)
        x = x + self.position_embedding(x.shape[1])
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        return stages
