"""Masklets of a whole video: seeds from the first frame or from prompts, each tracked to both ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sam2_pipeline.masklets.clean import CleanRules, clean_frame
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.masklets.verdict import Judgement, MaskStore
from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.automatic import GenerateOptions, propose_masks
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.judge import HeldMasks, Judge, JudgeOptions
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.video import VideoSegmenter


class MaskletGenerator:
    """Makes masklets: of everything on the first frame (SAM 2 paper, appendix D.1), or of prompted objects.

    >>> generator = MaskletGenerator(model)
    >>> for masklet in generator.generate(open_video("clip.mp4")):
    ...     print(masklet.masklet_id, len(masklet.frames))

    Args:
        model: the network.
        generate: how the first frame is searched.
        tracking: how objects are tracked.
        backward: objects whose first prompt comes later are tracked backward too, so that their masklets begin where they do.
        clean: what is too small to stay in a mask, or to stay a hole in it.
        judge: how masklets are judged once they are complete; None: they are not.
    """

    def __init__(
        self,
        model: Sam2,
        generate: GenerateOptions | None = None,
        tracking: TrackingOptions | None = None,
        *,
        backward: bool = True,
        clean: CleanRules | None = None,
        judge: JudgeOptions | None = None,
    ):
        self.model, self.generate_options, self.backward = model, generate or GenerateOptions(), backward
        self.clean, self.judge_options = clean or CleanRules(), judge
        # Nobody corrects a generator, so nothing is kept but what the next frame reads.
        self.tracking = replace(tracking or TrackingOptions(), history_frames=0)

    def stream(
        self, source: FrameSource, prompts: Sequence[Prompt] | None = None, *, annotate_fps: float | None = None
    ) -> MaskletStream:
        """Masks frame by frame in flat memory. ``annotate_fps``: every frame is tracked, so many a second are handed out."""
        return MaskletStream(self, source, prompts, annotate_fps)

    def generate(
        self,
        source: FrameSource,
        prompts: Sequence[Prompt] | None = None,
        *,
        video_id: str = "",
        annotate_fps: float | None = None,
    ) -> list[Masklet]:
        """All masklets of a video that fits in memory as run-length codes (about 1 KB a mask)."""
        stream = self.stream(source, prompts, annotate_fps=annotate_fps)
        frames: dict[int, list[MaskletFrame]] = {}
        for annotated in stream:
            for masklet_id, mask in annotated.masks.items():
                frames.setdefault(masklet_id, []).append(mask)
        masklets = [
            Masklet(video_id, seed, tuple(sorted(frames.get(seed.masklet_id, []), key=lambda mask: mask.frame_index)))
            for seed in stream.seeds
        ]
        judgements = self.judge(source, [masklet.seed for masklet in masklets], HeldMasks(masklets))
        return [replace(masklet, judgement=judgements.get(masklet.masklet_id)) for masklet in masklets]

    def judge(
        self, source: FrameSource, seeds: Sequence[MaskletSeed], masks: MaskStore, on_frame: Callable[[], None] = lambda: None
    ) -> dict[int, Judgement]:
        """Judges complete masklets, by their ids, as the options say; nothing without. See `Judge.judge`."""
        if self.judge_options is None:
            return {}
        return Judge(self.model, self.tracking, self.clean, self.judge_options).judge(source, seeds, masks, on_frame)


@dataclass
class MaskletStream:
    """One video on its way to masklets. Iterating does the work; every masklet gets one mask on every annotated frame.

    Attributes:
        seeds: what the masklets were tracked from; complete once iteration has begun.
    """

    generator: MaskletGenerator
    source: FrameSource
    prompts: Sequence[Prompt] | None
    annotate_fps: float | None

    def __post_init__(self) -> None:
        self.seeds: list[MaskletSeed] = []

    def __iter__(self) -> Iterator[FrameMasks]:
        segmenter = VideoSegmenter(self.generator.model, self.generator.tracking)
        session = segmenter.open(self.source)
        for frame in self._automatic(session) if self.prompts is None else self._prompted(session, self.prompts):
            yield clean_frame(frame, self.generator.clean, disjoint=self.generator.tracking.non_overlapping)

    # ------------------------------------------------------------------------------------------------------ automatic

    def _automatic(self, session: PromptedSession) -> Iterator[FrameMasks]:
        self._seed_first_frame(session)
        if not self.seeds:
            for frame in self._selected(self.source.frames(0)):
                yield FrameMasks(frame.index, frame.timestamp_s, {})
            return
        for result in self._selected(session.propagate(0)):
            yield collect_frame(result)

    def _seed_first_frame(self, session: PromptedSession) -> None:
        """Finds objects on the first frame; their masks become mask prompts, their grid points are kept as the seeds' prompts."""
        options = self.generator.generate_options
        first = next(iter(self.source.frames(0, 1)))
        found = [p for p in propose_masks(self.generator.model, first.image, options, session.options.decoding) if p.rle.area]
        for masklet_id, proposal in enumerate(found):
            point = np.array([proposal.point_xy], np.float32)
            self.seeds.append(MaskletSeed(masklet_id, "auto", Prompt(masklet_id, first.index, point, np.ones(1, np.int8))))
        batch = session.options.row_batch
        for start in range(0, len(found), batch):
            masks = np.stack([decode(p.rle) for p in found[start : start + batch]])
            session.add_masks(first.index, range(start, start + len(masks)), session.engine.mask_prompts(masks))

    # ------------------------------------------------------------------------------------------------------- prompted

    def _prompted(self, session: PromptedSession, prompts: Sequence[Prompt]) -> Iterator[FrameMasks]:
        """Forward from the first prompt; then backward, for the frames before each object's own first prompt."""
        first: dict[int, Prompt] = {}
        for prompt in sorted(prompts, key=lambda p: (p.object_id, p.frame_index)):
            first.setdefault(prompt.object_id, prompt)
            session.schedule(prompt)
        self.seeds = [MaskletSeed(n, "prompted", prompt, object_id) for n, (object_id, prompt) in enumerate(first.items())]
        number = {object_id: n for n, object_id in enumerate(first)}
        born = {object_id: prompt.frame_index for object_id, prompt in first.items()}
        if not first:
            for frame in self._selected(self.source.frames(0)):
                yield FrameMasks(frame.index, frame.timestamp_s, {})
            return
        earliest, latest = min(born.values()), max(born.values())
        if not self.generator.backward:
            for frame in self._selected(self.source.frames(0, earliest)):
                yield FrameMasks(frame.index, frame.timestamp_s, self._absent(frame.index, frame.timestamp_s, number.values()))
        for result in self._selected(session.propagate(earliest), self._timestamp_before(earliest)):
            masks = _renumber(collect_frame(result), number)
            if not self.generator.backward:
                unborn = [number[i] for i in born if born[i] > result.frame_index]
                masks.masks.update(self._absent(result.frame_index, result.timestamp_s, unborn))
            yield masks
        if self.generator.backward and latest:
            for result in self._selected_reverse(session.propagate(latest, reverse=True, skip_visited=True)):
                unborn = [i for i in born if born[i] > result.frame_index]
                if unborn:
                    yield _renumber(collect_frame(result, unborn), number)

    def _absent(self, frame_index: int, timestamp_s: float, masklet_ids: Iterable[int]) -> dict[int, MaskletFrame]:
        """Empty masks for masklets that have not begun."""
        empty = Rle.empty(self.source.height, self.source.width)
        return {n: MaskletFrame(frame_index, timestamp_s, empty, 0.0, NO_OBJECT_LOGIT, 0.0, raw_area=0) for n in masklet_ids}

    # ---------------------------------------------------------------------------------------------- which are annotated

    def _tick(self, timestamp_s: float) -> int:
        return math.floor(timestamp_s * (self.annotate_fps or 0) + 1e-6)

    def _selected(self, items: Iterable, before: float | None = None) -> Iterator:
        """The items (frames or results) to annotate: those in which a new period of ``annotate_fps`` begins."""
        for item in items:
            if self.annotate_fps is None or before is None or self._tick(item.timestamp_s) > self._tick(before):
                yield item
            before = item.timestamp_s

    def _selected_reverse(self, results: Iterable[FrameResult]) -> Iterator[FrameResult]:
        """The same choice when time runs backward: each result waits until the frame before it is seen."""
        waiting: FrameResult | None = None
        for result in results:
            if waiting is not None:
                yield from self._selected([waiting], before=result.timestamp_s)
            waiting = result
        if waiting is not None:
            yield waiting

    def _timestamp_before(self, frame_index: int) -> float | None:
        if self.annotate_fps is None or frame_index == 0:
            return None
        return next(iter(self.source.frames(frame_index - 1, frame_index))).timestamp_s


def _renumber(annotated: FrameMasks, number: dict[int, int]) -> FrameMasks:
    """Object ids become masklet ids."""
    masks = {number[object_id]: mask for object_id, mask in annotated.masks.items()}
    return FrameMasks(annotated.frame_index, annotated.timestamp_s, masks)
