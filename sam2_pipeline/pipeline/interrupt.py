"""Ctrl-C and SIGTERM, seen even where a library swallows the exception they raise (fsspec's ``exists`` has a bare except)."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_signalled = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt as SIGINT does, and `check` repeats what may have been lost.

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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _signalled.clear()


def check() -> None:
    """Raises KeyboardInterrupt if a signal has come in."""
    if _signalled.is_set():
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: object) -> None:
    _signalled.set()
    raise KeyboardInterrupt
