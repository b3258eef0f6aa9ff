"""Position encodings. SAM 2 uses four, each with a channel order of its own:

* ``sine_2d``        image features and memories: y channels first, sine and cosine interleaved;
* ``sine_1d``        distance in time of an object pointer: all sines, then all cosines;
* ``rotary_tables``  RoPE of the memory attention: x channels first, adjacent pairs (here as separate halves);
* ``FourierPositions``  prompts: random Fourier features, a buffer of the checkpoint.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

_TEMPERATURE = 10000.0


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a table first needed in inference mode must serve training too
def sine_2d(channels: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Sine encoding ``[channels, height, width]``, float32; the first half of the channels speaks of y, the second of x."""
    half = channels // 2
    frequency = _TEMPERATURE ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)

    def axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float32)
        angle = (position / (length + 1e-6) * 2 * math.pi)[:, None] / frequency
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y_HC, x_WC = axis(height), axis(width)
    y = y_HC.T[:, :, None].expand(half, height, width)
    x = x_WC.T[:, None, :].expand(half, height, width)
    return torch.cat((y, x)).to(device)


def sine_1d(position: Tensor, channels: int) -> Tensor:
    """Sine encoding of scalars ``[...]`` as ``[..., channels]``: sines of every frequency, then cosines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=position.device)
    angle = position[..., None] / _TEMPERATURE ** (2 * (index // 2) / half)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def rotary_tables(channels: int, height: int, width: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[height * width, channels / 2]`` of axial RoPE; the first quarter of the pairs turns with x, then y.

    Positions are whole pixels 0, 1, 2, ... whatever the map's size.
    """
    frequency = _TEMPERATURE ** (-torch.arange(0, channels, 4, dtype=torch.float32) / channels)
    token = torch.arange(height * width, dtype=torch.float32)
    x, y = token % width, torch.div(token, width, rounding_mode="floor")
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=1)
    return angle.cos().to(device), angle.sin().to(device)


class FourierPositions(nn.Module):
    """Random Fourier features of points of the unit square (Tancik et al., 2020), as SAM's prompt encoder uses them."""

    positional_encoding_gaussian_matrix: Tensor  # [2, channels / 2]

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, points_xy: Tensor) -> Tensor:
        """``[..., 2]`` in 0..1, (x, y) order, to ``[..., channels]``."""
        x, y = (2 * points_xy - 1)[..., None].unbind(-2)
        # Written out, not as a matrix product: autocast would round the coordinates to bfloat16.
        of_x, of_y = self.positional_encoding_gaussian_matrix
        projected = 2 * math.pi * (x * of_x + y * of_y)
        return torch.cat((projected.sin(), projected.cos()), dim=-1)

    def grid(self, side: int) -> Tensor:
        """Encoding ``[1, channels, side, side]`` of the cell centres of a square map."""
        centre = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device, dtype=torch.float32) + 0.5) / side
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self.forward(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]
