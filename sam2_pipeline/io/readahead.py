"""A bounded background reader: work a few items ahead of the consumer, and always stop cleanly."""

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Belt(Generic[T]):
    """What the two threads share. Kept apart from `ReadAhead`, so that an abandoned one can be collected and stopped."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.items: deque[T] = deque()
        self.changed = threading.Condition()
        self.stopped = False  # the consumer wants no more
        self.finished = False  # the producer has no more
        self.error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and hand ``item`` over; False when the consumer has gone."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.items) < self.depth)
            if not self.stopped:
                self.items.append(item)
                self.changed.notify_all()
            return not self.stopped

    def finish(self, error: BaseException | None) -> None:
        with self.changed:
            self.finished, self.error = True, error
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()


def _produce(belt: _Belt[T], source: Callable[[], Generator[T, None, None]]) -> None:
    try:
        items = source()
        try:
            for item in items:
                if not belt.put(item):
                    break
        finally:
            items.close()  # here, so that files are closed by the thread that opened them
    except BaseException as error:  # the consumer raises it: nothing may be lost in a thread
        belt.finish(error)
    else:
        belt.finish(None)


class ReadAhead(Iterator[T]):
    """Iterates over ``source()`` in a background thread, at most ``depth`` items ahead.

    The thread starts with `start` or the first `next`, and ends with the iteration, with `close`, when the iterator is
    forgotten half way, or at exit of the interpreter, whichever comes first. An exception of the source is raised by `next`.
    """

    def __init__(self, source: Callable[[], Generator[T, None, None]], depth: int) -> None:
        self._belt: _Belt[T] = _Belt(depth)
        self._thread = threading.Thread(target=_produce, args=(self._belt, source), name="sam2-read-ahead", daemon=True)
        self._closed = False
        self._reason: Exception | None = None

    def start(self) -> None:
        """Begins now, if it has not begun."""
        if self._thread.ident is None and not self._closed:
            _live.add(self)
            self._thread.start()

    def __next__(self) -> T:
        if self._closed:
            raise self._reason if self._reason else StopIteration
        self.start()
        belt = self._belt
        with belt.changed:
            belt.changed.wait_for(lambda: belt.items or belt.finished or belt.stopped)
            if belt.items:
                item = belt.items.popleft()
                belt.changed.notify_all()
                return item
            error, belt.error = belt.error, None
        self.close(self._reason)
        raise error or self._reason or StopIteration

    def close(self, reason: Exception | None = None) -> None:
        """Stop the thread and wait for it; later `next` calls raise ``reason``, or find the iteration at its end."""
        self._closed, self._reason = True, reason
        self._belt.stop()
        # A garbage collection inside the producer may bring us here in the very thread that is to be waited for.
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __del__(self) -> None:
        self.close()


_live: weakref.WeakSet[ReadAhead] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Threads inside FFmpeg while the interpreter is torn down can deadlock or crash it: stop them while all still works.

    (They are daemons because the interpreter waits for the others before it calls anything registered with atexit.)
    """
    for reader in list(_live):
        reader.close()
