"""Latencies of a stream that never ends, in memory that never grows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SHORTEST_S, _LONGEST_S, _STEP = 1e-5, 1e4, 1.02
_EDGES_S = _SHORTEST_S * _STEP ** np.arange(np.ceil(np.log(_LONGEST_S / _SHORTEST_S) / np.log(_STEP)) + 1)


class LatencyMeter:
    """Counts latencies in buckets 2 % wide, so that quantiles are true to 1 % however many there were."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES_S), np.int64)
        self.count = 0
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[np.searchsorted(_EDGES_S, seconds).clip(max=len(_EDGES_S) - 1)] += 1
        self.count += 1
        self.longest_s = max(self.longest_s, seconds)

    def quantile(self, share: float) -> float:
        """The latency that ``share`` (0..1) of all did not exceed; 0 while there are none."""
        if not self.count:
            return 0.0
        rank = max(int(np.ceil(share * self.count)), 1)
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(float(_EDGES_S[bucket] / _STEP**0.5), self.longest_s)


@dataclass(frozen=True, slots=True)
class LiveStatistics:
    """A stream so far.

    Attributes:
        received, segmented, dropped, waiting: frames that came, that were segmented, that were thrown away because the model
            was slower, and that wait now. One frame may be at the model besides.
        latency_p50_s, latency_p99_s, latency_max_s: from a frame's arrival to its masks, waiting included.
        frames_per_s: segmented frames a second, from the first arrival to the latest masks.
    """

    received: int
    segmented: int
    dropped: int
    waiting: int
    latency_p50_s: float
    latency_p99_s: float
    latency_max_s: float
    frames_per_s: float
