"""What a session on onnxruntime hands out for one frame: `segment/results.py` with NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam2_pipeline.model.conventions import OVERLAP_LOGIT
from sam2_pipeline.onnx.arrays import resize_maps


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Masks of N objects on one frame; the attributes are those of `sam2_pipeline.segment.results.FrameResult`."""

    frame_index: int
    timestamp_s: float
    object_ids: tuple[int, ...]
    logits_NHW: np.ndarray
    predicted_iou_N: np.ndarray
    object_score_N: np.ndarray
    height: int
    width: int
    non_overlapping: bool = False

    def video_logits(self) -> np.ndarray:
        """Logits at the displayed size, float32 ``[N, H, W]``."""
        logits = resize_maps(self.logits_NHW, (self.height, self.width))
        if not self.non_overlapping or len(logits) < 2:
            return logits
        winner = np.arange(len(logits))[:, None, None] == logits.argmax(axis=0)
        return np.where(winner, logits, np.minimum(logits, np.float32(OVERLAP_LOGIT)))

    def masks(self) -> np.ndarray:
        """Masks at the displayed size, bool ``[N, H, W]``."""
        return self.video_logits() > 0

    def __repr__(self) -> str:
        return f"FrameResult(frame_index={self.frame_index}, object_ids={self.object_ids}, size={self.height}x{self.width})"
