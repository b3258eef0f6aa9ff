"""What a session hands out for one frame: low-resolution logits that become masks of the video's size on demand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sam2_pipeline.model.conventions import OVERLAP_LOGIT
from sam2_pipeline.model.layers import resize_maps


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Masks of N objects on one frame.

    Attributes:
        frame_index, timestamp_s: which frame.
        object_ids: the rows' objects.
        logits_NHW: float32 ``[N, S/4, S/4]``; above 0 is the object.
        predicted_iou_N, object_score_N: the model's estimate of the mask's IoU; presence logit (not above 0: not visible).
        height, width: displayed size of the video.
        non_overlapping: pixels are given to one object only.
    """

    frame_index: int
    timestamp_s: float
    object_ids: tuple[int, ...]
    logits_NHW: Tensor
    predicted_iou_N: Tensor
    object_score_N: Tensor
    height: int
    width: int
    non_overlapping: bool = False

    def video_logits(self) -> Tensor:
        """Logits at the displayed size, float32 ``[N, H, W]``."""
        if not len(self.object_ids):
            return torch.zeros(0, self.height, self.width)
        logits = resize_maps(self.logits_NHW[:, None], (self.height, self.width))[:, 0]
        return separate(logits) if self.non_overlapping else logits

    def masks(self) -> Tensor:
        """Masks at the displayed size, bool ``[N, H, W]``."""
        return self.video_logits() > 0

    def __repr__(self) -> str:
        return f"FrameResult(frame_index={self.frame_index}, object_ids={self.object_ids}, size={self.height}x{self.width})"


def separate(logits_NHW: Tensor) -> Tensor:
    """Gives every pixel to the object with the highest logit; the others' logits there become at most -10."""
    if len(logits_NHW) < 2:
        return logits_NHW
    winner = torch.zeros_like(logits_NHW, dtype=torch.bool).scatter_(0, logits_NHW.argmax(dim=0, keepdim=True), True)
    return torch.where(winner, logits_NHW, logits_NHW.clamp(max=OVERLAP_LOGIT))
