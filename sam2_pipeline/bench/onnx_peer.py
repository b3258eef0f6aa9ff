"""Our models on onnxruntime as a contestant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.bench.contestants import VIDEO_OVERRIDES
from sam2_pipeline.compat.options import apply_overrides, released_options
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.engine import OnnxEngine
from sam2_pipeline.onnx.export import export_onnx
from sam2_pipeline.onnx.model import Features, load_model
from sam2_pipeline.onnx.results import FrameResult
from sam2_pipeline.segment.inputs import TensorFrames
from sam2_pipeline.segment.session import VideoSession


class OnnxRuntime:
    """One of our models, exported in float32 and run on the CPU with as many threads as PyTorch. It proposes no masks."""

    name = "onnxruntime"

    def __init__(self, ours: Sam2):
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(ours, folder)
            self.model = load_model(folder, threads=torch.get_num_threads())
        overrides = [f"++model.{key}={value}" for key, value in VIDEO_OVERRIDES.items()]
        self.options, _ = apply_overrides(released_options(video=True, postprocessing=True), overrides)

    def encode(self, image_13SS: Tensor) -> Tensor:
        return torch.from_numpy(self.model.encode_frames(image_13SS.numpy()).stride16_VDHW)

    def track(self, images_T3SS: Tensor, clicks_N2: np.ndarray, height: int, width: int) -> Iterator[Tensor]:
        frames = TensorFrames(images_T3SS, height, width, torch.device("cpu"))
        session: VideoSession[FrameResult] = VideoSession(_Engine(self.model, self.options), frames, self.options)
        scale = self.model.config.image_size / np.array([width, height])
        for number, click in enumerate(clicks_N2):
            session.add_points(0, number, (click * scale)[None].astype(np.float32), np.ones(1, np.int64))
        for result in session.propagate():
            yield torch.from_numpy(result.video_logits())


class _Engine(OnnxEngine):
    """Takes frames that are tensors."""

    def encode(self, images_3SS: Sequence[Tensor]) -> list[Features]:  # type: ignore[override]
        return super().encode([image.numpy() for image in images_3SS])
