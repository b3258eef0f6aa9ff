"""Implementations of SAM 2 that can be timed side by side, behind one small interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.compat import SAM2AutomaticMaskGenerator, SAM2VideoPredictor, build_sam2, build_sam2_video_predictor
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.model.checkpoint import build_model
from sam2_pipeline.model.sam2 import Sam2

# Holes are filled only where the peer's compiled CUDA extension is there; without it the peer skips the step. So neither does it.
VIDEO_OVERRIDES = {"fill_hole_area": 0}
# With random weights the scores mean nothing: these thresholds let a share of the masks through, as real ones would.
GENERATOR_OPTIONS: dict[str, Any] = {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.6, "output_mode": "coco_rle"}


class Contestant(Protocol):
    """One implementation with weights loaded. Methods take what the network takes, so that only the network's work is timed."""

    name: str

    def encode(self, image_13SS: Tensor) -> Tensor:
        """The image embedding ``[1, 256, S/16, S/16]`` of a normalised picture."""
        ...

    def track(self, images_T3SS: Tensor, clicks_N2: np.ndarray, height: int, width: int) -> Iterator[Tensor]:
        """Mask logits ``[N, height, width]`` frame by frame; the clicks, in pixels of the video, are on frame 0."""
        ...


@runtime_checkable
class Proposer(Contestant, Protocol):
    """One that makes masks of a picture without prompts, too."""

    def propose(self, picture: np.ndarray, points_per_side: int) -> list[Rle]:
        """Automatic masks of a picture, uint8 ``[H, W, 3]``, in no particular order."""
        ...


class Ours:
    """This package, through its drop-in API, which follows the reference in every choice.

    On a CPU the model itself rounds what gains by it (`Sam2.precision`), as in every other command; the autocast context around
    the bench would round the rest as well, so it is left.
    """

    name = "sam2_pipeline"

    def __init__(self, model: Sam2):
        overrides = [f"++model.{key}={value}" for key, value in VIDEO_OVERRIDES.items()]
        self.model = model
        self.leaves_autocast = model.device.type == "cpu"
        self.images = build_sam2(model.config.name, device=str(model.device), model=model)
        self.videos: SAM2VideoPredictor = build_sam2_video_predictor(
            model.config.name, device=str(model.device), model=model, hydra_overrides_extra=overrides
        )

    @torch.inference_mode()
    def encode(self, image_13SS: Tensor) -> Tensor:
        with self._precision():
            return self.model.encode_frames(image_13SS).stride16_VDHW

    def track(self, images_T3SS: Tensor, clicks_N2: np.ndarray, height: int, width: int) -> Iterator[Tensor]:
        walk = self._walk(images_T3SS, clicks_N2, height, width)
        while True:
            with self._precision():  # around each step: what is open at a yield is open for whoever has the next turn, too
                logits = next(walk, None)
            if logits is None:
                return
            yield logits

    def _walk(self, images_T3SS: Tensor, clicks_N2: np.ndarray, height: int, width: int) -> Iterator[Tensor]:
        state = self.videos.init_state(images_T3SS, video_height=height, video_width=width)
        for number, click in enumerate(clicks_N2):
            self.videos.add_new_points_or_box(state, 0, number, points=[click], labels=[1])
        for _, _, logits in self.videos.propagate_in_video(state):
            yield logits[:, 0]

    def propose(self, picture: np.ndarray, points_per_side: int) -> list[Rle]:
        generator = SAM2AutomaticMaskGenerator(self.images, points_per_side, **GENERATOR_OPTIONS)
        with self._precision():
            return [Rle.from_coco(record["segmentation"]) for record in generator.generate(picture)]

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.model.device.type, enabled=False) if self.leaves_autocast else nullcontext()


class OursInFloat32(Ours):
    """The same model in float32, whatever surrounds it: what another precision is compared with. On CUDA as PyTorch has it by
    default, which is with TF32 in convolutions."""

    name = "in float32"

    def __init__(self, model: Sam2):
        exact = build_model(model.config.name, image_size=model.config.image_size, device=model.device, dtype=torch.float32)
        exact.load_state_dict(model.state_dict())
        super().__init__(exact)
        self.leaves_autocast = True
