"""Masks of everything on a picture, from a grid of points (SAM's automatic mask generation; SAM 2 paper, appendix D.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import Rle, encode_columns
from sam2_pipeline.model.config import ModelConfig
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.mask_decoder import DecodedTokens
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.agreement import agree, suppress_masks
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.clean import fill_holes, remove_sprinkles
from sam2_pipeline.segment.enlarged import measure_enlarged
from sam2_pipeline.segment.image import ImageEmbedding, ImagePrediction, ImageSegmenter, decode_prompts, draw_masks, prompt_points
from sam2_pipeline.segment.nms import suppress

_EDGE_TOLERANCE = 20.0  # pixels; masks cut off by a crop's edge are that close to it
_REFINE_LOGIT_LIMIT = 32.0
_SUPPORTING = 0.5  # share of the least predicted IoU that masks need to agree with others
_ENLARGED_TOGETHER = 32  # masks; at 1080p each takes 8 MB on its way to a run-length code


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
    embedding = segmenter.embed(image[y0:y1, x0:x1])
    size = (image.shape[0], image.shape[1])
    if options.agreement_iou > 0:
        found = _candidates_agreed_on(segmenter, embedding, points, crop, size, options, batch_size)
    else:
        found = batch_size.run(points, lambda batch: _candidates_at_points(segmenter, embedding, batch, crop, size, options))
    if not found:
        return []
    kept = [found[i] for i in _without_duplicates(found, options)]
    return BatchSize(_ENLARGED_TOGETHER).run(kept, lambda few: _draw(few, crop, size, options.mask_threshold))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A mask that passed the filters, still at low resolution. Coordinates are pixels of the crop."""

    logits_HW: Tensor
    box_xyxy: np.ndarray
    predicted_iou: float
    stability_score: float
    point_xy: np.ndarray
    score: float


def _without_duplicates(found: list[_Candidate], options: GenerateOptions) -> Sequence[int]:
    scores = np.array([c.score for c in found], np.float32)
    if options.agreement_iou > 0:
        masks = torch.stack([c.logits_HW for c in found]) > options.mask_threshold
        return suppress_masks(masks, scores, options.mask_nms_thresh)
    return suppress(np.array([c.box_xyxy for c in found]), scores, options.box_nms_thresh).tolist()


def _candidates_agreed_on(
    segmenter: ImageSegmenter,
    embedding: ImageEmbedding,
    points: np.ndarray,
    crop: tuple[int, int, int, int],
    size: tuple[int, int],
    options: GenerateOptions,
    batch_size: BatchSize,
) -> list[_Candidate]:
    """Decodes all points before anything is judged. Masks that are too poor to be kept may still agree with others."""

    def draw(numbers: np.ndarray) -> Iterator[tuple[Tensor, Tensor, int]]:
        drawn = _masks_at_points(segmenter, embedding, points[numbers], options, _SUPPORTING * options.pred_iou_thresh)
        for logits_HW, iou, place in zip(*drawn, strict=True):
            yield logits_HW, iou, int(numbers[place])

    drawn = batch_size.run(np.arange(len(points)), draw)
    if not drawn:
        return []
    logits, iou = torch.stack([logits_HW for logits_HW, _, _ in drawn]), torch.stack([iou for _, iou, _ in drawn])
    index = np.array([number for _, _, number in drawn])
    places = points * np.array(logits.shape[:0:-1]) / (embedding.width, embedding.height)
    point_K, places_P2 = (torch.from_numpy(a).to(logits.device) for a in (index, places.astype(np.float32)))
    logits, score = agree(logits, iou, point_K, places_P2, options.agreement_iou, options.mask_threshold)
    keep = score > options.pred_iou_thresh
    logits, iou, score, index = logits[keep], iou[keep], score[keep], index[keep.cpu().numpy()]
    if not len(logits):
        return []
    return list(_filter(_mend(logits, options), iou, points[index], embedding, crop, size, options, score))


def _candidates_at_points(
    segmenter: ImageSegmenter,
    embedding: ImageEmbedding,
    points: np.ndarray,
    crop: tuple[int, int, int, int],
    size: tuple[int, int],
    options: GenerateOptions,
) -> Iterator[_Candidate]:
    """Decodes one batch of points, and judges its masks each on its own."""
    logits, iou, index = _masks_at_points(segmenter, embedding, points, options, options.pred_iou_thresh)
    if len(logits):
        yield from _filter(_mend(logits, options), iou, points[index], embedding, crop, size, options, iou)


def _masks_at_points(
    segmenter: ImageSegmenter, embedding: ImageEmbedding, points: np.ndarray, options: GenerateOptions, least_iou: float
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Logits ``[K, S/4, S/4]`` and predicted IoUs ``[K]`` above ``least_iou`` (all, if it is not above 0), and the numbers of
    their points; scores are looked at before anything is drawn, and nothing is enlarged."""
    points_NP2, labels_NP = prompt_points(segmenter.model, embedding, points[:, None], np.ones((len(points), 1)), None)
    decoded = decode_prompts(segmenter.model, embedding, points_NP2, labels_NP, None)
    index = np.arange(len(points))
    if options.multimask and not options.refine and least_iou > 0:
        promising = (decoded.predicted_iou_NM[:, 1:] > least_iou).any(dim=1)
        decoded, index = _select_prompts(decoded, promising), index[promising.cpu().numpy()]
        if not len(index):
            side = segmenter.model.mask_side
            return decoded.object_score_N.new_zeros(0, side, side), decoded.object_score_N, index
    prediction = draw_masks(segmenter.model, embedding, decoded, segmenter.decoding, options.multimask)
    M = prediction.logits_NMHW.shape[1]
    index = np.repeat(index, M)
    logits, iou = prediction.logits_NMHW.flatten(0, 1), prediction.predicted_iou_NM.flatten()
    if options.refine:
        logits, iou = _refine(segmenter, embedding, points[index], logits, options)
    if least_iou > 0:
        keep = iou > least_iou
        logits, iou, index = logits[keep], iou[keep], index[keep.cpu().numpy()]
    return logits, iou, index


def _select_prompts(decoded: DecodedTokens, keep: Tensor) -> DecodedTokens:
    return DecodedTokens(
        decoded.mask_tokens_NMD[keep], decoded.predicted_iou_NM[keep], decoded.object_score_N[keep], decoded.image_NDHW[keep]
    )


def _refine(
    segmenter: ImageSegmenter, embedding: ImageEmbedding, points: np.ndarray, logits: Tensor, options: GenerateOptions
) -> tuple[Tensor, Tensor]:
    """Feeds every mask back with its point and asks for a single mask."""
    refined: list[ImagePrediction] = []
    for start in range(0, len(points), options.points_per_batch):
        chunk = slice(start, start + options.points_per_batch)
        clicks = points[chunk, None]
        refined.append(
            segmenter.predict(
                embedding,
                points=clicks,
                labels=np.ones((len(clicks), 1)),
                mask_logits=logits[chunk].clamp(-_REFINE_LOGIT_LIMIT, _REFINE_LOGIT_LIMIT),
                multimask=False,
            )
        )
    return torch.cat([p.logits_NMHW[:, 0] for p in refined]), torch.cat([p.predicted_iou_NM[:, 0] for p in refined])


def _mend(logits_NHW: Tensor, options: GenerateOptions) -> Tensor:
    """Small holes filled and sprinkles removed, both judged on the mask as it came."""
    area, threshold = options.min_mask_region_area, options.mask_threshold
    mended = fill_holes(logits_NHW, area, threshold, threshold + 10.0)
    return remove_sprinkles(mended, logits_NHW > threshold, area, threshold - 10.0)


def _filter(
    logits: Tensor,
    iou: Tensor,
    points: np.ndarray,
    embedding: ImageEmbedding,
    crop: tuple[int, int, int, int],
    size: tuple[int, int],
    options: GenerateOptions,
    score: Tensor,
) -> Iterator[_Candidate]:
    """Those that are stable and not cut off by the crop's edge, judged as they are at the crop's size."""
    threshold, offset = options.mask_threshold, options.stability_score_offset
    levels = (threshold, threshold + offset, threshold - offset)
    large = measure_enlarged(logits, (embedding.height, embedding.width), levels)
    # An empty mask has stability 0 / 0: dropped by any threshold above 0, kept without one, as in the reference.
    stable = large.area_LN[1].float() / large.area_LN[2].float()
    keep = (stable >= options.stability_score_thresh) | (options.stability_score_thresh <= 0)
    boxes = large.box_N4.cpu().numpy()
    passed = np.flatnonzero(keep.cpu().numpy() & ~_near_crop_edge(boxes, crop, size))
    logits = logits[torch.from_numpy(passed).to(logits.device)]
    ious, stabilities, scores = iou.cpu().numpy(), stable.cpu().numpy(), score.cpu().numpy()
    for logits_HW, i in zip(logits, passed, strict=True):
        yield _Candidate(logits_HW, boxes[i], float(ious[i]), float(stabilities[i]), points[i], float(scores[i]))


def _draw(
    candidates: Sequence[_Candidate], crop: tuple[int, int, int, int], size: tuple[int, int], threshold: float
) -> Iterator[Proposal]:
    """Enlarges candidates to the crop and encodes them at the picture's size."""
    x0, y0, x1, y1 = crop
    large = resize_maps(torch.stack([c.logits_HW for c in candidates])[:, None], (y1 - y0, x1 - x0))[:, 0]
    padded = torch.zeros(len(candidates), size[1], size[0], dtype=torch.uint8)
    padded[:, x0:x1, y0:y1] = (large > threshold).transpose(1, 2).cpu()
    origin = np.array([x0, y0, x0, y0])
    for found, rle in zip(candidates, encode_columns(padded.numpy()), strict=True):
        box, click = found.box_xyxy + origin, found.point_xy + origin[:2]
        scores = found.predicted_iou, found.stability_score
        yield Proposal(rle, tuple(box.tolist()), *scores, tuple(click.tolist()), crop, found.score)


def _near_crop_edge(boxes_N4: np.ndarray, crop: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Boxes that touch an edge of the crop which is not an edge of the picture: their masks are cut off."""
    x0, y0, _, _ = crop
    boxes = boxes_N4.astype(np.float32) + np.array([x0, y0, x0, y0], np.float32)
    near_crop = np.abs(boxes - np.array(crop, np.float32)) <= _EDGE_TOLERANCE
    near_image = np.abs(boxes - np.array([0, 0, size[1], size[0]], np.float32)) <= _EDGE_TOLERANCE
    return np.any(near_crop & ~near_image, axis=1)
