"""From a session's results to the rows of tables: full-size masks as RLE, with their scores."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.rle import encode_columns
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.segment.results import FrameResult, separate

_STABILITY_OFFSET = 1.0
_ENLARGED_TOGETHER = 16


@torch.inference_mode()
def collect_frame(result: FrameResult, object_ids: Iterable[int] | None = None) -> FrameMasks:
    """Run-length codes and scores of a frame's masks, keyed by object id; all objects, or the given ones.

    Masks of size H x W are made a few at a time and leave at once as run-length codes, so that memory does not grow with
    the number of objects (unless they compete for pixels).
    """
    wanted = set(result.object_ids if object_ids is None else object_ids)
    rows = [row for row, object_id in enumerate(result.object_ids) if object_id in wanted]
    stability = _stability(result)
    masks: dict[int, MaskletFrame] = {}
    together = len(rows) if result.non_overlapping else _ENLARGED_TOGETHER
    for start in range(0, len(rows), max(together, 1)):
        chunk = rows[start : start + together]
        logits = resize_maps(result.logits_NHW[chunk][:, None], (result.height, result.width))[:, 0]
        if result.non_overlapping:
            logits = separate(logits)
        columns = (logits > 0).transpose(1, 2).contiguous().to(torch.uint8).cpu().numpy()
        for row, rle in zip(chunk, encode_columns(columns), strict=True):
            masks[result.object_ids[row]] = MaskletFrame(
                result.frame_index,
                result.timestamp_s,
                rle,
                float(result.predicted_iou_N[row]),
                float(result.object_score_N[row]),
                stability[row],
            )
    return FrameMasks(result.frame_index, result.timestamp_s, masks)


def _stability(result: FrameResult) -> list[float]:
    """IoU of each mask's cuts at +1 and -1, on the low-resolution logits; 0 where the looser cut is empty."""
    strict = (result.logits_NHW > _STABILITY_OFFSET).flatten(1).sum(1)
    loose = (result.logits_NHW > -_STABILITY_OFFSET).flatten(1).sum(1)
    return (strict / loose.clamp(min=1)).tolist()
