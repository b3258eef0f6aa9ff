"""The processes that Ray starts: workers that hold the model, and the board on which they note how far they are."""

import contextlib
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from sam2_pipeline.pipeline.actor import UnitWorker
from sam2_pipeline.pipeline.factory import GeneratorFactory
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.metrics import RayMeter
from sam2_pipeline.pipeline.video import Cancelled

REPORT_EVERY_S = 1.0
SILENT_S = 5.0
LEAVE_WITHIN_S = 25.0  # Kubernetes kills what has not ended after 30


class Board:
    """Where workers note how far they are, and where the driver looks and leaves word. A Ray actor."""

    def __init__(self) -> None:
        self._frames = 0
        self._current: dict[str, tuple[str, int, int | None]] = {}
        self._asked: dict[str, float] = {}
        self._closing = False

    def is_closing(self, worker: str) -> bool:
        """Whether the run is to end. Workers ask every second."""
        self._asked[worker] = math.inf if self._closing else time.monotonic()
        return self._closing

    def left(self, worker: str) -> None:
        """``worker`` has committed what it had."""
        self._asked.pop(worker, None)

    def close(self) -> int:
        """The run is to end: how many workers have yet to commit what they have. Those that are silent are dead."""
        self._closing = True
        return sum(asked > time.monotonic() - SILENT_S for asked in self._asked.values())

    def note(self, worker: str, video_id: str, done: int, total: int | None, new_frames: int) -> None:
        self._frames += new_frames
        self._current[worker] = (video_id, done, total)

    def read(self) -> tuple[int, list[tuple[str, int, int | None]]]:
        """Frames so far, and (video id, frames done, frames in all) of every worker."""
        return self._frames, list(self._current.values())


class BoardNotifier:
    """Tells the board about frames, each lane (a thread) at most once a second."""

    def __init__(self, board: Any, worker: str) -> None:
        self._board, self._worker = board, worker
        self._lane = threading.local()

    def __call__(self, video_id: str, done: int, total: int | None) -> None:
        lane, now = self._lane, time.monotonic()
        lane.unsaid = getattr(lane, "unsaid", 0) + 1
        if now - getattr(lane, "told", 0.0) >= REPORT_EVERY_S or done == total:
            name = f"{self._worker}:{threading.current_thread().name}"
            self._board.note.remote(name, video_id, done, total, lane.unsaid)
            lane.told, lane.unsaid = now, 0


class RayUnitWorker:
    """`UnitWorker` as Ray Data calls it: a batch of one task in, a batch of one outcome out, both pickled.

    Two calls are at work at once, so that the next unit's video is fetched while this one's is on the device. SIGTERM (a notice
    that the machine is about to go) makes the process commit what it has and leave; Ray gives what it had at hand to another.
    So does the board when it is closing.
    """

    def __init__(self, factory: GeneratorFactory, job: Job, threads: int, board: Any) -> None:
        self._calls = 0
        self._idle = threading.Condition()
        self._board, self._name = board, f"{os.uname().nodename}:{os.getpid()}"
        notify, meter = BoardNotifier(board, self._name), RayMeter(job.config.output)
        self._worker = UnitWorker(factory, job, threads=threads, notify=notify, watched=True, meter=meter)
        threading.Thread(target=self._listen, daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=self._leave, daemon=True).start())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self._at_work(), contextlib.suppress(Cancelled):
            outcomes = [self._worker.work(pickle.loads(payload)) for payload in batch["task"]]
            return {"outcome": [pickle.dumps(outcome) for outcome in outcomes]}
        threading.Event().wait()  # for the end of the process: an answer or an error would be taken for this unit's
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._idle:
            self._calls += 1
        try:
            yield
        finally:
            with self._idle:
                self._calls -= 1
                self._idle.notify_all()

    def _listen(self) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):  # the board is gone, and soon this process will be
            while not ray.get(self._board.is_closing.remote(self._name)):
                time.sleep(REPORT_EVERY_S)
            self._finish()
            self._board.left.remote(self._name)  # and wait for the driver to end all

    def _leave(self) -> None:
        self._finish()
        os._exit(1)

    def _finish(self) -> None:
        self._worker.stop()
        with self._idle:
            self._idle.wait_for(lambda: not self._calls, LEAVE_WITHIN_S)
