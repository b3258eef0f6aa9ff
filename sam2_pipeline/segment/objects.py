"""What a session knows of one object: its prompts, its memory, and where it has been."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sam2_pipeline.model.memory_bank import FrameRecord, MemoryBank


class Visits:
    """The frames that were walked through, and in which direction; a few runs, however many frames. The last word counts."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int, bool | None]] = []  # lowest and highest frame, reverse (None: taken back)

    def add(self, frame: int, reverse: bool) -> None:
        if self._runs:
            low, high, run_reverse = self._runs[-1]
            if run_reverse is reverse and low - 1 <= frame <= high + 1:
                self._runs[-1] = (min(low, frame), max(high, frame), reverse)
                return
        self._runs.append((frame, frame, reverse))

    def discard(self, frame: int) -> None:
        self._runs.append((frame, frame, None))

    def forget(self, before: int) -> None:
        """Forgets the runs that end before a frame."""
        self._runs = [run for run in self._runs if run[1] >= before]

    def frames(self) -> dict[int, int]:
        """Direction of every visited frame."""
        numbers = {frame for low, high, _ in self._runs for frame in range(low, high + 1)}
        return {frame: way for frame in sorted(numbers) if (way := self.direction(frame)) is not None}

    def direction(self, frame: int) -> int | None:
        """+1 or -1, None where the frame was not visited."""
        for low, high, reverse in reversed(self._runs):
            if low <= frame <= high:
                return None if reverse is None else -1 if reverse else 1
        return None


@dataclass(slots=True)
class TrackedObject:
    """One object of a session.

    ``points`` are kept as the network takes them (pixels of the S x S input), by frame; of mask prompts only the frames are
    known, the masks are large and never asked for again. ``pending_*`` hold results of prompts whose
    memories have not been encoded yet: the user may still refine them.
    """

    object_id: int
    points: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    masked_frames: set[int] = field(default_factory=set)
    bank: MemoryBank = field(default_factory=MemoryBank)
    pending_prompted: dict[int, FrameRecord] = field(default_factory=dict)
    pending_tracked: dict[int, FrameRecord] = field(default_factory=dict)
    visits: Visits = field(default_factory=Visits)

    @property
    def prompted_frames(self) -> list[int]:
        """The frames that hold prompts of any kind, in order."""
        return sorted({*self.points, *self.masked_frames})

    def pending(self, conditioning: bool) -> dict[int, FrameRecord]:
        return self.pending_prompted if conditioning else self.pending_tracked

    def shown(self, frame: int, conditioning: bool) -> FrameRecord | None:
        """The newest result on ``frame``: a pending one of the given kind, else what is remembered."""
        return self.pending(conditioning).get(frame) or self.bank.record(frame)

    def is_behind(self, frame: int, direction: int) -> bool:
        """Whether a conditioning frame lies at or behind ``frame`` in the direction of travel."""
        return any((frame - prompted) * direction >= 0 for prompted in self.bank.prompted)

    def settle(self) -> list[int]:
        """Moves pending results into the memory; gives their frames."""
        frames = [*self.pending_tracked, *self.pending_prompted]
        self.bank.tracked.update(self.pending_tracked)
        self.bank.prompted.update(self.pending_prompted)
        self.pending_tracked.clear()
        self.pending_prompted.clear()
        for frame in self.bank.prompted:
            self.bank.tracked.pop(frame, None)
        return frames

    def clear_prompts(self, frame: int) -> None:
        """Forgets the prompts of ``frame``; its remembered result stays, as that of an ordinary frame."""
        self.masked_frames.discard(frame)
        for store in (self.points, self.pending_prompted, self.pending_tracked):
            store.pop(frame, None)
        record = self.bank.prompted.pop(frame, None)
        if record is not None:
            self.bank.tracked[frame] = record
            self.visits.discard(frame)

    def forget_prompts(self, before: int, most: int) -> None:
        """For streams without an end: prompts before frame ``before`` can no longer be refined, and of the conditioning frames
        the first and the ``most - 1`` latest stay such."""
        self.points = {frame: points for frame, points in self.points.items() if frame >= before}
        self.masked_frames = {frame for frame in self.masked_frames if frame >= before}
        self.visits.forget(before)
        prompted = sorted(self.bank.prompted)
        for frame in prompted[1 : 1 + max(len(prompted) - most, 0)]:
            self.bank.tracked[frame] = self.bank.prompted.pop(frame)
