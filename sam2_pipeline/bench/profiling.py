"""Where the time of a task goes: by part of the model, and by PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.profiler import ProfilerActivity, profile, record_function

from sam2_pipeline.model.sam2 import Sam2

_VERBS = ("encode_frames", "attend_memory", "decode_masks", "encode_memory")
_SHOWN = 12


def profiled(model: Sam2, work: Callable[[], object]) -> list[str]:
    """Lines for people: what share of one go of ``work`` the model's verbs take, and its dearest operators."""
    with _named_verbs(model), profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events) or 1
    parts = [(e.key, e.cpu_time_total / whole, e.cpu_time_total / 1e3, e.count) for e in events if e.key in _VERBS]
    operators = [
        (
            f"{e.key}, outside operators" if e.key in _VERBS else e.key,
            e.self_cpu_time_total / whole,
            e.self_cpu_time_total / 1e3,
            e.count,
        )
        for e in events
    ]
    chosen = sorted(parts, key=lambda row: -row[1]) + sorted(operators, key=lambda row: -row[1])[:_SHOWN]
    return [f"{share:6.1%} {ms:9.1f} ms {count:6} x  {name}" for name, share, ms, count in chosen]


@contextmanager
def _named_verbs(model: Sam2) -> Iterator[None]:
    """While open, the model's verbs show in profiles under their names."""

    def named(verb: str) -> Callable[..., Any]:
        plain = getattr(model, verb)

        def call(*args: Any, **kwargs: Any) -> Any:
            with record_function(verb):
                return plain(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for verb in _VERBS:
            stack.enter_context(patch.object(model, verb, named(verb)))
        yield
