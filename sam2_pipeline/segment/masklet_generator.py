"""Masklets of a whole video: of what is found, or of what was prompted, each tracked to both ends of its shot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.clean import CleanRules, clean_frame
from sam2_pipeline.masklets.frames import Frame, FrameSource
from sam2_pipeline.masklets.identity import IdentityOptions, identify_masklets
from sam2_pipeline.masklets.masklet import FrameMasks, Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.verdict import Judgement, MaskStore
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.cuts import CutOptions, mark_cuts
from sam2_pipeline.segment.discover import DiscoverOptions, Discovery
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.judge import HeldMasks, Judge, JudgeOptions
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.shots import Annotated, GivenPrompts, Shot, absent
from sam2_pipeline.segment.video import VideoSegmenter


class MaskletGenerator:
    """Makes masklets: of all that is on the first frame (SAM 2 paper, appendix D.1) or appears later, or of prompted objects.

    >>> generator = MaskletGenerator(model, discover=DiscoverOptions(every_s=1.0))
    >>> for masklet in generator.generate(open_video("clip.mp4")):
    ...     print(masklet.masklet_id, len(masklet.frames))

    Args:
        model: the network.
        generate: how a frame is searched; by default with the thresholds that suit the model.
        tracking: how objects are tracked.
        backward: objects that are found or first prompted later are tracked backward too, so that their masklets begin where they
            do.
        discover: when objects are looked for again; by default on the first frame only.
        cuts: how shot changes are found, at which masklets end; None: the whole video is one shot.
        identity: how `generate` tells duplicates and parts (a `stream` gives all there is). None: not at all.
        lost_after_s: objects that were found, but have not been visible for so many seconds, are tracked on keyframes only until
            they are visible again. None: on every frame.
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
        discover: DiscoverOptions | None = None,
        cuts: CutOptions | None = None,
        identity: IdentityOptions | None = None,
        lost_after_s: float | None = None,
        clean: CleanRules | None = None,
        judge: JudgeOptions | None = None,
    ):
        self.discover, self.cuts, self.identity, self.lost_after_s = discover or DiscoverOptions(), cuts, identity, lost_after_s
        if lost_after_s is not None and self.discover.every_s is None:
            raise ConfigError("lost_after_s needs discover.every_s: lost objects are looked for when others are")
        self.model, self.generate_options = model, generate or GenerateOptions.for_model(model.config)
        self.backward = backward
        self.clean, self.judge_options = clean or CleanRules(), judge
        # Nobody corrects a generator, so nothing is kept but what the next frame reads.
        self.tracking = replace(tracking or TrackingOptions(), history_frames=0)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) to which it squeezes the frames that it asks a source for."""
        return self.model.config.image_size, self.model.config.image_size

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
        if self.identity is not None:
            masklets = identify_masklets(masklets, self.identity)
        judgements = self.judge(source, [masklet.seed for masklet in masklets], HeldMasks(masklets))
        return [replace(masklet, judgement=judgements.get(masklet.masklet_id)) for masklet in masklets]

    def find_cuts(self, source: FrameSource) -> list[int] | None:
        """The frames with which shots begin, but for the first; None where shots are not looked for."""
        if self.cuts is None:
            return None
        return [frame.index for frame, cut in mark_cuts(self._frames(source), self.cuts) if cut]

    def _frames(self, source: FrameSource) -> Iterable[Frame]:
        """The frames as the network takes them."""
        side = self.model.config.image_size
        return source.frames(0, size=(side, side))

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
        seeds: what the masklets were tracked from; complete when the iteration has ended.
        shot_count: shots of the video so far; None where cuts are ignored.
    """

    generator: MaskletGenerator
    source: FrameSource
    prompts: Sequence[Prompt] | None
    annotate_fps: float | None

    def __post_init__(self) -> None:
        self.seeds: list[MaskletSeed] = []
        self.shot_count: int | None = None

    def __iter__(self) -> Iterator[FrameMasks]:
        for frame in self._raw():
            yield clean_frame(frame, self.generator.clean, disjoint=self.generator.tracking.non_overlapping)

    def _raw(self) -> Iterator[FrameMasks]:
        """The masks as they were tracked."""
        if self.prompts is not None:
            self.seeds = _seeds_of(self.prompts)
        if self.prompts is None or self.generator.cuts is not None:
            return self._in_shots()
        return self._prompted(self._open(), self.prompts)

    def _open(self) -> PromptedSession[FrameResult]:
        return VideoSegmenter(self.generator.model, self.generator.tracking).open(self.source)

    # ---------------------------------------------------------------------------------------------------- shot by shot

    def _in_shots(self) -> Iterator[FrameMasks]:
        """Forward through each shot; then backward, for the frames before each object's birth."""
        annotated, before = Annotated(), None
        shot: Shot | None = None
        for frame, cut in self._frames():
            if shot is None or cut:
                if shot is not None:
                    yield from self._complete(shot, annotated)
                shot = self._begin_shot(frame.index)
            wanted = self._is_due(frame.timestamp_s, before)
            masks = shot.advance(frame, wanted)
            if wanted:
                annotated.add(frame)
                yield masks
            before = frame.timestamp_s
        if shot is not None:
            yield from self._complete(shot, annotated)

    def _frames(self) -> Iterator[tuple[Frame, bool]]:
        """The frames as the network takes them, and whether a cut lies before each."""
        frames, cuts = self.generator._frames(self.source), self.generator.cuts
        return ((frame, False) for frame in frames) if cuts is None else mark_cuts(frames, cuts)

    def _begin_shot(self, start: int) -> Shot:
        number = None if self.generator.cuts is None else self.shot_count or 0
        self.shot_count = None if number is None else number + 1
        session = self._open()
        if self.prompts is None:
            generate, discover = self.generator.generate_options, self.generator.discover
            discovery = Discovery(self.generator.model, self.source, generate, discover, self.seeds, number)
            return Shot(session, discovery, start, self.generator.lost_after_s)
        for prompt in self.prompts:
            session.check(prompt)
        numbers = {seed.object_id: seed.masklet_id for seed in self.seeds}
        return Shot(session, GivenPrompts(replace(one, object_id=numbers[one.object_id]) for one in self.prompts), start)

    def _complete(self, shot: Shot, annotated: Annotated) -> Iterator[FrameMasks]:
        """The masks that were not there yet when the shot was walked through: before births, and of what is in other shots."""
        if self.generator.backward:
            yield from (masks for masks in shot.backward() if masks.frame_index in annotated)
        if self.shot_count is not None:
            here = [seed.masklet_id in shot.born and seed.shot_index is None for seed in self.seeds]
            number = self.shot_count - 1
            self.seeds[:] = [replace(seed, shot_index=number) if new else seed for seed, new in zip(self.seeds, here)]
        found = list(shot.born) if self.prompts is None else []  # what is prompted has been known from the beginning
        others = [seed.masklet_id for seed in self.seeds if seed.masklet_id not in shot.born]
        for index, timestamp_s in annotated:
            missing = found if index < shot.start else others
            if not self.generator.backward and index >= shot.start:
                missing = others + [masklet_id for masklet_id, born in shot.born.items() if born > index]
            if missing:
                yield absent(index, timestamp_s, missing, self.source)

    # ---------------------------------------------------------------------------------------- prompted, cuts ignored

    def _prompted(self, session: PromptedSession[FrameResult], prompts: Sequence[Prompt]) -> Iterator[FrameMasks]:
        """Forward from the first prompt; then backward, for the frames before each object's own first prompt."""
        for prompt in _in_order(prompts):
            session.schedule(prompt)
        number = {object_id: seed.masklet_id for seed in self.seeds if (object_id := seed.object_id) is not None}
        born = {object_id: self.seeds[n].prompt.frame_index for object_id, n in number.items()}
        if not born:
            for frame in self._selected(self.source.frames(0)):
                yield FrameMasks(frame.index, frame.timestamp_s, {})
            return
        earliest, latest = min(born.values()), max(born.values())
        if not self.generator.backward:
            for frame in self._selected(self.source.frames(0, earliest)):
                yield absent(frame.index, frame.timestamp_s, number.values(), self.source)
        for result in self._selected(session.propagate(earliest), self._timestamp_before(earliest)):
            masks = _renumber(collect_frame(result), number)
            if not self.generator.backward:
                unborn = [number[i] for i in born if born[i] > result.frame_index]
                masks.masks.update(absent(result.frame_index, result.timestamp_s, unborn, self.source).masks)
            yield masks
        if self.generator.backward and latest:
            for result in self._selected_reverse(session.propagate(latest, reverse=True, skip_visited=True)):
                unborn = [i for i in born if born[i] > result.frame_index]
                if unborn:
                    yield _renumber(collect_frame(result, unborn), number)

    # ----------------------------------------------------------------------------------------- which frames are annotated

    def _tick(self, timestamp_s: float) -> int:
        return math.floor(timestamp_s * (self.annotate_fps or 0) + 1e-6)

    def _is_due(self, timestamp_s: float, before: float | None) -> bool:
        """Whether a new period of ``annotate_fps`` begins with the frame, which comes after the one at ``before``."""
        return self.annotate_fps is None or before is None or self._tick(timestamp_s) > self._tick(before)

    def _selected(self, items: Iterable, before: float | None = None) -> Iterator:
        """The items (frames or results) to annotate."""
        for item in items:
            if self._is_due(item.timestamp_s, before):
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


def _in_order(prompts: Iterable[Prompt]) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: (prompt.object_id, prompt.frame_index))


def _seeds_of(prompts: Iterable[Prompt]) -> list[MaskletSeed]:
    """A masklet for every object that has prompts, with its first one."""
    first: dict[int, Prompt] = {}
    for prompt in _in_order(prompts):
        first.setdefault(prompt.object_id, prompt)
    return [MaskletSeed(number, "prompted", prompt, object_id) for number, (object_id, prompt) in enumerate(first.items())]


def _renumber(annotated: FrameMasks, number: dict[int, int]) -> FrameMasks:
    """Object ids become masklet ids."""
    masks = {number[object_id]: mask for object_id, mask in annotated.masks.items()}
    return FrameMasks(annotated.frame_index, annotated.timestamp_s, masks)
