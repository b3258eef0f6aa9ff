"""Sessions in pixels of the displayed video. No torch: the engine runs the networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.prompts import Prompt, whole_number
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.model.conventions import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from sam2_pipeline.segment.engine import Engine
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.session import Result, VideoSession


class PromptedSession(VideoSession[Result]):
    """A `VideoSession` spoken to in `Prompt`s, that is in pixels of the displayed video."""

    def __init__(self, engine: Engine[Result], source: FrameSource, options: TrackingOptions):
        super().__init__(engine, DecodedFrames(source, engine.image_size, engine.prepare), options)
        self._scheduled: dict[int, list[Prompt]] = {}

    def prompt(self, prompt: Prompt, *, keep_old: bool = False) -> Result:
        """Gives a prompt and the masks of its frame. On a frame that was tracked it corrects, and conditions from then on.

        ``keep_old`` adds the points to earlier ones of the same object and frame; otherwise they replace them.

        Raises:
            ConfigError: the prompt lies outside the video.
        """
        self.check(prompt)
        if prompt.mask is not None:
            masks = self.engine.mask_prompts(decode(prompt.mask)[None])
            return self.add_masks(prompt.frame_index, [prompt.object_id], masks)
        points, labels = prompt_tokens(prompt)
        scale = self.engine.image_size / np.array([self.frames.width, self.frames.height], np.float32)
        return self.add_points(prompt.frame_index, prompt.object_id, points * scale, labels, keep_old=keep_old)

    def schedule(self, prompt: Prompt) -> None:
        """Keeps a prompt until `propagate` reaches its frame, where the object's own past is known."""
        self.check(prompt)
        self._scheduled.setdefault(prompt.frame_index, []).append(prompt)

    def track(self, prompts: Iterable[Prompt]) -> Iterator[Result]:
        """One pass forward. A later prompt for an object refines it when its frame is reached."""
        for prompt in prompts:
            self.schedule(prompt)
        yield from self.propagate()

    def propagate(
        self, start: int | None = None, max_frames: int | None = None, *, reverse: bool = False, skip_visited: bool = False
    ) -> Iterator[Result]:
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

    def check(self, prompt: Prompt) -> None:
        """Raises `ConfigError` unless the prompt lies in the video."""
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


def prompt_tokens(prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    """A prompt's box and points as float32 ``[P, 2]`` pixels and int64 ``[P]`` labels, the box's corners first."""
    points, labels = prompt.points_xy, prompt.point_labels.astype(np.int64)
    if prompt.box_xyxy is None:
        return points, labels
    corners = prompt.box_xyxy.reshape(2, 2)
    return np.concatenate((corners, points)), np.concatenate((np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), labels))


def as_source(video: FrameSource | Sequence[np.ndarray | Image.Image]) -> FrameSource:
    """A video to be opened, or pictures in memory. A path is refused: what it is, `open_video` knows."""
    if isinstance(video, str | bytes | PathLike):
        raise ConfigError(f"video is the path {video!r}; open it first: open_video({str(video)!r})")
    if not isinstance(video, Sequence | np.ndarray) and not hasattr(video, "frames"):
        raise ConfigError(f"video is a {type(video).__name__}, expected pictures in a sequence, or an open_video")
    return ArrayFrames(video) if isinstance(video, Sequence | np.ndarray) else video
