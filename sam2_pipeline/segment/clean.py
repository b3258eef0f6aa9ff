"""Small holes and sprinkles of mask logits, on any device, without a compiled extension."""

import torch
import torch.nn.functional as F
from torch import Tensor


def small_components(region_NHW: Tensor, max_area: int) -> Tensor:
    """True where ``region_NHW`` (bool) belongs to an 8-connected component of at most ``max_area`` pixels.

    Labels spread by one pixel a step, so ``max_area`` steps settle every component that can be small; a component that is
    still unsettled then has neighbours with different labels and is too large.
    """
    N, H, W = region_NHW.shape
    numbers = torch.arange(1, H * W + 1, device=region_NHW.device, dtype=torch.float32).view(1, H, W)
    labels = torch.where(region_NHW, numbers, 0)
    for _ in range(max_area):
        spread = torch.where(region_NHW, F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0], 0)
        if torch.equal(spread, labels):
            break
        labels = spread
    # Where neighbours inside the region still disagree, the component is larger than it had steps to settle.
    highest = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0]
    lowest = -F.max_pool2d(-torch.where(region_NHW, labels, float(H * W + 1))[:, None], 3, stride=1, padding=1)[:, 0]
    unsettled = region_NHW & (highest != lowest)
    flat = labels.long().flatten(1)
    counts = torch.zeros(N, H * W + 1, device=flat.device, dtype=torch.int32)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.int32))
    counts.scatter_add_(1, flat, unsettled.flatten(1).int() * (max_area + 1))
    return region_NHW & (counts.gather(1, flat).view(N, H, W) <= max_area)


def fill_holes(logits_NHW: Tensor, max_area: int, level: float = 0.0, value: float = 0.1) -> Tensor:
    """Background components (logit <= ``level``) of at most ``max_area`` pixels get the logit ``value``."""
    if max_area <= 0:
        return logits_NHW
    return torch.where(small_components(logits_NHW <= level, int(max_area)), value, logits_NHW)


def remove_sprinkles(logits_NHW: Tensor, region_NHW: Tensor, max_area: int, value: float) -> Tensor:
    """Components of ``region_NHW`` of at most ``max_area`` pixels get the logit ``value``."""
    if max_area <= 0:
        return logits_NHW
    return torch.where(small_components(region_NHW, int(max_area)), value, logits_NHW)
