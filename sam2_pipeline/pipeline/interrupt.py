"""Ctrl-C and SIGTERM: seen even where a library swallows the exception they raise (fsspec's ``exists`` has a bare except), and
after a farewell to those who work for this process. A second one ends that too."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FAREWELL_S = 30.0

_signalled = threading.Event()
_farewells: list[Callable[[], None]] = []


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt as SIGINT does, and `check` repeats what may have been lost. An error
    that ends the block after a signal counts as the interrupt: processes that work for this one may have had the signal, too.

    A SIGINT that is ignored (a background job of a shell) stays ignored. In another thread than the main one, does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _signalled.clear()
    numbers = [signal.SIGTERM] + ([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    except Exception:
        check()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _signalled.clear()


@contextmanager
def farewell(say: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first signal calls ``say``, in a thread of its own, before it raises."""
    _farewells.append(say)
    try:
        yield
    finally:
        _farewells.remove(say)


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come in."""
    if _signalled.is_set():
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: object) -> None:
    if not _signalled.is_set():
        _signalled.set()
        for say in list(_farewells):
            # the main thread may be in the middle of anything, even of what ``say`` would do
            speaker = threading.Thread(target=say, daemon=True)
            speaker.start()
            speaker.join(FAREWELL_S)
    raise KeyboardInterrupt
