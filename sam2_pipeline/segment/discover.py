"""Objects that appear later: on keyframes, what is found where no tracked mask lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame, FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode, iou, merge, share_inside
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.automatic import Proposal, propose_masks
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult


@dataclass(frozen=True, slots=True)
class DiscoverOptions:
    """When objects are looked for again, and what counts as new.

    Attributes:
        every_s: seconds from one keyframe to the next; None: only the first frame of a shot is searched.
        max_overlap: a mask is nothing new if its IoU with a tracked one, or its share inside of a tracked one, is higher.
        surroundings: a tracked mask of more than this share of the picture is surroundings, in which there is more to be found:
            it covers no grid points, and a mask inside of it may be new.
    """

    every_s: float | None = None
    max_overlap: float = 0.5
    surroundings: float = 0.4

    def __post_init__(self) -> None:
        if self.every_s is not None and not self.every_s > 0:
            raise ConfigError(f"discover.every_s is {self.every_s}, expected seconds above 0, or none")
        for name in ("max_overlap", "surroundings"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"discover.{name} is {getattr(self, name)}, expected a share above 0 and up to 1")


def find_new(
    model: Sam2,
    image: np.ndarray,
    tracked: Sequence[Rle],
    generate: GenerateOptions,
    options: DiscoverOptions,
    decoding: DecodingRules | None = None,
) -> list[Proposal]:
    """Masks of what is on a picture (uint8 ``[H, W, 3]``) besides the ``tracked`` masks, which have passed the same filters."""
    tracked = [rle for rle in tracked if rle.area]
    objects = [rle for rle in tracked if rle.area <= options.surroundings * rle.height * rle.width]
    covered = decode(merge(objects)) if objects else None
    if covered is not None and covered.all():
        return []
    found = [proposal for proposal in propose_masks(model, image, generate, decoding, covered) if proposal.rle.area]
    rles = [proposal.rle for proposal in found]
    overlap = np.concatenate([iou(rles, tracked), share_inside(rles, objects)], axis=1)
    return [proposal for proposal, known in zip(found, overlap > options.max_overlap) if not known.any()]


class Discovery:
    """Gives one shot its objects: everything on its first frame, and what is new on its keyframes.

    ``seeds`` are the video's, to which those of the found objects are added.
    """

    def __init__(
        self,
        model: Sam2,
        source: FrameSource,
        generate: GenerateOptions,
        options: DiscoverOptions,
        seeds: list[MaskletSeed],
        shot_index: int | None,
    ):
        self._model, self._source, self._generate, self._options = model, source, generate, options
        self._seeds, self._shot_index = seeds, shot_index
        self._start_s: float | None = None
        self._period = 0

    def is_due(self, frame: Frame) -> bool:
        """Whether the frame, the next of the shot, is a keyframe: a new period begins with it."""
        if self._start_s is None:
            self._start_s = frame.timestamp_s
            return True
        if self._options.every_s is None:
            return False
        period = math.floor((frame.timestamp_s - self._start_s) / self._options.every_s + 1e-6)
        due, self._period = period > self._period, period
        return due

    def give(self, session: PromptedSession[FrameResult], frame: Frame, present: FrameMasks, tracked: int) -> FrameResult | None:
        """Adds what is new to the session, as mask prompts; the grid points are kept as the seeds' prompts.

        Args:
            frame: a keyframe that the session has just been walked to.
            present: the masks of what is tracked.
            tracked: how many objects that costs; with the new ones there are at most ``max_objects``.
        """
        generate = self._generate
        if generate.max_objects is not None:
            generate = replace(generate, max_objects=max(generate.max_objects - tracked, 0))
            if not generate.max_objects:
                return None
        [picture] = self._source.frames(frame.index, frame.index + 1)
        known = [mask.rle for mask in present.masks.values()]
        found = find_new(self._model, picture.image, known, generate, self._options, session.options.decoding)
        first = len(self._seeds)
        for number, proposal in enumerate(found, first):
            prompt = Prompt(number, frame.index, np.array([proposal.point_xy], np.float32), np.ones(1, np.int8))
            self._seeds.append(MaskletSeed(number, "auto", prompt, shot_index=self._shot_index))
        result, batch = None, session.options.row_batch
        for start in range(0, len(found), batch):
            masks = np.stack([decode(proposal.rle) for proposal in found[start : start + batch]])
            ids = range(first + start, first + start + len(masks))
            result = session.add_masks(frame.index, ids, session.engine.mask_prompts(masks))
        return result
