"""What a tracked object remembers, and which of it is read on a given frame (SAM 2 paper, section 4 "Memory bank").

Frames are numbered as in the video and time has a direction, +1 or -1; the age of a frame is ``(now - frame) * direction``.
`plan_reading` is plain arithmetic on frame numbers. No torch here: an ``Array`` is a tensor, or
what else the networks are run with.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, SupportsFloat, TypeVar

from sam2_pipeline.errors import ConfigError

NUM_RECENT = 6  # tracked frames whose maps are read
MAX_POINTERS = 16  # horizon of object pointers, counted with the current frame
CONDITIONING = NUM_RECENT  # row of the temporal encoding that all conditioning frames share; rows 0..5 are ages 1..6

Array = TypeVar("Array", bound=SupportsFloat)


@dataclass(slots=True)
class FrameRecord(Generic[Array]):
    """Result and memory of one object on one frame.

    Attributes:
        logits_HW: mask logits ``[S/4, S/4]``, float32; None once forgotten.
        predicted_iou, object_score: scalars as 0-d float32 arrays.
        pointer_D: object pointer ``[D]``.
        memory_TC: remembered map ``[T, C]``, bfloat16; None until it has been encoded, and once forgotten.
        sure: what `is_sure` answered, which waits for the device; None before it was asked.
    """

    logits_HW: Array | None
    predicted_iou: Array
    object_score: Array
    pointer_D: Array
    memory_TC: Array | None = None
    sure: bool | None = None

    def is_sure(self, min_iou: float) -> bool:
        """Whether the object was seen, and its mask is thought to be as good as that; the first answer stays."""
        if self.sure is None:
            self.sure = float(self.object_score) > 0 and float(self.predicted_iou) >= min_iou
        return self.sure

    def __repr__(self) -> str:
        return f"FrameRecord(object_score={float(self.object_score):.2f}, remembered={self.memory_TC is not None})"


@dataclass(slots=True)
class MemoryBank(Generic[Array]):
    """Everything one object remembers: ``prompted`` (conditioning) frames for ever, ``tracked`` frames while they can be read."""

    prompted: dict[int, FrameRecord[Array]] = field(default_factory=dict)
    tracked: dict[int, FrameRecord[Array]] = field(default_factory=dict)

    def record(self, frame: int) -> FrameRecord[Array] | None:
        """What is known of ``frame``; a prompt's result wins over a tracked one."""
        return self.prompted.get(frame) or self.tracked.get(frame)

    def plan(self, now: int, direction: int, video_length: int | None, rules: MemoryRules) -> ReadingPlan:
        """What this object reads on frame ``now``, see `plan_reading`."""
        mapped = [frame for frame, record in self.tracked.items() if record.memory_TC is not None]
        if (least := rules.min_iou) is not None:
            mapped = [frame for frame in mapped if frame == now - direction or self.tracked[frame].is_sure(least)]
        return plan_reading(list(self.prompted), self.tracked, now, direction, video_length, rules, mapped)

    def forget_far_from(self, frame: int, *, shown: int, read: int, pointers: int, min_iou: float | None = None) -> None:
        """Keeps memory flat on videos of any length.

        Tracked frames further than ``shown`` from ``frame`` lose their logits, those further than ``read`` their map, and those
        further than ``pointers``, too, their pointer. With ``min_iou``, the nearest frames that are sure, on either side, keep
        their maps.
        """
        kept: list[int] = []
        if min_iou is not None:
            sure = sorted(n for n, record in self.tracked.items() if record.memory_TC is not None and record.is_sure(min_iou))
            kept = [n for n in sure if n <= frame][-NUM_RECENT:] + [n for n in sure if n > frame][:NUM_RECENT]
        for other, record in list(self.tracked.items()):
            distance = abs(other - frame)
            if distance > shown:
                record.logits_HW = None
            if distance > read and other not in kept:
                record.memory_TC = None
            if distance > max(shown, read, pointers) and other not in kept:
                del self.tracked[other]


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """Which memories are read. The defaults are the released behaviour (reference: ``SAM2Base`` arguments).

    Attributes:
        max_conditioning_frames: how many prompted frames are read as such; -1 is all, otherwise at least 2.
        stride: distance between the recent frames that are read, the adjacent one aside.
        only_past_pointers: pointers of prompted frames that lie ahead are not read.
        min_iou: besides the adjacent frame, only frames on which the object was seen, with a predicted IoU of at least this,
            are read as recent ones, however long ago that was, back to the last prompt (SAMURAI, arXiv 2411.11922, without its
            motion score), so that something is left of what was hidden for long. Up to six maps more are held for it, in each
            direction that was walked. None: the frames before, whatever they showed.
    """

    max_conditioning_frames: int = -1
    stride: int = 1
    only_past_pointers: bool = True
    min_iou: float | None = None

    def __post_init__(self) -> None:
        if self.max_conditioning_frames != -1 and self.max_conditioning_frames < 2:
            raise ConfigError(f"max_conditioning_frames is {self.max_conditioning_frames}, expected -1 (all) or at least 2")
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}, expected at least 1")
        if self.min_iou is not None and not 0 <= self.min_iou <= 1:
            raise ConfigError(f"min_iou is {self.min_iou}, expected None or 0 to 1")
        if self.min_iou is not None and self.stride != 1:
            raise ConfigError(f"min_iou is {self.min_iou} and stride {self.stride}, expected one of them alone")

    @property
    def map_horizon(self) -> int:
        """How far behind the current frame a tracked map is still read."""
        return NUM_RECENT * self.stride + 1


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """What one object reads on one frame, in the order in which it is laid out.

    Attributes:
        maps: (frame, row of the temporal encoding) of each remembered map.
        pointers: (frame, age) of each object pointer.
        pointer_span: the age that the pointers' time encoding calls 1.
    """

    maps: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]
    pointer_span: int

    @property
    def signature(self) -> tuple[int, int]:
        """Rows with equal signatures can share a batch."""
        return len(self.maps), len(self.pointers)


def closest_conditioning_frames(now: int, frames: Sequence[int], limit: int) -> tuple[list[int], list[int]]:
    """(selected, others): the nearest frame behind, the nearest at or ahead, then the nearest of the rest, up to ``limit``."""
    if limit == -1 or len(frames) <= limit:
        return list(frames), []
    selected = [max((f for f in frames if f < now), default=None), min((f for f in frames if f >= now), default=None)]
    chosen = [f for f in selected if f is not None]
    rest = sorted((f for f in frames if f not in chosen), key=lambda f: abs(f - now))
    chosen += rest[: limit - len(chosen)]
    return chosen, [f for f in frames if f not in chosen]


def recent_frames(now: int, direction: int, stride: int) -> list[tuple[int, int]]:
    """(frame, age rank 6..1) of the recent frames that a full memory would hold, oldest first."""
    wanted = []
    for rank in range(NUM_RECENT, 0, -1):
        if rank == 1:
            frame = now - direction
        elif direction > 0:
            frame = (now - 2) // stride * stride - (rank - 2) * stride
        else:
            frame = math.ceil((now + 2) / stride) * stride + (rank - 2) * stride
        wanted.append((frame, rank))
    return wanted


def latest_frames(now: int, direction: int, held: Collection[int], prompted: Collection[int]) -> list[tuple[int, int]]:
    """(frame, age rank, at most 6..1) of the last frames behind that are held, oldest first.

    However long ago they were, but since the last prompt behind: what lies beyond it may be of another walk, and of another time.
    """
    since = min((age for frame in prompted if (age := (now - frame) * direction) > 0), default=0)
    ages = sorted(age for frame in held if 0 < (age := (now - frame) * direction) <= max(since, NUM_RECENT))
    return [(now - age * direction, rank) for rank, age in enumerate(ages[:NUM_RECENT], 1)][::-1]


def plan_reading(
    prompted: Sequence[int],
    tracked: Collection[int],
    now: int,
    direction: int,
    video_length: int | None,
    rules: MemoryRules,
    mapped: Collection[int] | None = None,
) -> ReadingPlan:
    """Chooses memories for frame ``now``.

    ``prompted`` is in the order in which the prompts came; ``mapped`` are the tracked frames whose map is still held (all,
    if None); ``video_length`` None means a stream without an end.
    """
    # Conditioning frames that are not selected serve as ordinary ones.
    selected, others = closest_conditioning_frames(now, prompted, rules.max_conditioning_frames)
    mapped = tracked if mapped is None else mapped
    if rules.min_iou is None:
        recent = recent_frames(now, direction, rules.stride)
    else:
        recent = latest_frames(now, direction, {*mapped, *others}, prompted)
    maps = [(frame, CONDITIONING) for frame in selected]
    maps += [(frame, rank - 1) for frame, rank in recent if frame in mapped or frame in others]

    def age(frame: int) -> int:
        return (now - frame) * direction

    horizon = MAX_POINTERS if video_length is None else min(video_length, MAX_POINTERS)
    pointers = [(frame, age(frame)) for frame in selected if age(frame) >= 0 or not rules.only_past_pointers]
    for distance in range(1, horizon):
        frame = now - direction * distance
        if frame < 0 or (video_length is not None and frame >= video_length):
            break
        if frame in tracked or frame in others:
            pointers.append((frame, distance))
    # A video of one frame has span 0; the reference divides by it and loses the object.
    return ReadingPlan(tuple(maps), tuple(pointers), max(horizon - 1, 1))
