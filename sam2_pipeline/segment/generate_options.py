"""How masks of everything on a picture are looked for: grids of points, crops, and what is good enough to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """How masks are generated. The grids default to those of the SAM 2 data engine, the thresholds to the reference's.

    Attributes:
        points_per_side: grid on the whole frame.
        crop_grids: (crops per side, points per side) of further grids on overlapping crops.
        point_grids: grids of points in 0..1, ``[P, 2]`` each, in place of the regular ones: whole frame, then per crop layer.
        points_per_batch: prompts that go through the decoder together; halved when memory runs out.
        pred_iou_thresh, stability_score_thresh: masks below are dropped.
        agreement_iou: overlap from which on the masks of two points are the same. Then masks are also judged by how many points
            agree on them: for ``pred_iou_thresh``, and among duplicates, which masks are that overlap by more than
            ``mask_nms_thresh``, counts the score that `agree` gives. 0: the model's word alone, as in the reference.
        stability_score_offset, mask_threshold: stability compares the cuts at threshold +- offset.
        box_nms_thresh, crop_nms_thresh: overlap at which boxes are duplicates, within and across crops.
        crop_overlap_ratio: overlap of crops as a share of the shorter side.
        min_mask_area: masks smaller than this many pixels are dropped.
        max_mask_share: masks that cover more than this share of the frame are dropped.
        min_mask_region_area: holes and sprinkles up to this many low-resolution pixels are mended.
        refine: every mask is fed back once as a prompt ("m2m").
        multimask: three masks per point.
        max_objects: at most this many masks, the best by score; None for all.
    """

    points_per_side: int = 32
    crop_grids: tuple[tuple[int, int], ...] = ((2, 16), (4, 4))
    point_grids: tuple[np.ndarray, ...] | None = None
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    agreement_iou: float = 0.0
    mask_nms_thresh: float = 0.5
    box_nms_thresh: float = 0.7
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    min_mask_area: int = 0
    max_mask_share: float = 0.95
    min_mask_region_area: int = 0
    refine: bool = False
    multimask: bool = True
    max_objects: int | None = None

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.points_per_batch < 1 or any(c < 1 or p < 1 for c, p in self.crop_grids):
            raise ConfigError("points_per_side, points_per_batch and crop_grids must be at least 1")

    @classmethod
    def for_model(cls, config: ModelConfig, **given: Any) -> GenerateOptions:
        """The given options; where a threshold is None or not given, the one that suits the model."""
        suited = {"pred_iou_thresh": config.good_iou, "stability_score_thresh": config.good_stability}
        return cls(**given | {name: value for name, value in suited.items() if given.get(name) is None})

    def layers(self) -> list[tuple[int, np.ndarray]]:
        """(crops per side, grid of points in 0..1) of each layer; the first is the whole frame."""
        per_side = [1, *(crops for crops, _ in self.crop_grids)]
        if self.point_grids is not None:
            return list(zip(per_side, self.point_grids, strict=True))
        return [(1, point_grid(self.points_per_side)), *((crops, point_grid(points)) for crops, points in self.crop_grids)]


def point_grid(points_per_side: int) -> np.ndarray:
    """Cell centres ``[n * n, 2]`` of the unit square, x fastest."""
    axis = (np.arange(points_per_side) + 0.5) / points_per_side
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def crop_boxes(height: int, width: int, per_side: int, overlap_ratio: float) -> list[tuple[int, int, int, int]]:
    """Overlapping crops (x0, y0, x1, y1), column by column; the whole frame for one per side."""
    if per_side == 1:
        return [(0, 0, width, height)]
    overlap = int(overlap_ratio * min(height, width) * 2 / per_side)

    def spans(length: int) -> list[tuple[int, int]]:
        side = int(np.ceil((overlap * (per_side - 1) + length) / per_side))
        starts = [int((side - overlap) * i) for i in range(per_side)]
        return [(start, min(start + side, length)) for start in starts]

    return [(x0, y0, x1, y1) for x0, x1 in spans(width) for y0, y1 in spans(height)]
