"""``SAM2AutomaticMaskGenerator`` over `propose_masks`."""

from __future__ import annotations

from typing import Any

import numpy as np

from sam2_pipeline.compat.base import SAM2Base
from sam2_pipeline.compat.models import from_hub
from sam2_pipeline.compat.options import released_options
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.automatic import Proposal, propose_masks
from sam2_pipeline.segment.generate_options import GenerateOptions, point_grid

_OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SAM2AutomaticMaskGenerator:
    """Masks of everything on a picture as a list of records; arguments and defaults as in the reference."""

    def __init__(
        self,
        model: SAM2Base | Sam2,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
        **ignored: Any,
    ):
        assert (points_per_side is None) != (point_grids is None), "exactly one of points_per_side and point_grids must be given"
        assert output_mode in _OUTPUT_MODES, f"output_mode is {output_mode!r}, expected one of {_OUTPUT_MODES}"
        if isinstance(model, Sam2):
            model = SAM2Base(model, released_options(video=False, postprocessing=True))
        self.predictor_model, self.output_mode = model, output_mode
        if point_grids is None:
            assert points_per_side is not None
            sides = [int(points_per_side / crop_n_points_downscale_factor**layer) for layer in range(crop_n_layers + 1)]
            point_grids = [point_grid(side) for side in sides]
        self.options = GenerateOptions(
            point_grids=tuple(np.asarray(grid) for grid in point_grids[: crop_n_layers + 1]),
            crop_grids=tuple((2**layer, 1) for layer in range(1, crop_n_layers + 1)),
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            mask_threshold=mask_threshold,
            box_nms_thresh=box_nms_thresh,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            min_mask_region_area=int(min_mask_region_area),
            refine=use_m2m,
            multimask=multimask_output,
            max_mask_share=1.0,
        )

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """The generator of a Hugging Face model id."""
        return cls(SAM2Base(*from_hub(model_id, video=False, **kwargs)), **kwargs)

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Records with the keys ``segmentation`` (as ``output_mode`` says), ``area``, ``bbox`` (XYWH), ``predicted_iou``,
        ``point_coords``, ``stability_score`` and ``crop_box`` (XYWH), best first within a crop."""
        found = propose_masks(self.predictor_model.model, image, self.options, self.predictor_model.options.decoding)
        return [self._record(proposal) for proposal in found]

    def _record(self, proposal: Proposal) -> dict[str, Any]:
        return {
            "segmentation": self._segmentation(proposal.rle),
            "area": proposal.rle.area,
            "bbox": _xywh(proposal.box_xyxy),
            "predicted_iou": proposal.predicted_iou,
            "point_coords": [list(proposal.point_xy)],
            "stability_score": proposal.stability_score,
            "crop_box": _xywh(proposal.crop_xyxy),
        }

    def _segmentation(self, rle: Rle) -> np.ndarray | dict[str, Any]:
        if self.output_mode == "coco_rle":
            return rle.to_coco()
        mask = decode(rle)
        if self.output_mode == "binary_mask":
            return mask
        return {"size": [rle.height, rle.width], "counts": _run_lengths(mask)}


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Column-major run lengths that start with a (possibly empty) run of zeros."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], ends, [flat.size]))).tolist()
    return [0, *lengths] if flat[0] else lengths


def _xywh(box: tuple[int, int, int, int]) -> list[float]:
    x0, y0, x1, y1 = box
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
