"""Segmenting videos with onnxruntime: the sessions are those of `sam2_pipeline.VideoSegmenter`, on another engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.onnx.engine import OnnxEngine
from sam2_pipeline.onnx.model import OnnxModel
from sam2_pipeline.onnx.results import FrameResult
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession, as_source


class VideoSegmenter:
    """Tracks prompted objects through videos, as `sam2_pipeline.VideoSegmenter`; results hold NumPy arrays.

    >>> session = VideoSegmenter(load_model("exported/")).open(open_video("clip.mp4"))
    >>> session.prompt(Prompt(object_id=1, frame_index=0, points_xy=[[210, 350]], point_labels=[1]))
    >>> for result in session.propagate():
    ...     masks = result.masks()                      # bool [N, H, W], rows as result.object_ids
    """

    def __init__(self, model: OnnxModel, options: TrackingOptions | None = None):
        self.model, self.options = model, options or TrackingOptions()

    def open(self, video: FrameSource | Sequence[np.ndarray | Image.Image], **changes: object) -> PromptedSession[FrameResult]:
        """A session on a `FrameSource` or a sequence of pictures; ``changes`` replace fields of the `TrackingOptions`."""
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        return PromptedSession(OnnxEngine(self.model, options), as_source(video), options)

    def track(self, video: FrameSource | Sequence[np.ndarray | Image.Image], prompts: Iterable[Prompt]) -> Iterator[FrameResult]:
        """One pass forward. A later prompt for an object refines it when its frame is reached."""
        yield from self.open(video).track(prompts)
