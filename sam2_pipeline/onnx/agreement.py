"""How far an exported model agrees with the PyTorch model it was made from: the same prompts given to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode, encode
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.image import ImageSegmenter as OnnxImageSegmenter
from sam2_pipeline.onnx.model import OnnxModel, load_model
from sam2_pipeline.onnx.video import VideoSegmenter as OnnxVideoSegmenter
from sam2_pipeline.segment.image import ImageSegmenter
from sam2_pipeline.segment.video import VideoSegmenter


@dataclass(frozen=True, slots=True)
class Agreement:
    """IoU of the two models' masks, one number for each pair, and the largest difference of their low-resolution logits."""

    ious: np.ndarray
    logit_difference: float

    def __str__(self) -> str:
        mean, least = self.ious.mean(), self.ious.min()
        return f"IoU {mean:.5f} (least {least:.5f}) over {len(self.ious)} masks, logits within {self.logit_difference:.1e}"


def measure_agreement(
    model: Sam2, folder: str | Path, frames: Sequence[np.ndarray], masks_NHW: np.ndarray
) -> dict[str, Agreement]:
    """Agreement on the first of ``frames`` as a picture, and on all of them as a video.

    ``masks_NHW`` are objects of the first frame to prompt with: by a click, a box and a mask in turns (in the picture, the last
    as another click).
    """
    exported = load_model(folder)
    prompts = make_prompts(masks_NHW)
    return {"image": _of_image(model, exported, frames[0], prompts), "video": _of_video(model, exported, frames, prompts)}


def make_prompts(masks_NHW: np.ndarray) -> list[Prompt]:
    """A click in the middle, a box around, or the mask itself, for one visible object after the other."""
    prompts: list[Prompt] = []
    for mask in masks_NHW:
        middle = centre(mask)
        if middle is None:
            continue
        number = len(prompts)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if number % 3 == 0:
            prompts.append(Prompt(number, 0, np.array([middle[:2]]), np.array([1])))
        elif number % 3 == 1:
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            prompts.append(Prompt(number, 0, box_xyxy=box))
        else:
            prompts.append(Prompt(number, 0, mask=encode(mask)))
    return prompts


def _of_image(model: Sam2, exported: OnnxModel, picture: np.ndarray, prompts: Sequence[Prompt]) -> Agreement:
    ours, theirs = ImageSegmenter(model), OnnxImageSegmenter(exported)
    embeddings = ours.embed(picture), theirs.embed(picture)
    ious, differences = [], []
    for prompt in prompts:
        given: dict[str, Any]
        if prompt.box_xyxy is not None:
            given = {"boxes": prompt.box_xyxy, "multimask": False}
        else:
            points = prompt.points_xy if prompt.mask is None else np.array([(centre(decode(prompt.mask)) or (0, 0))[:2]])
            given = {"points": points, "labels": np.ones(1, int)}
        mine, other = ours.predict(embeddings[0], **given), theirs.predict(embeddings[1], **given)
        ious.append(_ious(mine.masks()[0].numpy(), other.masks()[0]))
        differences.append(float(np.abs(mine.logits_NMHW.numpy() - other.logits_NMHW).max()))
    return Agreement(np.concatenate(ious), max(differences))


def _of_video(model: Sam2, exported: OnnxModel, frames: Sequence[np.ndarray], prompts: Sequence[Prompt]) -> Agreement:
    ious, differences = [], []
    walks = VideoSegmenter(model).track(frames, prompts), OnnxVideoSegmenter(exported).track(frames, prompts)
    for mine, other in zip(*walks, strict=True):
        ious.append(_ious(mine.masks().numpy(), other.masks()))
        differences.append(float(np.abs(mine.logits_NHW.numpy() - other.logits_NHW).max()))
    return Agreement(np.concatenate(ious), max(differences))


def _ious(a_NHW: np.ndarray, b_NHW: np.ndarray) -> np.ndarray:
    """IoU of each pair of masks ``[N]``; two empty ones are equal."""
    both, either = (a_NHW & b_NHW).sum(axis=(1, 2)), (a_NHW | b_NHW).sum(axis=(1, 2))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
