"""Masks of everything in one crop of a picture: every point of a grid is asked, and what does not hold up is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.model.mask_decoder import DecodedTokens
from sam2_pipeline.segment.agreement import agree, suppress_masks
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.clean import fill_holes, remove_sprinkles
from sam2_pipeline.segment.enlarged import measure_enlarged
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.image import ImageEmbedding, ImagePrediction, ImageSegmenter, decode_prompts, draw_masks, prompt_points
from sam2_pipeline.segment.nms import suppress

_EDGE_TOLERANCE = 20.0  # pixels; masks cut off by a crop's edge are that close to it
_REFINE_LOGIT_LIMIT = 32.0
_SUPPORTING = 0.5  # share of the least predicted IoU that masks need to agree with others


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask that passed the filters, still at low resolution. Coordinates are pixels of the crop.

    For the scores see `automatic.Proposal`.
    """

    logits_HW: Tensor
    box_xyxy: np.ndarray
    predicted_iou: float
    stability_score: float
    point_xy: np.ndarray
    score: float


@dataclass(frozen=True, slots=True)
class CropSearch:
    """The search in one crop. Points are pixels of the crop.

    Attributes:
        embedding: of the crop.
        crop_xyxy, height, width: where the crop lies in the picture, and the picture's size.
    """

    segmenter: ImageSegmenter
    embedding: ImageEmbedding
    crop_xyxy: tuple[int, int, int, int]
    height: int
    width: int
    options: GenerateOptions

    def find(self, points: np.ndarray, batch_size: BatchSize) -> list[Candidate]:
        """What is found at the points ``[P, 2]``, each thing once."""
        agreed = self.options.agreement_iou > 0
        found = self._agreed_on(points, batch_size) if agreed else batch_size.run(points, self._at_points)
        return [found[i] for i in self._without_duplicates(found)] if found else []

    def _without_duplicates(self, found: list[Candidate]) -> Sequence[int]:
        scores = np.array([c.score for c in found], np.float32)
        if self.options.agreement_iou > 0:
            masks = torch.stack([c.logits_HW for c in found]) > self.options.mask_threshold
            return suppress_masks(masks, scores, self.options.mask_nms_thresh)
        return suppress(np.array([c.box_xyxy for c in found]), scores, self.options.box_nms_thresh).tolist()

    def _at_points(self, points: np.ndarray) -> Iterator[Candidate]:
        """Decodes one batch of points, and judges its masks each on its own."""
        logits, iou, index = self._decode(points, self.options.pred_iou_thresh)
        if len(logits):
            yield from self._filter(logits, iou, iou, points[index])

    def _agreed_on(self, points: np.ndarray, batch_size: BatchSize) -> list[Candidate]:
        """Decodes all points before anything is judged. Masks that are too poor to be kept may still agree with others."""
        options = self.options

        def draw(numbers: np.ndarray) -> Iterator[tuple[Tensor, Tensor, int]]:
            for logits_HW, iou, place in zip(*self._decode(points[numbers], _SUPPORTING * options.pred_iou_thresh), strict=True):
                yield logits_HW, iou, int(numbers[place])

        drawn = batch_size.run(np.arange(len(points)), draw)
        if not drawn:
            return []
        logits, iou = torch.stack([logits_HW for logits_HW, _, _ in drawn]), torch.stack([iou for _, iou, _ in drawn])
        index = np.array([number for _, _, number in drawn])
        places = points * np.array(logits.shape[:0:-1]) / (self.embedding.width, self.embedding.height)
        point_K, places_P2 = (torch.from_numpy(a).to(logits.device) for a in (index, places.astype(np.float32)))
        logits, score = agree(logits, iou, point_K, places_P2, options.agreement_iou, options.mask_threshold)
        keep = score > options.pred_iou_thresh
        logits, iou, score, index = logits[keep], iou[keep], score[keep], index[keep.cpu().numpy()]
        return list(self._filter(logits, iou, score, points[index])) if len(logits) else []

    def _decode(self, points: np.ndarray, least_iou: float) -> tuple[Tensor, Tensor, np.ndarray]:
        """Logits ``[K, S/4, S/4]`` and predicted IoUs ``[K]`` above ``least_iou`` (all, if it is not above 0), and the numbers of
        their points; scores are looked at before anything is drawn, and nothing is enlarged."""
        segmenter, embedding, options = self.segmenter, self.embedding, self.options
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
        index = np.repeat(index, prediction.logits_NMHW.shape[1])
        logits, iou = prediction.logits_NMHW.flatten(0, 1), prediction.predicted_iou_NM.flatten()
        if options.refine:
            logits, iou = self._refine(points[index], logits)
        if least_iou > 0:
            keep = iou > least_iou
            logits, iou, index = logits[keep], iou[keep], index[keep.cpu().numpy()]
        return logits, iou, index

    def _refine(self, points: np.ndarray, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Feeds every mask back with its point and asks for a single mask."""
        refined: list[ImagePrediction] = []
        for start in range(0, len(points), self.options.points_per_batch):
            chunk = slice(start, start + self.options.points_per_batch)
            clicks = points[chunk, None]
            refined.append(
                self.segmenter.predict(
                    self.embedding,
                    points=clicks,
                    labels=np.ones((len(clicks), 1)),
                    mask_logits=logits[chunk].clamp(-_REFINE_LOGIT_LIMIT, _REFINE_LOGIT_LIMIT),
                    multimask=False,
                )
            )
        return torch.cat([p.logits_NMHW[:, 0] for p in refined]), torch.cat([p.predicted_iou_NM[:, 0] for p in refined])

    def _filter(self, logits: Tensor, iou: Tensor, score: Tensor, points: np.ndarray) -> Iterator[Candidate]:
        """Those that, mended, are stable and not cut off by the crop's edge, judged as they are at the crop's size."""
        logits = _mend(logits, self.options)
        threshold, offset = self.options.mask_threshold, self.options.stability_score_offset
        levels = (threshold, threshold + offset, threshold - offset)
        large = measure_enlarged(logits, (self.embedding.height, self.embedding.width), levels)
        # An empty mask has stability 0 / 0: dropped by any threshold above 0, kept without one, as in the reference.
        stable = large.area_LN[1].float() / large.area_LN[2].float()
        keep = (stable >= self.options.stability_score_thresh) | (self.options.stability_score_thresh <= 0)
        boxes = large.box_N4.cpu().numpy()
        cut_off = near_crop_edge(boxes, self.crop_xyxy, self.height, self.width)
        passed = np.flatnonzero(keep.cpu().numpy() & ~cut_off)
        logits = logits[torch.from_numpy(passed).to(logits.device)]
        ious, stabilities, scores = iou.cpu().numpy(), stable.cpu().numpy(), score.cpu().numpy()
        for logits_HW, i in zip(logits, passed, strict=True):
            yield Candidate(logits_HW, boxes[i], float(ious[i]), float(stabilities[i]), points[i], float(scores[i]))


def _select_prompts(decoded: DecodedTokens, keep: Tensor) -> DecodedTokens:
    return DecodedTokens(
        decoded.mask_tokens_NMD[keep], decoded.predicted_iou_NM[keep], decoded.object_score_N[keep], decoded.image_NDHW[keep]
    )


def _mend(logits_NHW: Tensor, options: GenerateOptions) -> Tensor:
    """Small holes filled and sprinkles removed, both judged on the mask as it came."""
    area, threshold = options.min_mask_region_area, options.mask_threshold
    mended = fill_holes(logits_NHW, area, threshold, threshold + 10.0)
    return remove_sprinkles(mended, logits_NHW > threshold, area, threshold - 10.0)


def near_crop_edge(boxes_N4: np.ndarray, crop_xyxy: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """Boxes that touch an edge of the crop which is not an edge of the picture: their masks are cut off."""
    x0, y0, _, _ = crop_xyxy
    boxes = boxes_N4.astype(np.float32) + np.array([x0, y0, x0, y0], np.float32)
    near_crop = np.abs(boxes - np.array(crop_xyxy, np.float32)) <= _EDGE_TOLERANCE
    near_image = np.abs(boxes - np.array([0, 0, width, height], np.float32)) <= _EDGE_TOLERANCE
    return np.any(near_crop & ~near_image, axis=1)
