"""Masks of everything on a picture, from a grid of points (SAM's automatic mask generation; SAM 2 paper, appendix D.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sam2_pipeline.masklets.rle import Rle, encode_columns
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.candidates import Candidate, CropSearch
from sam2_pipeline.segment.generate_options import GenerateOptions, crop_boxes
from sam2_pipeline.segment.image import ImageSegmenter
from sam2_pipeline.segment.nms import suppress

_ENLARGED_TOGETHER = 32  # masks; at 1080p each takes 8 MB on its way to a run-length code


@dataclass(frozen=True, slots=True)
class Proposal:
    """One automatic mask.

    Attributes:
        rle: the mask at the picture's size.
        box_xyxy: pixel extremes, inclusive.
        predicted_iou, stability_score: what the model thinks of it, and how little its area depends on the threshold.
        score: what it was judged by: the predicted IoU, and with `GenerateOptions.agreement_iou` also how many points agree.
        point_xy: the grid point it came from, pixels.
        crop_xyxy: the crop in which it was found.
    """

    rle: Rle
    box_xyxy: tuple[int, int, int, int]
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_xyxy: tuple[int, int, int, int]
    score: float


@torch.inference_mode()
def propose_masks(
    model: Sam2,
    image: np.ndarray,
    options: GenerateOptions,
    decoding: DecodingRules | None = None,
    covered_HW: np.ndarray | None = None,
) -> list[Proposal]:
    """Masks of everything on a picture (uint8 ``[H, W, 3]``): in one crop by predicted IoU, across crops small crops first.

    Grid points on ``covered_HW`` (bool) are left out, and crops without other points are not looked at.
    """
    segmenter = ImageSegmenter(model, decoding)
    height, width = image.shape[:2]
    batch_size = BatchSize(options.points_per_batch)
    found: list[Proposal] = []
    num_crops = 0
    for per_side, grid in options.layers():
        for crop in crop_boxes(height, width, per_side, options.crop_overlap_ratio):
            num_crops += 1
            points = _points_in_crop(grid, crop, covered_HW)
            if len(points):
                found += _propose_in_crop(segmenter, image, crop, points, options, batch_size)
    if num_crops > 1 and found:
        area = np.array([(p.crop_xyxy[2] - p.crop_xyxy[0]) * (p.crop_xyxy[3] - p.crop_xyxy[1]) for p in found])
        keep = suppress(np.array([p.box_xyxy for p in found]), 1 / area, options.crop_nms_thresh)
        found = [found[i] for i in keep]
    limit = options.max_mask_share * height * width
    found = [p for p in found if options.min_mask_area <= p.rle.area <= limit]
    if options.max_objects is not None and len(found) > options.max_objects:
        found = sorted(found, key=lambda p: -p.score)[: options.max_objects]
    return found


def _points_in_crop(grid: np.ndarray, crop: tuple[int, int, int, int], covered_HW: np.ndarray | None) -> np.ndarray:
    """Grid points in pixels of the crop, without those on covered pixels."""
    x0, y0, x1, y1 = crop
    points = grid * (x1 - x0, y1 - y0)
    if covered_HW is None:
        return points
    columns, rows = points.astype(int).T
    return points[~covered_HW[y0 + rows, x0 + columns]]


def _propose_in_crop(
    segmenter: ImageSegmenter,
    image: np.ndarray,
    crop: tuple[int, int, int, int],
    points: np.ndarray,
    options: GenerateOptions,
    batch_size: BatchSize,
) -> list[Proposal]:
    x0, y0, x1, y1 = crop
    height, width = image.shape[:2]
    search = CropSearch(segmenter, segmenter.embed(image[y0:y1, x0:x1]), crop, height, width, options)
    found = search.find(points, batch_size)
    return BatchSize(_ENLARGED_TOGETHER).run(found, lambda few: _draw(few, search))


def _draw(candidates: Sequence[Candidate], search: CropSearch) -> Iterator[Proposal]:
    """Enlarges candidates to the crop and encodes them at the picture's size."""
    x0, y0, x1, y1 = search.crop_xyxy
    large = resize_maps(torch.stack([c.logits_HW for c in candidates])[:, None], (y1 - y0, x1 - x0))[:, 0]
    padded = torch.zeros(len(candidates), search.width, search.height, dtype=torch.uint8)
    padded[:, x0:x1, y0:y1] = (large > search.options.mask_threshold).transpose(1, 2).cpu()
    origin = np.array([x0, y0, x0, y0])
    for found, rle in zip(candidates, encode_columns(padded.numpy()), strict=True):
        box, click = found.box_xyxy + origin, found.point_xy + origin[:2]
        scores = found.predicted_iou, found.stability_score
        yield Proposal(rle, tuple(box.tolist()), *scores, tuple(click.tolist()), search.crop_xyxy, found.score)
