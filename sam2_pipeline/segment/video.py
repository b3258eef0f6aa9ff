"""Segmenting videos: `VideoSegmenter` opens sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame, FrameSource, LiveFrames
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession, as_source
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.torch_engine import TorchEngine

if TYPE_CHECKING:
    from sam2_pipeline.segment.live import LiveOptions, LiveStream


class VideoSegmenter:
    """Tracks prompted objects through videos, frame by frame, in memory that does not grow with the video.

    >>> segmenter = VideoSegmenter(model)
    >>> session = segmenter.open(open_video("clip.mp4"))
    >>> session.prompt(Prompt(object_id=1, frame_index=0, points_xy=[[210, 350]], point_labels=[1]))
    >>> for result in session.propagate():
    ...     masks = result.masks()                      # bool [N, H, W], rows as result.object_ids
    """

    def __init__(self, model: Sam2, options: TrackingOptions | None = None):
        self.model, self.options = model, options or TrackingOptions()

    def open(self, video: FrameSource | Sequence[np.ndarray | Image.Image], **changes: object) -> PromptedSession[FrameResult]:
        """A session on a `FrameSource` or a sequence of pictures; ``changes`` replace fields of the `TrackingOptions`."""
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        return PromptedSession(TorchEngine(self.model, options), as_source(video), options)

    def track(self, video: FrameSource | Sequence[np.ndarray | Image.Image], prompts: Iterable[Prompt]) -> Iterator[FrameResult]:
        """One pass forward. A later prompt for an object refines it when its frame is reached."""
        yield from self.open(video).track(prompts)

    def stream(
        self,
        source: LiveFrames | FrameSource | Iterable[Frame | np.ndarray | Image.Image] | None = None,
        options: LiveOptions | None = None,
        **changes: object,
    ) -> LiveStream:
        """A live stream: frames are pushed, or come from a source; prompts and corrections come while it runs.

        >>> with segmenter.stream(open_stream("rtsp://camera/1")) as stream:
        ...     stream.prompt(Prompt(object_id=1, frame_index=0, points_xy=[[210, 350]], point_labels=[1]))
        ...     for result in stream:
        ...         masks = result.masks()

        Args:
            source: an `open_stream`, an `open_video`, or anything that iterates over frames or pictures; None: `LiveStream.push`.
            options: how it keeps up with its source.
            changes: replace fields of the `TrackingOptions`; ``history_frames`` is how far back prompts reach.
        """
        from sam2_pipeline.segment.live import LiveOptions, LiveStream  # not needed to open videos

        if isinstance(source, str | bytes | PathLike):
            raise ConfigError(f"source is {source!r}; open it first: open_stream({str(source)!r})")
        tracking = replace(self.options, **changes)  # type: ignore[arg-type]
        return LiveStream(self.model, tracking, options or LiveOptions(), source)
