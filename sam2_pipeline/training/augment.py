"""Clips to squares of the network's size, varied as SAM 2 varies them (its training configuration): mirroring, turning,
scaling and shearing, and colours; the same for all frames of a clip but for a little jitter.

Letters in names: T frames, N objects, S the side of the square.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from sam2_pipeline.training.clips import Clip

_DEGREES, _SHEAR, _SCALE = 25.0, 20.0, (0.8, 1.25)
_GREY = 0.05
_CLIP_JITTER, _FRAME_JITTER = (0.1, 0.1, 0.1), (0.1, 0.05, 0.05)  # brightness, contrast, saturation
_LUMA = (0.299, 0.587, 0.114)


def to_square(clip: Clip, size: int) -> tuple[Tensor, Tensor]:
    """Frames float ``[T, 3, S, S]`` in 0..255, and masks bool ``[T, N, S, S]``, squeezed without regard to the aspect ratio."""
    frames = torch.from_numpy(clip.frames_THWC.copy()).permute(0, 3, 1, 2)
    masks = torch.from_numpy(clip.masks_TNHW * np.uint8(255))
    if frames.shape[2:] != (size, size):  # as bytes: many times faster than as floating point
        frames = F.interpolate(frames, (size, size), mode="bilinear", antialias=True)
        masks = F.interpolate(masks, (size, size), mode="bilinear", antialias=True)
    return frames.float(), masks > 127


def augment(frames_T3SS: Tensor, masks_TNSS: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """A variation of the clip, in the same form."""
    if rng.random() < 0.5:
        frames_T3SS, masks_TNSS = frames_T3SS.flip(-1), masks_TNSS.flip(-1)
    grid = F.affine_grid(_affine(rng), [1, 1, *frames_T3SS.shape[-2:]], align_corners=False)
    grid = grid.expand(len(frames_T3SS), -1, -1, -1)
    frames_T3SS = F.grid_sample(frames_T3SS, grid, mode="bilinear", align_corners=False)
    masks_TNSS = F.grid_sample(masks_TNSS.float(), grid, mode="nearest", align_corners=False) > 0.5
    if rng.random() < _GREY:
        frames_T3SS = _grey(frames_T3SS).expand_as(frames_T3SS)
    return _jitter(frames_T3SS, _factors(rng, _CLIP_JITTER, 1) * _factors(rng, _FRAME_JITTER, len(frames_T3SS))), masks_TNSS


def _affine(rng: Generator) -> Tensor:
    """``[1, 2, 3]``: from places in the result to places in the picture."""
    turn, shear = math.radians(rng.uniform(-_DEGREES, _DEGREES)), math.radians(rng.uniform(-_SHEAR, _SHEAR))
    scale = math.exp(rng.uniform(math.log(_SCALE[0]), math.log(_SCALE[1])))
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ torch.tensor([[1.0, math.tan(shear)], [0.0, 1.0]]) / scale
    return torch.cat((matrix, torch.zeros(2, 1)), dim=1)[None]


def _factors(rng: Generator, strengths: tuple[float, ...], count: int) -> Tensor:
    """``[count, 3]`` about 1."""
    return torch.from_numpy(1 + rng.uniform(-1, 1, (count, len(strengths))) * strengths).float()


def _grey(frames_T3SS: Tensor) -> Tensor:
    red, green, blue = frames_T3SS.unbind(dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _jitter(frames_T3SS: Tensor, factors_T3: Tensor) -> Tensor:
    """Every frame's brightness, contrast and saturation times a factor each."""
    brightness, contrast, saturation = factors_T3[..., None, None, None].unbind(dim=1)
    frames_T3SS = (frames_T3SS * brightness).clamp_(0, 255)
    mean = _grey(frames_T3SS).mean(dim=(-2, -1), keepdim=True)
    frames_T3SS = torch.lerp(mean, frames_T3SS, contrast).clamp_(0, 255)
    return torch.lerp(_grey(frames_T3SS), frames_T3SS, saturation).clamp_(0, 255)
