"""The losses of SAM 2 (paper, section D.2.2): focal and dice on masks, L1 on predicted IoU, cross-entropy on presence.

Only the candidate with the lowest mask loss learns from the mask; the IoU head learns from all candidates. Objects that are
not there teach presence alone; the ground, where no object is, teaches that masks of it are poor.

Letters in names: N rows, K candidates, S the side of the masks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.training.decoding import Candidates
from sam2_pipeline.training.settings import LossSection


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over rows and decoding steps; ``total`` is their weighted sum. ``pixels``: see `PixelTeacher`. ``overlap`` is the
    mean IoU of the masks that the model itself prefers with the true ones, over rows whose object is there: for the log."""

    total: Tensor
    focal: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    pixels: Tensor
    overlap: Tensor

    def __add__(self, other: "Losses") -> "Losses":
        return Losses(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def over(self, count: float) -> "Losses":
        return Losses(*(getattr(self, name) / count for name in self.__slots__))

    def detached(self) -> "Losses":
        return Losses(*(getattr(self, name).detach() for name in self.__slots__))


def focal_loss(logits: Tensor, truth: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017), the mean over the last dimension."""
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = (logits.sigmoid() - truth).abs()
    return ((alpha * truth + (1 - alpha) * (1 - truth)) * missed**gamma * loss).mean(dim=-1)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice coefficient of probabilities, smoothed by 1, over the last dimension."""
    probability = logits.sigmoid()
    return 1 - (2 * (probability * truth).sum(dim=-1) + 1) / (probability.sum(dim=-1) + truth.sum(dim=-1) + 1)


def mask_losses(
    candidates: Candidates,
    truth_NSS: Tensor,
    weights: LossSection,
    rows: Tensor | float,
    ground_N: Tensor | None = None,
    scored_N: Tensor | None = None,
) -> Losses:
    """The losses of one decoding. ``rows`` is what sums over rows are divided by (the number of rows, of all workers).

    With ``weights.stride``, masks are compared at cells of so many pixels, of which the object covers a share.
    ``ground_N`` are rows that say nothing of presence; those of them in ``scored_N`` teach the IoU head that theirs is 0.
    """
    true_NSS = F.avg_pool2d(truth_NSS[:, None].float(), weights.stride)[:, 0] if weights.stride > 1 else truth_NSS.float()
    logits = resize_maps(candidates.logits_NKHW, tuple(true_NSS.shape[1:])).flatten(2)  # type: ignore[arg-type]
    true = true_NSS.flatten(1)[:, None].expand_as(logits)
    focal_NK, dice_NK = focal_loss(logits, true, weights.focal_alpha, weights.focal_gamma), dice_loss(logits, true)
    best_N1 = (weights.focal * focal_NK + weights.dice * dice_NK).argmin(dim=1, keepdim=True)
    overlap_NK = _overlap(logits.detach() > 0, (true_NSS > 0.5).flatten(1)[:, None])
    iou_N = (candidates.predicted_iou_NK - overlap_NK).abs().mean(dim=1)
    there_N = truth_NSS.flatten(1).any(dim=1).float()
    focal = (focal_NK.gather(1, best_N1)[:, 0] * there_N).sum() / rows
    dice = (dice_NK.gather(1, best_N1)[:, 0] * there_N).sum() / rows
    iou = (iou_N * (there_N if scored_N is None else there_N + scored_N.float())).sum() / rows
    object_N = None if ground_N is None else (~ground_N).float()
    likely_N = there_N.clamp(weights.doubt, 1 - weights.doubt)
    presence = F.binary_cross_entropy_with_logits(candidates.object_score_N, likely_N, object_N, reduction="sum") / rows
    total = weights.focal * focal + weights.dice * dice + weights.iou * iou + weights.presence * presence
    preferred_N1 = candidates.predicted_iou_NK.argmax(dim=1, keepdim=True)
    overlap = (overlap_NK.gather(1, preferred_N1)[:, 0] * there_N).sum() / there_N.sum().clamp(min=1)
    return Losses(total, *(part.detach() for part in (focal, dice, iou, presence, torch.zeros_like(focal), overlap)))


def _overlap(masks: Tensor, truth: Tensor) -> Tensor:
    union = (masks | truth).sum(dim=-1)
    return (masks & truth).sum(dim=-1) / union.clamp(min=1)


def nothing(device: torch.device) -> Losses:
    """Zero of everything, to add to."""
    zero = torch.zeros((), device=device)
    return Losses(zero, zero, zero, zero, zero, zero, zero)
