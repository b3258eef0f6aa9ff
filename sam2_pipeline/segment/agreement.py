"""What the points of a grid agree on: masks judged by each other, and not by the model's word alone.

A mask that is an object's is what most points on that object give; one that a single point gives is a whim. So of every mask it
is asked how many of the grid's points on it have a mask that is about the same. Small models, which estimate the IoU of their
masks poorly, gain much by it.

Letters in names: K masks, P points of the grid, h x w pixels of masks at low resolution.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_FINEST = 128  # pixels to the side at which masks are compared


def mask_overlap(masks_KHW: Tensor) -> Tensor:
    """IoU of every two masks (bool), ``[K, K]``; 0 for two that are empty."""
    every = -(-max(masks_KHW.shape[1:]) // _FINEST)
    flat = masks_KHW[:, ::every, ::every].flatten(1).float()
    common, area = flat @ flat.T, flat.sum(dim=1)
    return common / (area[:, None] + area[None] - common).clamp(min=1)


def agree(
    logits_KHW: Tensor, predicted_iou_K: Tensor, point_K: Tensor, places_P2: Tensor, same_iou: float, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How good K masks of P points are: what they look like to all that agree, ``[K, h, w]``, and their scores, ``[K]``.

    Args:
        logits_KHW, predicted_iou_K: the masks, and what the model thinks of them.
        point_K: which point each came from; a point may have several masks, or none.
        places_P2: where all the points are (x, y), in pixels of the masks.
        same_iou: overlap from which on two masks are the same.
        threshold: masks are where logits are above it.

    The score is the predicted IoU times the root of the share of points on the mask that have the same one, where one more point
    is taken to disagree, as a mask's own point says nothing. Logits are the mean of the same masks, by predicted IoU.
    """
    masks = logits_KHW > threshold
    same_KK = mask_overlap(masks) >= same_iou
    x, y = places_P2.long().unbind(dim=1)
    on_KP = masks[:, y.clamp(0, masks.shape[1] - 1), x.clamp(0, masks.shape[2] - 1)]
    # Of the masks of one point, any may be the same.
    agreeing_KP = torch.zeros(on_KP.shape, device=masks.device).index_add_(1, point_K, same_KK.float()) > 0
    share_K = (on_KP & agreeing_KP).sum(dim=1) / (on_KP.sum(dim=1) + 1)
    weights_KK = same_KK * predicted_iou_K.clamp(min=0)
    mean_KHW = (weights_KK @ logits_KHW.flatten(1)) / weights_KK.sum(dim=1, keepdim=True).clamp(min=1e-6)
    known = (weights_KK.sum(dim=1) > 0)[:, None, None]  # an empty mask is not even its own
    return torch.where(known, mean_KHW.view_as(logits_KHW), logits_KHW), predicted_iou_K * share_K.sqrt()


def suppress_masks(masks_KHW: Tensor, scores_K: np.ndarray, threshold: float) -> list[int]:
    """Numbers of the masks to keep, best score first: each drops the later ones that overlap it by more than ``threshold``."""
    alike_KK = (mask_overlap(masks_KHW) > threshold).cpu().numpy()
    dropped, kept = np.zeros(len(scores_K), bool), []
    for number in np.argsort(-scores_K, kind="stable").tolist():
        if not dropped[number]:
            kept.append(number)
            dropped |= alike_KK[number]
    return kept
