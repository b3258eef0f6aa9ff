"""Where frames wait for the model: numbered as they come, bounded, and with a rule for when the model is the slower one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

WhenSlow = Literal["drop", "wait"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that came in: its number among all that came, its time in the source, uint8 RGB ``[H, W, 3]``, and by this
    process's clock (`time.perf_counter`) when it was handed over."""

    number: int
    timestamp_s: float
    image: np.ndarray
    arrived: float

    def __repr__(self) -> str:
        return f"Arrival(number={self.number}, timestamp_s={self.timestamp_s:.3f})"


class FrameInbox:
    """A queue of at most ``capacity`` frames between those who bring them and those who segment them; any number of threads.

    When it is full, ``drop`` throws the oldest waiting frame away (with a capacity of 1: the latest frame wins), ``wait`` lets
    the bringer wait.

    Attributes:
        received, dropped: how many frames came, and how many of these were thrown away.
    """

    def __init__(self, capacity: int, when_slow: WhenSlow) -> None:
        self.capacity, self.when_slow = capacity, when_slow
        self.received = self.dropped = 0
        self._waiting: deque[Arrival] = deque()
        self._changed = threading.Condition()
        self._finished = self._stopped = False
        self._error: BaseException | None = None
        self._began: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, image: np.ndarray, timestamp_s: float | None = None, timeout_s: float | None = None) -> int | None:
        """Hands a frame over and gives its number; None once no more frames are wanted.

        Without a time of its own a frame gets that of its arrival, in seconds since the first one's.

        Raises:
            TimeoutError: ``wait``, and no room within ``timeout_s``.
        """
        now = time.perf_counter()
        with self._changed:
            if self.when_slow == "wait" and not self._changed.wait_for(self._has_room, timeout_s):
                raise TimeoutError(f"{len(self)} frames wait to be segmented, and for {timeout_s:g} s none was taken")
            if self._finished or self._stopped:
                return None
            if len(self._waiting) == self.capacity:
                self._waiting.popleft()
                self.dropped += 1
            self._began = now if self._began is None else self._began
            number = self.received
            self.received += 1
            time_s = now - self._began if timestamp_s is None else timestamp_s
            self._waiting.append(Arrival(number, time_s, image, now))
            self._changed.notify_all()
            return number

    def _has_room(self) -> bool:
        return len(self._waiting) < self.capacity or self._finished or self._stopped

    def take(self) -> Arrival | None:
        """The oldest waiting frame, waiting for one if need be; None at the end. Raises what the source was broken off by."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished or self._stopped)
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
            error, self._error = self._error, None
            if error is not None:
                raise error
            return None

    def finish(self, error: BaseException | None = None) -> None:
        """No more frames will come; those that wait may still be taken."""
        with self._changed:
            if not self._finished:
                self._finished, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """No more frames are wanted; those that wait are thrown away."""
        with self._changed:
            self._stopped, self._error = True, None
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()


class Feeder:
    """A thread that brings a source's frames to an inbox, until either has come to its end.

    It knows nothing of the stream that reads the inbox, so that a forgotten stream can be collected and stop it.
    """

    def __init__(self, bring: Callable[[FrameInbox], None], inbox: FrameInbox) -> None:
        self._bring, self._inbox = bring, inbox
        self._thread = threading.Thread(target=self._run, name="sam2-live-source", daemon=True)

    def start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread, but not longer: a camera may take its time to say nothing."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._bring(self._inbox)
        except BaseException as error:  # the one who takes frames raises it: nothing may be lost in a thread
            self._inbox.finish(error)
        else:
            self._inbox.finish()
