"""Protocols on one video, and on a set of them, several videos at a time."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.evaluation.parallel import each
from sam2_pipeline.evaluation.result import Failure
from sam2_pipeline.evaluation.scores import VideoScore, score_video
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.pipeline.factory import ModelFactory
from sam2_pipeline.protocols.clips import TrueClips
from sam2_pipeline.protocols.interactive import Effort, offline, online
from sam2_pipeline.protocols.late import Discovered, discovered
from sam2_pipeline.protocols.prompted import Played, play
from sam2_pipeline.protocols.prompting import TrueObject, true_objects, visible_at_first
from sam2_pipeline.protocols.scenery import on_scenery
from sam2_pipeline.protocols.shots import ShotScore, score_shots
from sam2_pipeline.protocols.verdicts import JudgedMasklet, judged
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.video import VideoSegmenter

AUTOMATIC = "automatic"
NAMES = "mask, box, click, clicks-N, offline, online, automatic"
_CLICKS = re.compile(r"click|clicks-([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class Round:
    """Scores of one video after some interaction, with the prompts that its objects got until then, by object id.

    Of a video without prompts: ``discovered``, what was made of its late objects, ``shots``, what of its shot changes, where
    they are known, ``judged``, its masklets where they are judged, and ``on_scenery``, how many are of no object and not wrong.
    """

    score: VideoScore
    clicks: dict[int, int] = field(default_factory=dict)
    frames: dict[int, int] = field(default_factory=dict)
    judged: tuple[JudgedMasklet, ...] = ()
    discovered: Discovered | None = None
    shots: ShotScore | None = None
    on_scenery: int = 0


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One video: of every protocol its rounds, of which the offline protocol has several, the others one."""

    video_id: str
    rounds: dict[str, tuple[Round, ...]]


@dataclass(frozen=True)
class Trial:
    """What to play, on what, and how it counts. Picklable: a process loads the model when its first video comes.

    Attributes:
        protocols: names, see `check_protocol`.
        effort: of the interactive protocols.
        min_area: an object's first frame is the first on which it covers this share of the picture.
        keep_first_and_last: of each object, its prompted first frame and its last count, too. Automatic masklets have no
            prompted frame: there all frames count.
    """

    clips: TrueClips
    protocols: tuple[str, ...]
    factory: ModelFactory
    effort: Effort
    min_area: float = 0.0
    keep_first_and_last: bool = False

    def __post_init__(self) -> None:
        for name in self.protocols:
            check_protocol(name)
        if not 0 <= self.min_area < 1:
            raise ConfigError(f"the smallest area is {self.min_area}, expected a share of the picture from 0 to below 1")

    @cached_property
    def generator(self) -> MaskletGenerator:
        # With more threads sums come in another order, and the figures would depend on how many processes there are.
        generator, _ = self.factory.build(threads=1)
        assert isinstance(generator, MaskletGenerator)
        return generator

    @cached_property
    def segmenter(self) -> VideoSegmenter:
        # A generator forgets at once, since nobody corrects it; here somebody does.
        tracking = replace(self.generator.tracking, history_frames=TrackingOptions().history_frames)
        return VideoSegmenter(self.generator.model, tracking)

    def __call__(self, video_id: str) -> ClipResult | Failure:
        try:
            truth = self.clips.read(video_id)
            with self.clips.open(video_id) as frames:
                _check(truth, frames)
                return ClipResult(video_id, {name: self._play(name, video_id, truth, frames) for name in self.protocols})
        except VideoError as error:
            return Failure(video_id, str(error))

    def _play(self, name: str, video_id: str, truth: Masks, frames: FrameSource) -> tuple[Round, ...]:
        if name == AUTOMATIC:
            return (self._play_automatic(video_id, truth, frames),)
        objects = true_objects(truth, self.min_area)
        if not objects:
            return (Round(VideoScore(video_id, (), len(truth), 0)),)
        true = {one.object_id: dict(one.masks) for one in objects}
        rounds = []
        for played in self._played(name, frames, objects):
            score = score_video(video_id, played.masks, true, keep_first_and_last=self.keep_first_and_last)
            score = replace(score, left_aside=len(truth) - len(score.objects))
            clicks = {number: sum(len(prompt.points_xy) for prompt in prompts) for number, prompts in played.prompts.items()}
            prompted = {number: len({prompt.frame_index for prompt in prompts}) for number, prompts in played.prompts.items()}
            rounds.append(Round(score, clicks, prompted, self._judged(name, frames, played, truth)))
        return tuple(rounds)

    def _judged(self, name: str, frames: FrameSource, played: Played, truth: Masks) -> tuple[JudgedMasklet, ...]:
        """The verdicts on the masklets that a run would make from these prompts, which all are on objects' first frames."""
        if self.generator.judge_options is None or name in ("offline", "online"):
            return ()
        prompts = [prompt for of_object in played.prompts.values() for prompt in of_object]
        return judged(self.generator.generate(frames, _joined(prompts)), truth)

    def _played(self, name: str, frames: FrameSource, objects: Sequence[TrueObject]) -> Iterator[Played]:
        if name == "offline":
            yield from offline(self.segmenter, frames, objects, self.effort)
        elif name == "online":
            yield online(self.segmenter, frames, objects, self.effort)
        elif name in ("mask", "box"):
            yield play(self.segmenter, frames, objects, name, 0)  # type: ignore[arg-type]
        else:
            yield play(self.segmenter, frames, objects, "clicks", check_protocol(name))

    def _play_automatic(self, video_id: str, truth: Masks, frames: FrameSource) -> Round:
        """Masklets are matched with all true objects; those that are visible at the start are the ones to be found. Those that
        are late count apart. What fits scenery is neither spurious nor judged."""
        masklets = self.generator.generate(frames)
        found = {one.masklet_id: {frame.frame_index: frame.rle for frame in one.frames} for one in masklets}
        aside = on_scenery(found, truth, self.clips.scenery(video_id))
        score = score_video(video_id, found, truth, match="hungarian")
        wanted = visible_at_first(truth, self.min_area)
        objects = tuple(one for one in score.objects if one.object_id in wanted)
        late = discovered(found, truth, score.objects, self.min_area)
        # None of those stands for an object: half of its mask is elsewhere.
        spurious = (score.spurious or 0) - len(aside)
        score = replace(score, objects=objects, left_aside=len(truth) - len(objects), spurious=spurious)
        changes = self.clips.changes(video_id)
        shots = None if changes is None else score_shots(found, changes, self.generator.find_cuts(frames))
        verdicts = judged([one for one in masklets if one.masklet_id not in aside], truth)
        return Round(score, discovered=late, shots=shots, judged=verdicts, on_scenery=len(aside))


def check_protocol(name: str) -> int:
    """The clicks of ``click`` and ``clicks-N``, 0 for the other protocols.

    Raises:
        ConfigError: there is no such protocol.
    """
    if name in ("mask", "box", "offline", "online", AUTOMATIC):
        return 0
    match = _CLICKS.fullmatch(name)
    if match is None:
        raise ConfigError(f"unknown protocol {name!r}, expected one of {NAMES}")
    return int(match[1] or 1)


def play_all(
    trial: Trial, workers: int = 1, on_video: Callable[[int, int], None] = lambda done, total: None
) -> list[ClipResult | Failure]:
    """All videos, in the order of their names. ``on_video`` is told after every video how many are done, and of how many."""
    ids = trial.clips.video_ids
    results = []
    for done, result in enumerate(each(trial, ids, workers), 1):
        results.append(result)
        on_video(done, len(ids))
    return sorted(results, key=lambda result: result.video_id)


def _joined(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Clicks on one object and frame as one prompt: where a run finds several, the last one counts."""
    found: dict[tuple[int, int], Prompt] = {}
    for prompt in prompts:
        key = prompt.object_id, prompt.frame_index
        if key in found:
            points = np.concatenate((found[key].points_xy, prompt.points_xy))
            prompt = replace(prompt, points_xy=points, point_labels=np.append(found[key].point_labels, prompt.point_labels))
        found[key] = prompt
    return list(found.values())


def _check(truth: Masks, frames: FrameSource) -> None:
    """Raises `VideoError` unless the masks are of this video's size and length."""
    for object_id, masks in truth.items():
        for frame, mask in masks.items():
            if (mask.height, mask.width) != (frames.height, frames.width):
                sizes = f"is {mask.height}x{mask.width}, the video {frames.height}x{frames.width} (height x width)"
                raise VideoError(f"the true mask of object {object_id} on frame {frame} {sizes}, expected the same")
            if frames.num_frames is not None and frame >= frames.num_frames:
                raise VideoError(f"object {object_id} has a true mask on frame {frame}, the video has {frames.num_frames} frames")
