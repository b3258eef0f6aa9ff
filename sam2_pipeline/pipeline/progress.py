"""How a run shows what it does: a bar on a terminal, a line every ten seconds without one, or JSON lines."""

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from sam2_pipeline.masklets.work import weigher

if TYPE_CHECKING:
    from sam2_pipeline.pipeline.actor import Outcome, Task

Style = Literal["auto", "json", "quiet"]
LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands. ``done`` counts every video with a committed row, failed ones too and those of earlier runs."""

    done: int
    failed: int
    total: int
    frames: int
    elapsed_s: float
    frames_per_s: float
    eta_s: float | None

    def line(self) -> str:
        percent = 100 * self.done / self.total if self.total else 100.0
        text = f"{self.done}/{self.total} videos ({percent:.0f}%), {self.failed} failed, {self.frames} frames"
        if not self.frames and self.done < self.total:
            return f"{text}, starting for {format_duration(self.elapsed_s)}"
        return f"{text}, {format_speed(self.frames_per_s)}, {format_eta(self.eta_s)}"


class Tracker:
    """Counts what is done, weighted by frames or bytes, so that the ETA of a run of unequal videos is not a guess by count."""

    def __init__(self, tasks: "Sequence[Task]", *, done: int = 0, failed: int = 0) -> None:
        videos = [video for task in tasks for video in task.unit.videos]
        weigh = weigher(videos)
        self._weights = {video.video_id: weigh(video) for video in videos}
        self._units = {task.unit.unit_id: [video.video_id for video in task.unit.videos] for task in tasks}
        self._all = sum(self._weights.values())
        self._total = done + len(videos)
        self._done, self._failed, self._finished = done, failed, 0.0
        self._frames = 0
        self._lanes: dict[str, tuple[str, int, int | None]] = {}  # of this process, by name of the thread
        self._shares: dict[str, float] = {}  # of videos begun whose unit is not committed
        self._started = time.monotonic()
        self._first_frame: float | None = None
        self._lock = threading.Lock()

    def frame(self, video_id: str, done: int, total: int | None) -> None:
        """One frame of a video is done, in this process."""
        with self._lock:
            self._frames += 1
            self._lanes[threading.current_thread().name] = (video_id, done, total)
            self._begin(list(self._lanes.values()))

    def look(self, frames: int, current: list[tuple[str, int, int | None]]) -> None:
        """What the workers of a cluster have done so far."""
        with self._lock:
            self._frames = max(frames, self._frames)
            self._begin(current)

    def _begin(self, current: "Sequence[tuple[str, int, int | None]]") -> None:
        """Videos that workers are at; those that they were at before are done, but for the commit of their unit."""
        if current and self._first_frame is None:
            self._first_frame = time.monotonic()
        for video_id in self._shares:
            self._shares[video_id] = 1.0
        for video_id, done, total in current:
            if video_id in self._weights:
                self._shares[video_id] = min(done / total, 1.0) if total else 0.0

    def add(self, outcome: "Outcome") -> None:
        """A unit came back; only committed ones count as done."""
        with self._lock:
            if outcome.error is None:
                videos = self._units.pop(outcome.unit_id, [])
                self._done += len(videos)
                self._failed += len(outcome.failures)
                self._finished += sum(self._weights.pop(video_id) for video_id in videos)
                for video_id in videos:
                    self._shares.pop(video_id, None)

    def snapshot(self) -> Snapshot:
        with self._lock:
            now = time.monotonic()
            working = now - self._first_frame if self._first_frame else 0.0
            partly = sum(self._weights[video_id] * share for video_id, share in self._shares.items())
            share = (self._finished + partly) / self._all if self._all else 1.0
            eta = working * (1 - share) / share if share > 0 and working > 1 else None
            if self._done >= self._total:
                eta = 0.0
            speed = self._frames / working if working > 0 else 0.0
            return Snapshot(self._done, self._failed, self._total, self._frames, now - self._started, speed, eta)


class Reporter:
    """Says things on a stream (standard error by default): events, and progress while :meth:`watching`."""

    def __init__(self, style: Style = "auto", stream: TextIO | None = None) -> None:
        self.style = style
        self._stream = stream or sys.stderr
        self._bar: Any = None

    def say(self, event: str, message: str, *, important: bool = False, **fields: Any) -> None:
        """One line for a person, or the same as one JSON object. ``important`` ones are said in quiet mode too."""
        if self.style == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            print(json.dumps({"at": now, "event": event, "message": message} | fields), file=self._stream, flush=True)
        elif self.style != "quiet" or important:
            if self._bar is not None:
                self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
            else:
                print(message, file=self._stream, flush=True)

    def note(self, event: str, **fields: Any) -> None:
        """One JSON object for machines; nothing for a person, who would drown in them."""
        if self.style == "json":
            self.say(event, "", **fields)

    def watching(self, tracker: Tracker, refresh: Callable[[], None], beat: Callable[[Snapshot], None]) -> "Watch":
        """A context that shows progress: calls ``refresh`` before it looks at ``tracker``, and ``beat`` every ten seconds."""
        return Watch(self, tracker, refresh, beat)

    def _open_bar(self, total: int) -> None:
        if self.style == "auto" and self._stream.isatty():
            self._bar = _make_bar(self._stream, total)
            self._bar.start()

    def _show(self, snapshot: Snapshot, *, due: bool) -> None:
        if self._bar is not None:
            speed, eta = format_speed(snapshot.frames_per_s), format_eta(snapshot.eta_s)
            text = f"{snapshot.done}/{snapshot.total} videos  {snapshot.failed} failed  {speed}  {eta}"
            share = _shown_share(snapshot)
            self._bar.update(self._bar.task_ids[0], completed=share, text=text)
        elif due:
            self.say("progress", snapshot.line(), **asdict(snapshot))

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Watch:
    """The thread behind `Reporter.watching`."""

    def __init__(
        self, reporter: Reporter, tracker: Tracker, refresh: Callable[[], None], beat: Callable[[Snapshot], None]
    ) -> None:
        self._reporter, self._tracker, self._refresh, self._beat = reporter, tracker, refresh, beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)

    def __enter__(self) -> "Watch":
        self._reporter._open_bar(self._tracker.snapshot().total)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
        if exception[0] is None:
            self._refresh()
        self._reporter._show(self._tracker.snapshot(), due=True)
        self._reporter._close_bar()

    def _loop(self) -> None:
        due = time.monotonic() + LINE_EVERY_S
        self._beat(self._tracker.snapshot())
        while not self._stop.wait(BAR_EVERY_S):
            self._refresh()
            snapshot = self._tracker.snapshot()
            now = time.monotonic()
            self._reporter._show(snapshot, due=now >= due)
            if now >= due:
                self._beat(snapshot)
                due = now + LINE_EVERY_S


def format_speed(frames_per_s: float) -> str:
    """``43.2 frames/s``; ``50 s a frame`` where that would be 0.0."""
    return f"{1 / frames_per_s:.0f} s a frame" if 0 < frames_per_s < 0.1 else f"{frames_per_s:.1f} frames/s"


def format_eta(seconds: float | None) -> str:
    return "ETA not known yet" if seconds is None else f"ETA {format_duration(seconds)}"


def format_duration(seconds: float) -> str:
    """``4 s``, ``3 min 20 s``, ``5 h 12 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _shown_share(snapshot: Snapshot) -> float:
    """0..1 for the bar: by time where there is an estimate, else by videos."""
    if snapshot.eta_s is not None and snapshot.eta_s + snapshot.elapsed_s > 0:
        return snapshot.elapsed_s / (snapshot.elapsed_s + snapshot.eta_s)
    return snapshot.done / snapshot.total if snapshot.total else 1.0


def _make_bar(stream: TextIO, total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(file=stream), transient=True)
    bar.add_task("run", total=1.0, text=f"0/{total} videos  starting")
    return bar
