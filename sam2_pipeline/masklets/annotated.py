"""A video with all its masklets: what every format of annotations says, in one form."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.masklets.masklet import Kind, Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.work import VideoInfo


@dataclass(frozen=True, slots=True)
class AnnotatedVideo:
    """The masklets of one video.

    Attributes:
        info: size, rate and length of the video; a codec of "" is not known.
        frames: native numbers of the annotated frames, rising.
        masklets: in order of masklet_id; each has a mask, perhaps an empty one, on every annotated frame.
        uri: where the video is, as far as the annotation says.
        attributes: what else an imported annotation says of the video.
    """

    video_id: str
    info: VideoInfo
    frames: tuple[int, ...]
    masklets: tuple[Masklet, ...]
    uri: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self) -> tuple[int, ...]:
        """Of every masklet the number that names it in other formats: the prompt's object id where each masklet has one of its
        own, otherwise the masklet id."""
        ids = [masklet.seed.object_id for masklet in self.masklets]
        named = [number for number in ids if number is not None]
        whole = len(named) == len(ids) == len(set(named))
        return tuple(named) if whole else tuple(masklet.masklet_id for masklet in self.masklets)

    def timestamp_s(self, frame: int) -> float:
        """Presentation time of an annotated frame: that of its masks, or what the rate makes of the number."""
        place = self.frames.index(frame)
        return self.masklets[0].frames[place].timestamp_s if self.masklets else frame / self.info.fps

    def __repr__(self) -> str:
        return f"AnnotatedVideo({self.video_id!r}, {len(self.masklets)} masklets on {len(self.frames)} frames)"


@dataclass(frozen=True, slots=True)
class AnnotatedFrame:
    """A decoded frame and its masks: ``masks_NHW`` is bool, rows as ``masklet_ids``, of the frame's size."""

    frame: Frame
    masklet_ids: tuple[int, ...]
    masks_NHW: np.ndarray


def annotated_masklet(
    video_id: str,
    masklet_id: int,
    masks: Mapping[int, Rle],
    fps: float,
    *,
    kind: Kind = "prompted",
    object_id: int | None = None,
    stability_scores: Sequence[float] = (),
    attributes: Mapping[str, Any] | None = None,
) -> Masklet:
    """A masklet that no model of ours made: native frame number -> mask. Scores that nobody gave are NaN.

    Its prompt is its own mask on the first frame that shows it, or on the first of all.
    """
    order = sorted(masks)
    scores = stability_scores or [math.nan] * len(order)
    frames = tuple(
        MaskletFrame(number, number / fps, masks[number], math.nan, math.nan, score) for number, score in zip(order, scores)
    )
    first = next((frame for frame in frames if frame.rle.area), frames[0])
    prompt = Prompt(masklet_id if object_id is None else object_id, first.frame_index, mask=first.rle)
    return Masklet(video_id, MaskletSeed(masklet_id, kind, prompt, object_id, attributes or {}), frames)
