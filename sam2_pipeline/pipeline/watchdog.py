"""A process beside each worker that ends it when a video hangs.

Native code that never returns never gives Python a turn either, so no thread of the worker could do it. Before the worker is
killed, the markers of its attempts are rewritten: the video that hung is to blame, with the reason, and none that was getting
on beside it.
"""

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from sam2_pipeline.config import LimitSettings
from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.pipeline.attempts import Attempt, write_marker

logger = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
LAST_WORD_S = 20.0  # the storage may hang too
TIMED_OUT = "timed out: "  # how reasons begin that the watchdog gives


@dataclass(frozen=True, slots=True)
class Watched:
    """A video at work: whose marker names it, and when (``time.monotonic``; None: not now) and why patience ends."""

    video_id: str
    attempt_id: str
    marker: str
    deadline: float | None = None
    reason: str = ""


class Leash:
    """One video's time: given out for a step, renewed with every sign of life."""

    def __init__(self, watchdog: "Watchdog | None", watched: Watched) -> None:
        self._watchdog, self._watched = watchdog, watched
        self._told = 0.0

    def allow(self, seconds: float, reason: str) -> None:
        """From now on ``seconds`` until the next call; ``reason`` says what has failed to happen by then."""
        now, reason = time.monotonic(), f"{TIMED_OUT}{reason}"
        if reason != self._watched.reason or now - self._told >= min(TELL_EVERY_S, seconds / 10):
            self._tell(now + seconds, reason)

    def rest(self) -> None:
        """The video waits for others, for as long as it takes."""
        self._tell(None, "")

    def _tell(self, deadline: float | None, reason: str) -> None:
        if self._watchdog is not None:
            old = self._watched
            self._watched = Watched(old.video_id, old.attempt_id, old.marker, deadline, reason)
            self._watchdog.tell(self._watched)
            self._told = time.monotonic()


class Patience:
    """How long a video may take: ``timeout_s`` to its next frame, and in all so much for each of its frames."""

    def __init__(self, leash: Leash, limits: LimitSettings, num_frames: int) -> None:
        self._leash, self._timeout_s, self._all_s = leash, limits.timeout_s, limits.timeout_s
        self._all_s += limits.timeout_per_frame_s * num_frames
        self._frames, self._end = num_frames, time.monotonic() + self._all_s
        self.renew()

    def renew(self) -> None:
        left = self._end - time.monotonic()
        if left < self._timeout_s:
            self._leash.allow(left, f"{self._frames} frames not done within {self._all_s:.0f} s (limits.timeout_per_frame_s)")
        else:
            self._leash.allow(self._timeout_s, f"no new frame for {self._timeout_s:.0f} s (limits.timeout_s)")


class Watchdog:
    """Watches the videos of this process from another one, which ends by itself when this one does."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._watched: dict[str, Watched] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, watched: Watched) -> None:
        with self._lock:
            self._watched[watched.video_id] = watched
            self._send()

    def forget(self, video_id: str) -> None:
        with self._lock:
            if self._watched.pop(video_id, None) is not None:
                self._send()

    def _send(self) -> None:
        """The whole table, so that a watchdog that had to be started anew knows all."""
        table = list(self._watched.values())
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed it
                return _write(self._process, table)
        try:
            self._process = self._start()
            _write(self._process, table)
        except OSError as error:  # no reason for a video to fail
            logger.warning("videos that hang will go unnoticed: their watchdog cannot be started: %s", error)

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "sam2_pipeline.pipeline.watchdog"],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not meant for it
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        _write(process, (os.getpid(), self._storage.url, self._storage.options))
        return process


def _write(process: "subprocess.Popen[bytes]", message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(message))
    process.stdin.flush()


@contextlib.contextmanager
def leash(watchdog: Watchdog | None, video_id: str, attempt: Attempt) -> Iterator[Leash]:
    """A leash for the time of a ``with`` block; without a watchdog nobody pulls at it."""
    try:
        yield Leash(watchdog, Watched(video_id, attempt.attempt_id, attempt.marker))
    finally:
        if watchdog is not None:
            watchdog.forget(video_id)


def _watch(pipe: IO[bytes]) -> None:
    """Body of the watching process: the worker's id and storage come in first, then tables of what is at work."""
    pid, url, options = pickle.load(pipe)
    tables: queue.Queue[list[Watched] | None] = queue.Queue()
    threading.Thread(target=_receive, args=(pipe, tables), daemon=True).start()
    watched: list[Watched] = []
    while True:
        due = min((video.deadline for video in watched if video.deadline is not None), default=None)
        try:
            table = tables.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
        except queue.Empty:
            return _end(pid, url, options, watched)
        if table is None:
            return
        watched = table


def _receive(pipe: IO[bytes], tables: "queue.Queue[list[Watched] | None]") -> None:
    with contextlib.suppress(EOFError, pickle.UnpicklingError):  # the worker has ended, perhaps in the middle of a word
        while True:
            tables.put(pickle.load(pipe))
    tables.put(None)


def _end(pid: int, url: str, options: dict[str, Any], watched: list[Watched]) -> None:
    """Stop the worker, say why where the next attempt will look, and kill it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # nothing of its own is written from here on
        writer = threading.Thread(target=_explain, args=(url, options, watched), daemon=True)
        writer.start()
        writer.join(LAST_WORD_S)
        os.kill(pid, signal.SIGKILL)


def _explain(url: str, options: dict[str, Any], watched: list[Watched]) -> None:
    late_by = time.monotonic() + TELL_EVERY_S  # deadlines are no more exact than that
    late: dict[tuple[str, str], list[Watched]] = {(video.marker, video.attempt_id): [] for video in watched}
    for video in watched:
        if video.deadline is not None and video.deadline <= late_by:
            late[video.marker, video.attempt_id].append(video)
    with contextlib.suppress(StorageError):
        storage = Storage(url, options)
        for (marker, attempt_id), videos in late.items():
            reasons = {video.video_id: video.reason for video in videos}
            write_marker(storage, marker, attempt_id, list(reasons), reasons)


if __name__ == "__main__":
    _watch(sys.stdin.buffer)
    os._exit(0)  # the reading thread may hold standard input, which Python's own end would wait for
