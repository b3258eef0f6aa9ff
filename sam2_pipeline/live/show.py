"""How a stream is doing, on one line of a terminal, or a line every ten seconds elsewhere."""

import sys
import time
from typing import TextIO

from sam2_pipeline.pipeline.progress import format_speed
from sam2_pipeline.segment.latency import LiveStatistics

_LINE_EVERY_S, _REFRESH_EVERY_S = 10.0, 0.5


class Ticker:
    """Shows statistics now and then; ``quiet`` never."""

    def __init__(self, quiet: bool, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._terminal = quiet, self._stream.isatty()
        self._every_s = _REFRESH_EVERY_S if self._terminal else _LINE_EVERY_S
        self._shown, self._segmented = time.monotonic(), 0

    def due(self) -> bool:
        return not self._quiet and time.monotonic() - self._shown >= self._every_s

    def show(self, found: LiveStatistics, latency_s: float) -> None:
        """A line about the time since the last one, ``latency_s`` being that of the latest frame."""
        now = time.monotonic()
        speed = (found.segmented - self._segmented) / max(now - self._shown, 1e-9)
        self._shown, self._segmented = now, found.segmented
        latency = f"latency {1000 * latency_s:.0f} ms (p99 {1000 * found.latency_p99_s:.0f})"
        text = f"{found.segmented} frames  {format_speed(speed)}  {latency}  {found.dropped} dropped"
        print(f"\r{text:<79}" if self._terminal else text, end="" if self._terminal else "\n", file=self._stream, flush=True)

    def end(self, found: LiveStatistics, why: str) -> None:
        if self._terminal and not self._quiet:
            print(f"\r{'':79}\r", end="", file=self._stream)
        if not self._quiet:
            print(f"{why}: {summary(found)}", file=self._stream, flush=True)


def summary(found: LiveStatistics) -> str:
    p50, p99, longest = (1000 * s for s in (found.latency_p50_s, found.latency_p99_s, found.latency_max_s))
    return (
        f"{found.segmented} of {found.received} frames segmented, {found.dropped} dropped; {format_speed(found.frames_per_s)}; "
        f"latency p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {longest:.0f} ms"
    )
