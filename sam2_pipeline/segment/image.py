"""Segmenting one picture: prompts in, masks out (SAM's promptable task; reference: ``SAM2ImagePredictor``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.image_encoder import FrameFeatures, normalise
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.mask_decoder import DecodedTokens
from sam2_pipeline.model.sam2 import Sam2, settle
from sam2_pipeline.segment.inputs import check_picture
from sam2_pipeline.segment.prompt_arrays import prompt_arrays, real_numbers


@dataclass(frozen=True, slots=True)
class ImageEmbedding:
    """What the encoder says of one picture, ready for any number of prompts, and the picture's size."""

    features: FrameFeatures
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """M masks for each of N prompts, in the decoder's order (not sorted).

    Attributes:
        logits_NMHW: float32 ``[N, M, S/4, S/4]``.
        predicted_iou_NM: float32 ``[N, M]``.
        object_score_N: presence logits ``[N]``; unlike in videos a low one does not empty the masks.
        height, width: size of the picture.
    """

    logits_NMHW: Tensor
    predicted_iou_NM: Tensor
    object_score_N: Tensor
    height: int
    width: int

    def image_logits(self) -> Tensor:
        """Logits at the picture's size, ``[N, M, H, W]``."""
        return resize_maps(self.logits_NMHW, (self.height, self.width))

    def masks(self, threshold: float = 0.0) -> Tensor:
        """Masks at the picture's size, bool ``[N, M, H, W]``."""
        return self.image_logits() > threshold


class ImageSegmenter:
    """Segments pictures from points, boxes and masks.

    >>> segmenter = ImageSegmenter(model)
    >>> embedding = segmenter.embed(picture)                 # uint8 [H, W, 3] or PIL
    >>> best = segmenter.predict(embedding, points=[[500, 375]], labels=[1]).masks()
    """

    def __init__(self, model: Sam2, decoding: DecodingRules | None = None):
        self.model, self.decoding = model, decoding or DecodingRules()

    @torch.inference_mode()
    def embed(self, image: np.ndarray | Image.Image) -> ImageEmbedding:
        """Encodes a picture: RGB ``[H, W, 3]``, uint8 or float in 0..1, or PIL. Raises ConfigError for anything else."""
        return self.embed_batch([image])[0]

    @torch.inference_mode()
    def embed_batch(self, images: Sequence[np.ndarray | Image.Image]) -> list[ImageEmbedding]:
        """Encodes several pictures, of any sizes, in one batch."""
        tensors = []
        for image in images:
            picture = torch.tensor(check_picture(image, floats=True)).to(self.model.device)
            tensors.append((picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()).permute(2, 0, 1))
        return self.embed_tensors(tensors, [(tensor.shape[1], tensor.shape[2]) for tensor in tensors])

    @torch.inference_mode()
    def embed_tensors(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[ImageEmbedding]:
        """Encodes float pictures ``[3, H, W]`` in 0..1: resized with antialiasing, then normalised."""
        side = self.model.config.image_size
        batch = torch.cat([resize_maps(image[None], (side, side), antialias=True) for image in images])
        features = self.model.encode_frames(normalise(batch))
        return [ImageEmbedding(features.select(slice(i, i + 1)), h, w) for i, (h, w) in enumerate(sizes)]

    @torch.inference_mode()
    def predict(
        self,
        embedding: ImageEmbedding,
        *,
        points: np.ndarray | Tensor | Sequence | None = None,
        labels: np.ndarray | Tensor | Sequence | None = None,
        boxes: np.ndarray | Tensor | Sequence | None = None,
        mask_logits: np.ndarray | Tensor | None = None,
        multimask: bool = True,
    ) -> ImagePrediction:
        """Masks for N prompts on one picture; coordinates are pixels of the picture.

        Args:
            points, labels: ``[P, 2]`` (x, y) and ``[P]`` (1 object, 0 background), or ``[N, P, 2]`` and ``[N, P]``.
            boxes: ``[4]`` (x0, y0, x1, y1) or ``[N, 4]``; may accompany points.
            mask_logits: an earlier result's ``[S/4, S/4]`` or ``[N, S/4, S/4]`` to refine.
            multimask: three masks per prompt, for ambiguous ones such as a single click; else one.

        Raises:
            ConfigError: shapes that do not fit together, labels that mean nothing, NaN.
        """
        points_NP2, labels_NP = prompt_points(self.model, embedding, points, labels, boxes)
        masks_NHW = None if mask_logits is None else _mask_prompts(self.model, mask_logits)
        if masks_NHW is not None and points_NP2 is not None and 1 != len(masks_NHW) != len(points_NP2):
            raise ConfigError(f"{len(masks_NHW)} mask_logits for {len(points_NP2)} prompts, expected one, or as many")
        decoded = decode_prompts(self.model, embedding, points_NP2, labels_NP, masks_NHW)
        return draw_masks(self.model, embedding, decoded, self.decoding, multimask)


def prompt_points(
    model: Sam2, embedding: ImageEmbedding, points: object, labels: object, boxes: object
) -> tuple[Tensor | None, Tensor | None]:
    """Points and boxes in pixels of the picture as tensors, see `prompt_arrays`."""
    size = embedding.width, embedding.height
    points_NP2, labels_NP = prompt_arrays(points, labels, boxes, size, model.config.image_size)
    if points_NP2 is None:
        return None, None
    return torch.from_numpy(points_NP2).to(model.device), torch.from_numpy(labels_NP).to(model.device)


def _mask_prompts(model: Sam2, mask_logits: Any) -> Tensor:
    """``[N, S/4, S/4]`` of one or more masks of earlier results; tensors stay on their device."""
    side = model.mask_side
    known = isinstance(mask_logits, Tensor) and not mask_logits.is_complex()
    masks = (mask_logits if known else torch.from_numpy(real_numbers(mask_logits, "mask_logits"))).to(model.device).float()
    if masks.ndim < 2 or masks.shape[-2:] != (side, side) or not masks.numel():
        raise ConfigError(f"mask_logits is {tuple(masks.shape)}, expected [N, {side}, {side}]")
    if not masks.isfinite().all():
        raise ConfigError("mask_logits hold NaN or infinity")
    return masks.reshape(-1, side, side)


def decode_prompts(
    model: Sam2, embedding: ImageEmbedding, points_NP2: Tensor | None, labels_NP: Tensor | None, masks_NHW: Tensor | None
) -> DecodedTokens:
    """Runs the two-way transformer for N prompts on one picture: scores, but no masks yet."""
    encoder = model.sam_prompt_encoder
    with model.precision(decoding=True):
        if points_NP2 is not None and labels_NP is not None:
            tokens = encoder.encode_points(points_NP2, labels_NP)
        else:
            tokens = torch.zeros(1 if masks_NHW is None else len(masks_NHW), 0, model.config.hidden_dim, device=model.device)
        dense = encoder.no_mask() if masks_NHW is None else encoder.encode_masks(masks_NHW)
        seen = model.attend_memory(embedding.features, torch.zeros(1, dtype=torch.long, device=model.device), None)
        return model.sam_mask_decoder.attend(seen + dense, encoder.image_positions(), tokens)


def draw_masks(
    model: Sam2, embedding: ImageEmbedding, decoded: DecodedTokens, rules: DecodingRules, multimask: bool
) -> ImagePrediction:
    """Draws the three ambiguous masks of every prompt, or the one that `DecodingRules` prefer."""
    decoder, features = model.sam_mask_decoder, embedding.features
    iou, N = decoded.predicted_iou_NM, len(decoded.predicted_iou_NM)
    with model.precision(decoding=True):

        def draw(indices_NK: Tensor) -> Tensor:
            return decoder.paint(
                decoded.image_NDHW, features.stride8_VCHW, features.stride4_VCHW, decoded.mask_tokens_NMD, indices_NK
            )

        if multimask:
            index = torch.arange(1, iou.shape[1], device=iou.device).expand(N, -1)
            logits = draw(index)
        else:
            best = iou[:, 1:].argmax(dim=1, keepdim=True) + 1
            pair = torch.cat((torch.zeros_like(best), best), dim=1)
            chosen, stable = settle(draw(pair), rules)
            logits, index = chosen[:, None], torch.where(stable[:, None], 0, best)
    return ImagePrediction(logits, iou.gather(1, index), decoded.object_score_N, embedding.height, embedding.width)
