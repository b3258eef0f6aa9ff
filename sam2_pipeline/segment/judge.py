"""Asking the model again about finished masklets: does tracking them back return to where they began, and does it see the same
object in a single frame? What follows from the answers is decided in `masklets.verdict`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.clean import CleanRules, clean, clean_frame
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import Masklet, MaskletSeed
from sam2_pipeline.masklets.rle import Rle, decode, encode_columns, iou
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.verdict import Judgement, MaskStore, VerdictRules, judge
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.image import ImageEmbedding, decode_prompts, draw_masks, prompt_points
from sam2_pipeline.segment.inputs import DecodedFrames
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.torch_engine import TorchEngine
from sam2_pipeline.segment.video import VideoSegmenter

OnFrame = Callable[[], None]


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How masklets are judged.

    Attributes:
        rules: what is good and what is bad.
        reprompt_frames: on about so many frames, spread over the video, what is visible is segmented anew.
    """

    rules: VerdictRules = field(default_factory=VerdictRules)
    reprompt_frames: int = 4

    def __post_init__(self) -> None:
        if self.reprompt_frames < 1:
            raise ConfigError(f"reprompt_frames is {self.reprompt_frames}, expected at least 1")


@dataclass(frozen=True)
class Judge:
    """Judges all masklets of a video together. Costs one or two more walks through it, and memory that does not grow with it."""

    model: Sam2
    tracking: TrackingOptions
    clean: CleanRules
    options: JudgeOptions

    def judge(
        self, source: FrameSource, seeds: Sequence[MaskletSeed], masks: MaskStore, on_frame: OnFrame = lambda: None
    ) -> dict[int, Judgement]:
        """The judgements by masklet id. ``on_frame`` is called after every frame that was looked at."""
        spans = [span for seed in seeds if (span := _span(seed, masks.visible_frames(seed.masklet_id))) is not None]
        back = self._returns(source, {s.masklet_id: (s.last, s.anchor) for s in spans if s.last > s.anchor}, masks, on_frame)
        forth = self._returns(source, {s.masklet_id: (s.first, s.anchor) for s in spans if s.first < s.anchor}, masks, on_frame)
        looks = _looks([seed.masklet_id for seed in seeds], masks, self.options.reprompt_frames)
        again = self._agreements(source, looks, masks, on_frame)
        judgements = {}
        for seed in seeds:
            number = seed.masklet_id
            cycles = [found[number] for found in (back, forth) if number in found]
            measures = masks.measures(number)
            judgements[number] = judge(measures, min(cycles, default=None), again.get(number), self.options.rules)
        return judgements

    # ---------------------------------------------------------------------------------------------------------- cycles

    def _returns(
        self, source: FrameSource, journeys: Mapping[int, tuple[int, int]], masks: MaskStore, on_frame: OnFrame
    ) -> dict[int, float]:
        """Tracks masklets from their masks on one frame to another, all in one direction: (from, to) by masklet id.

        Gives the IoUs with their own masks there.
        """
        if not journeys:
            return {}
        reverse = all(start > end for start, end in journeys.values())
        starts, ends = _by_frame(journeys, 0), _by_frame(journeys, 1)
        begin, stop = (max(starts), min(ends)) if reverse else (min(starts), max(ends))
        # Each competes with its own past only.
        session = VideoSegmenter(self.model, self.tracking).open(source, non_overlapping=False)
        self._prompt(session, begin, starts[begin], masks)
        found = {}
        for result in session.propagate(begin, abs(begin - stop), reverse=reverse):
            frame = result.frame_index
            if frame in ends:
                there = clean_frame(collect_frame(result, ends[frame]), self.clean).masks
                for number in ends[frame]:
                    found[number] = float(iou([there[number].rle], [masks.mask(number, frame)])[0, 0])
                    session.remove_object(number)
            if frame in starts and frame != begin:
                self._prompt(session, frame, starts[frame], masks)
            on_frame()
        return found

    def _prompt(self, session: PromptedSession, frame: int, numbers: Sequence[int], masks: MaskStore) -> None:
        """Gives the masklets' masks on a frame as their prompts."""
        for chunk in _chunks(numbers, self.tracking.row_batch):
            drawn = np.stack([decode(masks.mask(number, frame)) for number in chunk])
            session.add_masks(frame, chunk, session.engine.mask_prompts(drawn))

    # ------------------------------------------------------------------------------------------------------ agreement

    def _agreements(
        self, source: FrameSource, looks: Mapping[int, Sequence[int]], masks: MaskStore, on_frame: OnFrame
    ) -> dict[int, float]:
        """Mean IoU of masklets' masks with what single frames and prompts give. ``looks``: at which masklets on which frames."""
        engine = TorchEngine(self.model, self.tracking)
        pictures = DecodedFrames(source, engine.image_size, engine.prepare)
        batch_size = BatchSize(self.tracking.row_batch)
        ious: dict[int, list[float]] = {}
        for frame, numbers in looks.items():
            here = [masks.mask(number, frame) for number in numbers]
            [picture] = pictures.images(frame, frame + 1)
            embedding = ImageEmbedding(engine.encode([picture.image_3SS])[0], source.height, source.width)
            anew = batch_size.run(here, partial(self._segment, embedding))
            for number, mask, other in zip(numbers, here, anew, strict=True):
                ious.setdefault(number, []).append(float(iou([other], [mask])[0, 0]))
            on_frame()
        return {number: float(np.mean(values)) for number, values in ious.items()}

    @torch.inference_mode()
    def _segment(self, embedding: ImageEmbedding, masks: Sequence[Rle]) -> Iterator[Rle]:
        """What the model sees in a picture where a mask's box and centre point to."""
        prompts = [_centre_and_box(mask) for mask in masks]
        points, labels = np.stack([point for point, _ in prompts])[:, None], np.ones((len(prompts), 1), np.int64)
        tokens = prompt_points(self.model, embedding, points, labels, np.stack([box for _, box in prompts]))
        decoded = decode_prompts(self.model, embedding, *tokens, None)
        drawn = draw_masks(self.model, embedding, decoded, self.tracking.decoding, multimask=False).masks()[:, 0]
        for rle in encode_columns(drawn.transpose(1, 2).contiguous().to(torch.uint8).cpu().numpy()):
            yield clean(rle, self.clean)


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a masklet is visible: first and last frame, and the one nearest to its prompt."""

    masklet_id: int
    first: int
    anchor: int
    last: int


class HeldMasks:
    """A `MaskStore` of masklets that are in memory."""

    def __init__(self, masklets: Sequence[Masklet]) -> None:
        self._masklets = {masklet.masklet_id: masklet for masklet in masklets}
        self._masks = {n: {frame.frame_index: frame.rle for frame in one.frames} for n, one in self._masklets.items()}

    def visible_frames(self, masklet_id: int) -> np.ndarray:
        return np.array([frame for frame, rle in self._masks[masklet_id].items() if rle.area], np.int64)

    def mask(self, masklet_id: int, frame_index: int) -> Rle:
        return self._masks[masklet_id][frame_index]

    def measures(self, masklet_id: int) -> dict[str, Any]:
        return measure(self._masklets[masklet_id].frames)


def _span(seed: MaskletSeed, visible: np.ndarray) -> _Span | None:
    if not len(visible):
        return None
    anchor = visible[np.abs(visible - seed.prompt.frame_index).argmin()]
    return _Span(seed.masklet_id, int(visible[0]), int(anchor), int(visible[-1]))


def _looks(numbers: Sequence[int], masks: MaskStore, count: int) -> dict[int, list[int]]:
    """On which frames to look at which masklets again.

    That is on ``count`` frames spread over those on which anything is visible, the last among them, at all that are; and on
    the middle one of those of a masklet that is visible on none of these. Few frames for all, since each has to be encoded.
    """
    everywhere = np.zeros(0, np.int64)
    for number in numbers:
        everywhere = np.union1d(everywhere, masks.visible_frames(number))
    places = np.maximum(np.arange(1, count + 1) * len(everywhere) // count - 1, 0)
    chosen = np.unique(everywhere[places]) if len(everywhere) else everywhere
    looks: dict[int, list[int]] = {}
    for number in numbers:
        visible = masks.visible_frames(number)
        shared = np.intersect1d(visible, chosen)
        for frame in shared if len(shared) else visible[len(visible) // 2 :][:1]:
            looks.setdefault(int(frame), []).append(number)
    return dict(sorted(looks.items()))


def _centre_and_box(mask: Rle) -> tuple[np.ndarray, np.ndarray]:
    """The (x, y) of a mask's centre, and (x0, y0, x1, y1) of its outermost pixels, which are at least one pixel apart."""
    found = centre(decode(mask))
    assert found is not None, "only visible masks are looked at again"
    x, y, width, height = mask.bbox_xywh
    return np.array(found[:2], np.float32), np.array([x, y, x + max(width - 1, 1), y + max(height - 1, 1)], np.float32)


def _by_frame(journeys: Mapping[int, tuple[int, int]], end: int) -> dict[int, list[int]]:
    """The masklets that set out from (0), or arrive at (1), each frame."""
    found: dict[int, list[int]] = {}
    for number, journey in journeys.items():
        found.setdefault(journey[end], []).append(number)
    return found


def _chunks(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
