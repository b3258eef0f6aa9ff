"""Segmenting videos: `VideoSegmenter` opens sessions and translates between pixels of the video and the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame, FrameSource, LiveFrames
from sam2_pipeline.masklets.prompts import Prompt, whole_number
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.session import VideoSession
from sam2_pipeline.segment.tracking import TrackingOptions

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

    def open(self, video: FrameSource | Sequence[np.ndarray | Image.Image], **changes: object) -> PromptedSession:
        """A session on a `FrameSource` or a sequence of pictures; ``changes`` replace fields of the `TrackingOptions`."""
        if isinstance(video, str | bytes | PathLike):
            raise ConfigError(f"video is the path {video!r}; open it first: open_video({str(video)!r})")
        if not isinstance(video, Sequence | np.ndarray) and not hasattr(video, "frames"):
            raise ConfigError(f"video is a {type(video).__name__}, expected pictures in a sequence, or an open_video")
        source: FrameSource = ArrayFrames(video) if isinstance(video, Sequence | np.ndarray) else video
        options = replace(self.options, **changes)  # type: ignore[arg-type]
        return PromptedSession(self.model, source, options)

    def track(self, video: FrameSource | Sequence[np.ndarray | Image.Image], prompts: Iterable[Prompt]) -> Iterator[FrameResult]:
        """One pass forward. A later prompt for an object refines it when its frame is reached."""
        session = self.open(video)
        for prompt in prompts:
            session.schedule(prompt)
        yield from session.propagate()

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
        from sam2_pipeline.segment.live import LiveOptions, LiveStream  # which builds on this file

        if isinstance(source, str | bytes | PathLike):
            raise ConfigError(f"source is {source!r}; open it first: open_stream({str(source)!r})")
        tracking = replace(self.options, **changes)  # type: ignore[arg-type]
        return LiveStream(self.model, tracking, options or LiveOptions(), source)


class PromptedSession(VideoSession):
    """A `VideoSession` spoken to in `Prompt`s, that is in pixels of the displayed video."""

    def __init__(self, model: Sam2, source: FrameSource, options: TrackingOptions, storage: torch.device | None = None):
        super().__init__(model, DecodedFrames(source, model.config.image_size, model.device), options, storage)
        self._scheduled: dict[int, list[Prompt]] = {}

    def prompt(self, prompt: Prompt, *, keep_old: bool = False) -> FrameResult:
        """Gives a prompt and the masks of its frame. On a frame that was tracked it corrects, and conditions from then on.

        ``keep_old`` adds the points to earlier ones of the same object and frame; otherwise they replace them.

        Raises:
            ConfigError: the prompt lies outside the video.
        """
        self._check(prompt)
        if prompt.mask is not None:
            masks = mask_prompt(torch.from_numpy(decode(prompt.mask))[None], self.model.config.image_size)
            return self.add_masks(prompt.frame_index, [prompt.object_id], masks)
        points, labels = prompt_tokens(prompt)
        scale = self.model.config.image_size / torch.tensor([self.frames.width, self.frames.height], dtype=torch.float32)
        return self.add_points(prompt.frame_index, prompt.object_id, points * scale, labels, keep_old=keep_old)

    def schedule(self, prompt: Prompt) -> None:
        """Keeps a prompt until `propagate` reaches its frame, where the object's own past is known."""
        self._check(prompt)
        self._scheduled.setdefault(prompt.frame_index, []).append(prompt)

    def propagate(
        self, start: int | None = None, max_frames: int | None = None, *, reverse: bool = False, skip_visited: bool = False
    ) -> Iterator[FrameResult]:
        self._check_walk(start, max_frames)
        if self._scheduled and not self.objects:
            start = min(self._scheduled) if start is None else start
            for prompt in self._scheduled.pop(start, []):
                self.prompt(prompt)
        for result in super().propagate(start, max_frames, reverse=reverse, skip_visited=skip_visited):
            for prompt in self._scheduled.pop(result.frame_index, []):
                result = self.prompt(prompt)
            yield result

    def _check_walk(self, start: int | None, max_frames: int | None) -> None:
        length = self.frames.num_frames
        for name, value, end in (("start", start, length), ("max_frames", max_frames, None)):
            if value is not None and (whole_number(value, name) < 0 or (end is not None and value >= end)):
                raise ConfigError(f"{name} is {value}, expected " + ("0 or more" if end is None else f"0 to {end - 1}"))

    def _check(self, prompt: Prompt) -> None:
        if not isinstance(prompt, Prompt):
            raise ConfigError(f"prompt is a {type(prompt).__name__}, expected a Prompt")
        length = self.frames.num_frames
        if length is not None and prompt.frame_index >= length:
            raise ConfigError(f"{_name(prompt)}: the video has frames 0..{length - 1}")
        check_prompt(prompt, self.frames.height, self.frames.width)


def check_prompt(prompt: Prompt, height: int, width: int) -> None:
    """Raises `ConfigError` unless the prompt lies in a picture of this size."""
    corners = prompt.box_xyxy.reshape(2, 2) if prompt.box_xyxy is not None else np.zeros((0, 2), np.float32)
    spots = np.concatenate((prompt.points_xy, corners))
    if len(spots) and ((spots < 0).any() or (spots > (width, height)).any()):
        raise ConfigError(f"{_name(prompt)}: {spots.tolist()} lies outside the {width}x{height} picture")
    if prompt.mask is not None and (prompt.mask.height, prompt.mask.width) != (height, width):
        raise ConfigError(f"{_name(prompt)}: the mask is {prompt.mask.width}x{prompt.mask.height}, the video {width}x{height}")


def _name(prompt: Prompt) -> str:
    return f"prompt for object {prompt.object_id} on frame {prompt.frame_index}"


def prompt_tokens(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """A prompt's box and points as ``[P, 2]`` pixels and ``[P]`` labels, the box's corners first."""
    points, labels = torch.from_numpy(prompt.points_xy), torch.from_numpy(prompt.point_labels).long()
    if prompt.box_xyxy is None:
        return points, labels
    corners = torch.from_numpy(prompt.box_xyxy).view(2, 2)
    return torch.cat((corners, points)), torch.cat((torch.tensor([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), labels))


def mask_prompt(masks_NHW: Tensor, image_size: int) -> Tensor:
    """Masks of any size as 0 or 1 at the size of the network input."""
    masks = masks_NHW.float()
    if masks.shape[-2:] == (image_size, image_size):
        return masks
    return (resize_maps(masks[:, None], (image_size, image_size), antialias=True)[:, 0] >= 0.5).float()
