"""``SAM2ImagePredictor`` over `ImageSegmenter`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sam2_pipeline.compat.base import SAM2Base
from sam2_pipeline.compat.models import from_hub
from sam2_pipeline.compat.options import released_options
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.clean import fill_holes, remove_sprinkles
from sam2_pipeline.segment.image import ImageEmbedding, ImagePrediction, ImageSegmenter

_LOGIT_LIMIT = 32.0
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


class SAM2ImagePredictor:
    """Set a picture, then ask for masks as often as needed.

    Args:
        sam_model: what `build_sam2` gave, or a `Sam2`.
        mask_threshold: logits above are the object.
        max_hole_area, max_sprinkle_area: holes and specks up to so many low-resolution pixels are mended.
    """

    def __init__(
        self,
        sam_model: SAM2Base | Sam2,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        **ignored: Any,
    ):
        if isinstance(sam_model, Sam2):
            sam_model = SAM2Base(sam_model, released_options(video=False, postprocessing=True))
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self.max_hole_area, self.max_sprinkle_area = int(max_hole_area), int(max_sprinkle_area)
        self.reset_predictor()

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """The predictor of a Hugging Face model id."""
        return cls(SAM2Base(*from_hub(model_id, video=False, **kwargs)), **kwargs)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def _segmenter(self) -> ImageSegmenter:
        return ImageSegmenter(self.model.model, self.model.options.decoding)

    def reset_predictor(self) -> None:
        """Forgets the pictures."""
        self._embeddings: list[ImageEmbedding] = []
        self._is_batch = False

    def set_image(self, image: np.ndarray | Image.Image) -> None:
        """Encodes an RGB picture: an HWC array (uint8 0..255, or float as it is) or PIL."""
        self.reset_predictor()
        if not isinstance(image, np.ndarray | Image.Image):
            raise NotImplementedError(f"image is a {type(image).__name__}, expected a NumPy array or a PIL picture")
        self.set_image_batch([np.asarray(image)])
        self._is_batch = False

    def set_image_batch(self, image_list: Sequence[np.ndarray]) -> None:
        """Encodes several pictures together, for `predict_batch`."""
        self.reset_predictor()
        for image in image_list:
            assert isinstance(image, np.ndarray), f"image is a {type(image).__name__}, expected HWC NumPy arrays"
        tensors = [torch.tensor(image).permute(2, 0, 1).to(self.device) for image in image_list]
        scaled = [t.float() / 255 if t.dtype == torch.uint8 else t.float() for t in tensors]
        self._embeddings = self._segmenter.embed_tensors(scaled, [(t.shape[1], t.shape[2]) for t in tensors])
        self._is_batch = True

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        img_idx: int = -1,
    ) -> Arrays:
        """float32 (masks ``[M, H, W]``, predicted IoUs ``[M]``, low-resolution logits ``[M, S/4, S/4]``).

        With a batch of B > 1 prompts each gains a leading dimension B. ``normalize_coords`` False takes coordinates in 0..1.
        """
        if not self._embeddings:
            raise RuntimeError("no image has been set; call set_image first")
        embedding = self._embeddings[img_idx]
        if point_coords is not None:
            assert point_labels is not None, "point_labels must come with point_coords"
        scale = 1.0 if normalize_coords else np.array([embedding.width, embedding.height])
        prediction = self._segmenter.predict(
            embedding,
            points=None if point_coords is None else np.asarray(point_coords) * scale,
            labels=None if point_coords is None else point_labels,
            boxes=None if box is None else np.asarray(box).reshape(-1, 2, 2) * scale,
            mask_logits=mask_input,
            multimask=multimask_output,
        )
        masks, low = self._postprocess(prediction)
        masks = masks if return_logits else masks > self.mask_threshold
        arrays = [t.float().cpu().numpy() for t in (masks, prediction.predicted_iou_NM, low)]
        masks_, iou, low_ = (a[0] if len(a) == 1 else a for a in arrays)
        return masks_, iou, low_

    def predict_batch(
        self,
        point_coords_batch: Sequence[np.ndarray] | None = None,
        point_labels_batch: Sequence[np.ndarray] | None = None,
        box_batch: Sequence[np.ndarray] | None = None,
        mask_input_batch: Sequence[np.ndarray] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """`predict` for every picture of `set_image_batch`; three lists, one entry per picture."""
        assert self._is_batch, "predict_batch needs several pictures: call set_image_batch first"

        def entry(batch: Sequence[np.ndarray] | None, index: int) -> np.ndarray | None:
            return None if batch is None else batch[index]

        results = [
            self.predict(
                entry(point_coords_batch, i),
                entry(point_labels_batch, i),
                entry(box_batch, i),
                entry(mask_input_batch, i),
                multimask_output,
                return_logits,
                normalize_coords,
                img_idx=i,
            )
            for i in range(len(self._embeddings))
        ]
        return [r[0] for r in results], [r[1] for r in results], [r[2] for r in results]

    def get_image_embedding(self) -> Tensor:
        """The pictures' embeddings ``[V, 256, S/16, S/16]``; V is 1 after `set_image`."""
        if not self._embeddings:
            raise RuntimeError("no image has been set; call set_image first")
        lanes = torch.zeros(1, dtype=torch.long, device=self.device)
        with torch.inference_mode():
            return torch.cat([self.model.attend_memory(e.features, lanes, None) for e in self._embeddings])

    def _postprocess(self, prediction: ImagePrediction) -> tuple[Tensor, Tensor]:
        """(logits at the picture's size, low-resolution logits within +-32)."""
        logits = prediction.logits_NMHW
        flat = logits.flatten(0, 1)
        mended = fill_holes(flat, self.max_hole_area, self.mask_threshold, self.mask_threshold + 10.0)
        mended = remove_sprinkles(mended, flat > self.mask_threshold, self.max_sprinkle_area, self.mask_threshold - 10.0)
        full = ImagePrediction(
            mended.view_as(logits), prediction.predicted_iou_NM, prediction.object_score_N, prediction.height, prediction.width
        )
        return full.image_logits(), logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)
