"""Clips varied as SAM 2 varies them (its training configuration): mirroring, turning, scaling and shearing, and colours; the
same for all frames of a clip but for a little jitter.

Clips are cut out where they are loaded (`cut_out`). The rest is drawn there, clip by clip (`draw_variation`), and done on the
device for a whole batch (`vary`).

Letters in names: V clips, T frames, N objects of all clips, S the side of the square.
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Variation:
    """What becomes of one clip, or, stacked, of V.

    Attributes:
        affine_V23: from places in the result to places in the picture, both from -1 to 1.
        factors_VT3: of every frame's brightness, contrast and saturation.
    """

    affine_V23: Tensor
    factors_VT3: Tensor


def cut_out(clip: Clip, zoom: float, min_area: float, rng: Generator) -> Clip:
    """Half of the time a window of the clip, whose sides are up to ``zoom`` times smaller, with the objects that cover the share
    ``min_area`` of its first frame; the clip where that is none."""
    height, width = clip.frames_THWC.shape[1:3]
    share = math.exp(-rng.uniform(0, math.log(zoom))) if rng.random() < 0.5 else 1.0
    h, w = round(height * share), round(width * share)
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    rows, columns = slice(y, y + h), slice(x, x + w)
    masks = clip.masks_TNHW[:, :, rows, columns]
    kept = masks[0].mean(axis=(1, 2)) >= max(min_area, 1 / (h * w))
    if not kept.any():
        return clip
    ground = None if clip.ground_THW is None else clip.ground_THW[:, rows, columns]
    return Clip(clip.frames_THWC[:, rows, columns], masks[:, kept], ground)


def to_square(pictures: np.ndarray, size: int) -> Tensor:
    """``[..., H, W]`` bytes to uint8 ``[..., S, S]``, squeezed without regard to the aspect ratio."""
    maps = torch.from_numpy(np.ascontiguousarray(pictures))
    if maps.shape[-2:] == (size, size):
        return maps
    flat = maps.flatten(0, -3)[:, None]  # as bytes: many times faster than as floating point
    return F.interpolate(flat, (size, size), mode="bilinear", antialias=True).view(*maps.shape[:-2], size, size)


def square_clip(clip: Clip, size: int) -> tuple[Tensor, Tensor]:
    """Frames uint8 ``[T, 3, S, S]`` and masks bool ``[T, N, S, S]``; the ground, if the clip has one, is the last mask."""
    masks = clip.masks_TNHW
    if clip.ground_THW is not None:
        masks = np.concatenate((masks, clip.ground_THW[:, None]), axis=1)
    return to_square(clip.frames_THWC.transpose(0, 3, 1, 2), size), to_square(masks * np.uint8(255), size) > 127


def draw_variation(frames: int, rng: Generator) -> Variation:
    """The variation of one clip, ``[1, 2, 3]`` and ``[1, T, 3]``."""
    factors = _factors(rng, _CLIP_JITTER, 1) * _factors(rng, _FRAME_JITTER, frames)
    if rng.random() < _GREY:
        factors[:, 2] = 0.0
    return Variation(_affine(rng)[None], factors[None])


def vary(frames_VT3SS: Tensor, masks_TNSS: Tensor, lanes_N: Tensor, variation: Variation) -> tuple[Tensor, Tensor]:
    """The clips (uint8) and their masks after the variation; a clip whose first frame would lose an object keeps its place."""
    affine = variation.affine_V23
    moved = _moved_masks(masks_TNSS, affine[lanes_N])
    whole_N = moved[0].flatten(1).any(dim=1) | ~masks_TNSS[0].flatten(1).any(dim=1)
    whole_V = torch.ones(len(affine), device=affine.device).scatter_reduce(0, lanes_N, whole_N.float(), "amin") > 0
    masks = torch.where(whole_V[lanes_N][None, :, None, None], moved, masks_TNSS)
    unmoved = torch.eye(2, 3, device=affine.device)
    grid = F.affine_grid(torch.where(whole_V[:, None, None], affine, unmoved), [len(affine), 1, *masks.shape[-2:]], False)
    frames = F.grid_sample(frames_VT3SS.flatten(1, 2).float(), grid, mode="bilinear", align_corners=False)
    frames = _jitter(frames.view(frames_VT3SS.shape).flatten(0, 1), variation.factors_VT3.flatten(0, 1))
    return frames.round_().to(torch.uint8).view(frames_VT3SS.shape), masks


def _moved_masks(masks_TNSS: Tensor, affine_N23: Tensor) -> Tensor:
    grid = F.affine_grid(affine_N23, [len(affine_N23), 1, *masks_TNSS.shape[-2:]], align_corners=False)
    moved = F.grid_sample(masks_TNSS.transpose(0, 1).float(), grid, mode="nearest", align_corners=False)
    return moved.transpose(0, 1) > 0.5


def _affine(rng: Generator) -> Tensor:
    """``[2, 3]``, perhaps mirrored."""
    turn, shear = math.radians(rng.uniform(-_DEGREES, _DEGREES)), math.radians(rng.uniform(-_SHEAR, _SHEAR))
    scale = math.exp(rng.uniform(math.log(_SCALE[0]), math.log(_SCALE[1])))
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ torch.tensor([[1.0, math.tan(shear)], [0.0, 1.0]]) / scale
    if rng.random() < 0.5:
        matrix[0] = -matrix[0]
    return torch.cat((matrix, torch.zeros(2, 1)), dim=1)


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
