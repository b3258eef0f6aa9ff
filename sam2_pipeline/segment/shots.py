"""One shot on its way to masklets: a session that is walked forward, joined by objects as they appear, and then backward."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Protocol

from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.inputs import DecodedFrames
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult


class Births(Protocol):
    """Where the objects of a shot come from: `Discovery`, or `GivenPrompts`."""

    def is_due(self, frame: Frame) -> bool:
        """Whether there may be some on the frame; asked once about every frame of the shot, in order."""
        ...

    def give(self, session: PromptedSession[FrameResult], frame: Frame, present: FrameMasks, tracked: int) -> FrameResult | None:
        """Adds them to the session; its masks on the frame, if there were any."""
        ...


class GivenPrompts:
    """Objects that somebody prompted; the prompts' object ids are the masklets' numbers."""

    def __init__(self, prompts: Iterable[Prompt]):
        self._prompts: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            self._prompts.setdefault(prompt.frame_index, []).append(prompt)

    def is_due(self, frame: Frame) -> bool:
        return frame.index in self._prompts

    def give(self, session: PromptedSession[FrameResult], frame: Frame, present: FrameMasks, tracked: int) -> FrameResult | None:
        result = None
        for prompt in self._prompts[frame.index]:
            result = session.prompt(prompt)
        return result


class Shot:
    """Frames that one memory spans. Objects are numbered as their masklets.

    Attributes:
        start: its first frame.
        born: by object, the frame on which it was found or first prompted.
    """

    def __init__(self, session: PromptedSession[FrameResult], births: Births, start: int, lost_after_s: float | None = None):
        self.session, self.births, self.start = session, births, start
        self.born: dict[int, int] = {}
        self._lost_after_s = lost_after_s
        self._seen_s: dict[int, float] = {}  # when each object was last visible

    @property
    def frames(self) -> DecodedFrames:
        assert isinstance(self.session.frames, DecodedFrames)
        return self.session.frames

    def advance(self, frame: Frame, wanted: bool) -> FrameMasks:
        """Tracks the objects onto the shot's next frame (squeezed), and lets new ones join; their masks, if they are wanted.

        Lost objects rest, but when others are looked for, they are, too.
        """
        due = self.births.is_due(frame)
        awake = None if due or self._lost_after_s is None else self._awake(frame.timestamp_s)
        result = self.session.advance(self.frames.network_frame(frame), awake)
        self._note(result)
        nothing = FrameMasks(frame.index, frame.timestamp_s, {})
        masks = collect_frame(result) if (wanted or due) and result.object_ids else nothing
        if due:
            given = self.births.give(self.session, frame, masks, len(self._awake(frame.timestamp_s)))
            if given is not None:
                for object_id in given.object_ids:
                    self.born.setdefault(object_id, frame.index)
                self._note(given)
                self.session.settle()
                masks = collect_frame(given)
        resting = [object_id for object_id in self.born if object_id not in masks.masks]
        masks.masks.update(absent(frame.index, frame.timestamp_s, resting, self.frames).masks)
        return masks

    def backward(self) -> Iterator[FrameMasks]:
        """Walks back from the latest birth to the shot's start; masks of those objects that have not been born yet."""
        latest = max(self.born.values(), default=self.start)
        if latest == self.start:
            return
        for frame in self.frames.images(latest - 1, self.start, reverse=True):
            unborn = [object_id for object_id, born in self.born.items() if born > frame.index]
            yield collect_frame(self.session.advance(frame, unborn, reverse=True))

    def _note(self, result: FrameResult) -> None:
        if self._lost_after_s is None:
            return
        for object_id, score in zip(result.object_ids, result.object_score_N.tolist()):
            if score > 0:
                self._seen_s[object_id] = result.timestamp_s

    def _awake(self, now_s: float) -> list[int]:
        """The objects that have been visible not too long ago."""
        limit = self._lost_after_s
        return [i for i in self.born if limit is None or now_s - self._seen_s.get(i, now_s) <= limit]


class Annotated:
    """Numbers and times of the annotated frames so far, in order: sixteen bytes each."""

    def __init__(self) -> None:
        self._numbers, self._times = array("q"), array("d")

    def add(self, frame: Frame) -> None:
        self._numbers.append(frame.index)
        self._times.append(frame.timestamp_s)

    def __contains__(self, frame_index: int) -> bool:
        place = bisect_left(self._numbers, frame_index)
        return place < len(self._numbers) and self._numbers[place] == frame_index

    def __iter__(self) -> Iterator[tuple[int, float]]:
        """(number, time) of each."""
        return zip(self._numbers, self._times)


class Sized(Protocol):
    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


def absent(frame_index: int, timestamp_s: float, masklet_ids: Iterable[int], size: Sized) -> FrameMasks:
    """Empty masks of what is not there."""
    nothing = MaskletFrame(frame_index, timestamp_s, Rle.empty(size.height, size.width), 0.0, NO_OBJECT_LOGIT, 0.0, raw_area=0)
    return FrameMasks(frame_index, timestamp_s, dict.fromkeys(masklet_ids, nothing))
