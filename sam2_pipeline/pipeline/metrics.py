"""What workers and the driver count, for Prometheus: Ray gathers it on every node and serves it at its metrics port.

`METRICS` is the whole list; configs/grafana_dashboard.json shows it. Ray puts ``ray_`` before the names.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """``tags`` are the labels that a value comes with, besides ``output``."""

    kind: Literal["counter", "gauge"]
    description: str
    tags: tuple[str, ...] = ()


METRICS = {
    "sam2_videos_total": Metric("counter", "Videos with a committed row, by status.", ("status",)),
    "sam2_failures_total": Metric("counter", "Videos with a failed row, by kind of failure.", ("reason",)),
    "sam2_masklets_total": Metric("counter", "Masklets committed."),
    "sam2_frames_total": Metric("counter", "Frames that went through the model."),
    "sam2_stage_seconds_total": Metric(
        "counter", "Seconds by stage: fetch, wait for the device, track, judge, write.", ("stage",)
    ),
    "sam2_videos_left": Metric("gauge", "Videos that have no committed row yet."),
    "sam2_gpu_memory_bytes": Metric("gauge", "GPU memory that a worker has reserved."),
}


class Meter:
    """Where numbers go; this one drops them, which is all there is to do without Ray."""

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Count the seconds that a ``with`` block takes, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add("sam2_stage_seconds_total", time.monotonic() - started, stage=stage)

    def committed(self, masklets: int, reason: str | None) -> None:
        """Count a video that a commit has made visible; ``reason``: the kind of its failure."""
        self.add("sam2_videos_total", status="ok" if reason is None else "failed")
        self.add("sam2_masklets_total", masklets)
        if reason is not None:
            self.add("sam2_failures_total", reason=reason)
        if reserved := _gpu_bytes():
            self.set("sam2_gpu_memory_bytes", reserved)


class RayMeter(Meter):
    """Hands numbers to the Ray that this process belongs to, labelled with the output of the run."""

    def __init__(self, output: str) -> None:
        from ray.util import metrics

        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._metrics: dict[str, Any] = {}
        for name, metric in METRICS.items():
            made = kinds[metric.kind](name, description=metric.description, tag_keys=("output", *metric.tags))
            made.set_default_tags({"output": output})
            self._metrics[name] = made

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        if value > 0:  # Ray refuses to add nothing
            self._metrics[name].inc(value, tags)

    def set(self, name: str, value: float, **tags: str) -> None:
        self._metrics[name].set(value, tags)


def _gpu_bytes() -> int:
    """GPU memory of this process, if it has any; torch is not loaded for that."""
    torch = sys.modules.get("torch")
    return torch.cuda.memory_reserved() if torch is not None and torch.cuda.is_available() else 0
