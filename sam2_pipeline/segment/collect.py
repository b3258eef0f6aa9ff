"""From a session's results to the rows of tables: full-size masks as RLE, with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.rle import encode_columns
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.segment.batches import BatchSize
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

    def enlarge(chunk: list[int]) -> Iterator[tuple[int, MaskletFrame]]:
        logits = resize_maps(result.logits_NHW[chunk][:, None], (result.height, result.width))[:, 0]
        if result.non_overlapping:
            logits = separate(logits)
        columns = (logits > 0).transpose(1, 2).contiguous().to(torch.uint8).cpu().numpy()
        for row, rle in zip(chunk, encode_columns(columns), strict=True):
            scores = float(result.predicted_iou_N[row]), float(result.object_score_N[row]), stability[row]
            yield result.object_ids[row], MaskletFrame(result.frame_index, result.timestamp_s, rle, *scores, raw_area=rle.area)

    # masks that compete for pixels can be drawn together only
    found = enlarge(rows) if result.non_overlapping and rows else BatchSize(_ENLARGED_TOGETHER).run(rows, enlarge)
    return FrameMasks(result.frame_index, result.timestamp_s, dict(found))


def _stability(result: FrameResult) -> list[float]:
    """IoU of each mask's cuts at +1 and -1, on the low-resolution logits; 0 where the looser cut is empty."""
    strict = (result.logits_NHW > _STABILITY_OFFSET).flatten(1).sum(1)
    loose = (result.logits_NHW > -_STABILITY_OFFSET).flatten(1).sum(1)
    return (strict / loose.clamp(min=1)).tolist()
