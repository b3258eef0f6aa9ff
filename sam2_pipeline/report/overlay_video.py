"""Videos with their masklets drawn on them, beside the true ones if there are any."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.evaluation.scores import FOUND, score_video
from sam2_pipeline.formats.masks import Masks, MaskSource
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.render.compare import draw_both
from sam2_pipeline.render.layout import beside
from sam2_pipeline.render.overlay import draw_prompt, overlay
from sam2_pipeline.render.video import write_video

CAPTIONS = ("masklets", "truth (white: missed)")
_PROMPT_S = 0.5  # how long a prompt's marks stay

VideoOptions = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Renderer:
    """Draws the annotated frames of a dataset's videos, each masklet in a colour of its own.

    Attributes:
        truth: true masks to show beside; masklets get the colour of the true object that they match.
        masklet_ids: only these masklets; None: all.
        video_options: fsspec's options for the address of a video.
    """

    dataset: MaskletDataset
    truth: MaskSource | None = None
    masklet_ids: frozenset[int] | None = None
    video_options: VideoOptions = field(default=lambda uri: {})

    def render(self, video_id: str, destination: Storage, name: str) -> int:
        """Writes one video as mp4 at the rate at which it is annotated; gives the number of frames.

        Raises:
            VideoError: the video or its true masks cannot be read, or it has no masklets to show.
            StorageError: it cannot be written.
        """
        video = self._chosen(self.dataset.video(video_id))
        if not video.masklets:
            raise VideoError(f"{video_id} has no masklets to show")
        truth = self._true_masks(video_id)
        with tempfile.TemporaryDirectory(prefix="sam2-render-") as folder:
            path = os.path.join(folder, "overlay.mp4")
            count = write_video(path, self._frames(video, truth), _rate(video))
            destination.put_file(path, name)
        return count

    def _chosen(self, video: AnnotatedVideo) -> AnnotatedVideo:
        if self.masklet_ids is None:
            return video
        missing = sorted(self.masklet_ids - {masklet.masklet_id for masklet in video.masklets})
        if missing:
            there = ", ".join(str(masklet.masklet_id) for masklet in video.masklets)
            raise ConfigError(f"{video.video_id} has no masklet {missing[0]}, expected some of {there or 'none'}")
        return replace(video, masklets=tuple(one for one in video.masklets if one.masklet_id in self.masklet_ids))

    def _true_masks(self, video_id: str) -> Masks | None:
        if self.truth is None:
            return None
        if video_id not in self.truth.video_ids:
            raise VideoError(f"{self.truth.url} has no true masks of {video_id}")
        return self.truth.read(video_id)

    def _frames(self, video: AnnotatedVideo, truth: Masks | None) -> Iterator[np.ndarray]:
        masks = {one.masklet_id: {frame.frame_index: frame.rle for frame in one.frames} for one in video.masklets}
        partners = {} if truth is None else _partners(video.video_id, masks, truth)
        places = set(video.frames)
        if not video.uri:
            raise VideoError(f"nothing says where {video.video_id} is")
        with open_video(video.uri, storage_options=dict(self.video_options(video.uri))) as source:
            for frame in source.frames(video.frames[0], video.frames[-1] + 1):
                if frame.index not in places:
                    continue
                found = {number: frames[frame.index] for number, frames in masks.items()}
                if truth is None:
                    picture = overlay(frame.image, np.stack([decode(rle) for rle in found.values()]), list(found))
                    yield _mark(picture, video, frame.index)
                    continue
                true = {number: frames[frame.index] for number, frames in truth.items() if frame.index in frames}
                left, right = draw_both(frame.image, found, true, partners)
                yield beside((_mark(left, video, frame.index), right), CAPTIONS)


def pick(dataset: MaskletDataset, video_ids: Sequence[str]) -> list[str]:
    """The videos to render: those named, or all that were done.

    Raises:
        ConfigError: one that is named is not there, or there is none.
    """
    done = [row["video_id"] for row in dataset.videos(columns=["video_id", "masklet_count"]).to_pylist() if row["masklet_count"]]
    for video_id in video_ids:
        if video_id not in done:
            raise ConfigError(
                f"{dataset.storage.url} has no masklets of video {video_id!r}; it has some of {', '.join(done[:5])}"
            )
    if not done:
        raise ConfigError(f"{dataset.storage.url} holds no masklets")
    return list(video_ids) or done


def _partners(video_id: str, found: Masks, truth: Masks) -> dict[int, int]:
    """Of true objects the masklet that was found for each."""
    annotated = set(next(iter(found.values())))
    seen = {number: {f: rle for f, rle in masks.items() if f in annotated} for number, masks in truth.items()}
    scores = score_video(video_id, found, {number: masks for number, masks in seen.items() if masks}, match="hungarian")
    partners = {one.object_id: one.partner for one in scores.objects}
    return {n: p.predicted_id for n, p in partners.items() if p.predicted_id is not None and (p.mean_iou or 0) >= FOUND}


def _mark(picture: np.ndarray, video: AnnotatedVideo, frame: int) -> np.ndarray:
    """The picture with the prompts that were given shortly before."""
    for masklet in video.masklets:
        prompt = masklet.seed.prompt
        if 0 <= frame - prompt.frame_index <= _PROMPT_S * video.info.fps and prompt.mask is None:
            picture = draw_prompt(picture, prompt)
    return picture


def _rate(video: AnnotatedVideo) -> float:
    """Annotated frames a second."""
    if len(video.frames) < 2:
        return video.info.fps
    times = [video.timestamp_s(video.frames[0]), video.timestamp_s(video.frames[-1])]
    return (len(video.frames) - 1) / max(times[1] - times[0], 1e-3)
