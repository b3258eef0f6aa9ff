"""The same work on many videos, in several processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

from sam2_pipeline.errors import PipelineError

Result = TypeVar("Result")


def each(work: Callable[[str], Result], videos: Sequence[str], workers: int) -> Iterator[Result]:
    """What ``work`` makes of every video, in whatever order it comes. With one worker, in this process; else ``work`` is pickled.

    Whoever stops half way, by an interrupt or an exception, waits for nobody: what is being worked on is given up.

    Raises:
        PipelineError: a process died.
    """
    workers = min(workers, len(videos))
    if workers <= 1:
        yield from map(work, videos)
        return
    others = active_children()
    # Spawned, since the libraries that read tables and buckets have threads, which do not survive a fork.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (work,))
    try:
        for future in as_completed([pool.submit(_do, video_id) for video_id in videos]):
            yield future.result()
    except BrokenProcessPool as error:
        raise PipelineError(f"a worker process of {workers} died, perhaps of too little memory; try fewer --workers") from error
    except BaseException:
        for process in active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_work: Any = None  # of a worker process: it is sent once and not with every video


def _begin(work: Callable[[str], Any]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the first one ends the others
    _work = work
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed tells nobody; without it the work is for nothing."""
    parent = parent_process()
    assert parent is not None, "workers are started by another process"
    parent.join()
    os._exit(1)


def _do(video_id: str) -> Any:
    return _work(video_id)
