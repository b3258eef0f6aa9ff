"""Segmenting one picture with onnxruntime, as `sam2_pipeline.ImageSegmenter` does; arrays are NumPy's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.onnx.arrays import normalise, resize_maps
from sam2_pipeline.onnx.choosing import settled
from sam2_pipeline.onnx.model import Features, OnnxModel, padded
from sam2_pipeline.segment.inputs import check_picture
from sam2_pipeline.segment.prompt_arrays import prompt_arrays


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """What the encoder says of one picture, ready for any number of prompts, and the picture's size."""

    features: Features
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """M masks for each of N prompts; the attributes are those of `sam2_pipeline.segment.image.ImagePrediction`."""

    logits_NMHW: np.ndarray
    predicted_iou_NM: np.ndarray
    object_score_N: np.ndarray
    height: int
    width: int

    def image_logits(self) -> np.ndarray:
        """Logits at the picture's size, ``[N, M, H, W]``."""
        return resize_maps(self.logits_NMHW, (self.height, self.width))

    def masks(self, threshold: float = 0.0) -> np.ndarray:
        """Masks at the picture's size, bool ``[N, M, H, W]``."""
        return self.image_logits() > threshold


class ImageSegmenter:
    """Segments pictures from points, boxes and masks.

    >>> segmenter = ImageSegmenter(load_model("exported/"))
    >>> embedding = segmenter.embed(picture)                 # uint8 [H, W, 3] or PIL
    >>> best = segmenter.predict(embedding, points=[[500, 375]], labels=[1]).masks()
    """

    def __init__(self, model: OnnxModel, decoding: DecodingRules | None = None):
        self.model, self.decoding = model, decoding or DecodingRules()

    def embed(self, image: np.ndarray | Image.Image) -> ImageEmbedding:
        """Encodes a picture: RGB ``[H, W, 3]``, uint8 or float in 0..1, or PIL. Raises ConfigError for anything else."""
        picture = check_picture(image, floats=True)
        height, width = picture.shape[:2]
        scaled = picture / np.float32(255) if picture.dtype == np.uint8 else picture
        square = resize_maps(scaled.transpose(2, 0, 1), (self.model.config.image_size,) * 2, antialias=True)
        return ImageEmbedding(self.model.encode_frames(normalise(square)[None]), height, width)

    def predict(
        self,
        embedding: ImageEmbedding,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_logits: ArrayLike | None = None,
        multimask: bool = True,
    ) -> ImagePrediction:
        """Masks for N prompts on one picture; the arguments are those of `sam2_pipeline.ImageSegmenter.predict`."""
        size = embedding.width, embedding.height
        points_NP2, labels_NP = prompt_arrays(points, labels, boxes, size, self.model.config.image_size)
        masks_NHW = None if mask_logits is None else self._mask_logits(mask_logits)
        if points_NP2 is not None and labels_NP is not None:
            points_NL2, labels_NL = padded(points_NP2, labels_NP)
        else:  # no token at all, not even the padding
            N = 1 if masks_NHW is None else len(masks_NHW)
            points_NL2, labels_NL = np.zeros((N, 0, 2), np.float32), np.zeros((N, 0), np.int64)
        N = max(len(points_NL2), 0 if masks_NHW is None else len(masks_NHW))
        points_NL2, labels_NL = _for_all(points_NL2, N), _for_all(labels_NL, N)
        masks_NHW = None if masks_NHW is None else _for_all(masks_NHW, N)
        lanes = np.zeros(N, np.int64)
        seen = self.model.attend_memory(embedding.features, lanes, None)
        decoded = self.model.decode(seen, embedding.features, lanes, points_NL2, labels_NL, masks_NHW)
        index_NM = np.tile(np.arange(1, 4), (N, 1)) if multimask else settled(decoded, self.decoding)[:, None]
        row_N1 = np.arange(N)[:, None]
        return ImagePrediction(
            decoded.logits_NMHW[row_N1, index_NM],
            decoded.predicted_iou_NM[row_N1, index_NM],
            decoded.object_score_N,
            embedding.height,
            embedding.width,
        )

    def _mask_logits(self, given: ArrayLike) -> np.ndarray:
        masks, side = np.asarray(given, np.float32), self.model.mask_side
        masks = masks.reshape(-1, *masks.shape[-2:])
        if masks.shape[-2:] != (side, side):
            raise ConfigError(f"mask_logits is {masks.shape}, expected [N, {side}, {side}]")
        return masks


def _for_all(x: np.ndarray, count: int) -> np.ndarray:
    """One prompt's array for all of them, or theirs as it is."""
    return np.repeat(x, count, axis=0) if len(x) == 1 and count > 1 else x
