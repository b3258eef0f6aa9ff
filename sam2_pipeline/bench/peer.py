"""PyPI's ``sam2`` (facebookresearch/sam2) as a contestant, when it is installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import metadata, util
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.bench.contestants import GENERATOR_OPTIONS, VIDEO_OVERRIDES
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.model.sam2 import Sam2

HOW_TO_INSTALL = "pip install sam2    (PyPI's sam2 needs torchvision, and SAM2_BUILD_CUDA=0 where there is no CUDA compiler)"
_LETTERS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def is_installed() -> bool:
    return util.find_spec("sam2") is not None


def has(model_name: str) -> bool:
    """Whether it is one of the reference's models."""
    return "_hiera_" in model_name


class PypiSam2:
    """The reference with the weights of one of our models, on its device; the precision is what surrounds the calls."""

    def __init__(self, ours: Sam2):
        from sam2 import sam2_video_predictor
        from sam2.build_sam import build_sam2_video_predictor

        sam2_video_predictor.tqdm = lambda frames, **_: frames  # its progress bar would be written between our lines

        logging.getLogger().setLevel(logging.WARNING)  # the line above makes the root logger chatty
        self.name = f"sam2 {metadata.version('sam2')}"
        family, _, size = ours.config.name.partition("_hiera_")
        self.predictor = build_sam2_video_predictor(
            f"configs/{family}/{family}_hiera_{_LETTERS[size]}.yaml",
            device=str(ours.device),
            hydra_overrides_extra=[f"++model.image_size={ours.config.image_size}"],
        )
        for key, value in VIDEO_OVERRIDES.items():  # as an override string it would lose against the builder's own
            setattr(self.predictor, key, value)
        self.predictor.load_state_dict(ours.state_dict(), strict=True)

    @torch.inference_mode()
    def encode(self, image_13SS: Tensor) -> Tensor:
        return self.predictor.forward_image(image_13SS)["vision_features"]

    def track(self, images_T3SS: Tensor, clicks_N2: np.ndarray, height: int, width: int) -> Iterator[Tensor]:
        with patch("sam2.sam2_video_predictor.load_video_frames", lambda **_: (images_T3SS, height, width)):
            state = self.predictor.init_state("prepared frames")
        for number, click in enumerate(clicks_N2):
            self.predictor.add_new_points_or_box(state, 0, number, points=[click], labels=[1])
        for _, _, logits in self.predictor.propagate_in_video(state):
            yield logits[:, 0]

    def propose(self, picture: np.ndarray, points_per_side: int) -> list[Rle]:
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        options: dict[str, Any] = GENERATOR_OPTIONS
        generator = SAM2AutomaticMaskGenerator(self.predictor, points_per_side, **options)
        side = self.predictor.image_size
        generator.predictor._bb_feat_sizes = [(side // s, side // s) for s in (4, 8, 16)]  # it assumes 1024 pixels
        return [Rle.from_coco(record["segmentation"]) for record in generator.generate(picture)]
