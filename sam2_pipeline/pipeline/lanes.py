"""Videos taking turns within one worker: so many on the device, the next being fetched, a suspect alone."""

import collections.abc
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Who may be at work: any number of videos, of which ``lanes`` have the device and the others are made ready."""

    def __init__(self, lanes: int) -> None:
        self.device = threading.Semaphore(lanes)
        self._changed = threading.Condition()
        self._inside = self._suspects = 0

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[None]:
        """For the time of a ``with`` block, be at work on a video. ``alone``: beside nobody else, so that if the worker dies
        there is no doubt which video did it."""
        with self._changed:
            self._suspects += alone
            self._changed.wait_for(lambda: not self._inside if alone else not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._suspects -= alone
                self._changed.notify_all()


def in_lanes(
    function: Callable[[Item], Result], items: Iterable[Item], lanes: int, *, cancel: Callable[[], None]
) -> collections.abc.Generator[Result, None, None]:
    """``function`` of every item, in their order, up to ``lanes`` at work at once; one lane needs no thread.

    When a result is an exception, or the caller stops taking results, ``cancel`` is called and what is at work awaited.
    """
    if lanes == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    pending: deque[Future[Result]] = deque()
    complete = False
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == lanes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        complete = True
    finally:
        if not complete:
            cancel()
        pool.shutdown(wait=True, cancel_futures=True)
