"""Where in its run a training is: in steps, or by the clock; which stage that is, and what part of the learning rate it gets."""

import math
import time
from collections.abc import Iterator
from itertools import accumulate

from sam2_pipeline.training.settings import OptimSection, Stage, TrainConfig


class Schedule:
    """``seconds`` is how long the run has taken so far, where it is continued."""

    def __init__(self, config: TrainConfig, seconds: float = 0.0) -> None:
        self.optim = config.optim
        self.stages: tuple[Stage, ...] = config.staged()
        self._ends = list(accumulate(stage.share for stage in self.stages))
        self._began = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def progress(self, step: int) -> float:
        """From 0 to 1."""
        minutes = self.optim.minutes
        return min(step / self.optim.steps if minutes is None else self.seconds / (60 * minutes), 1.0)

    def over(self, step: int) -> bool:
        return self.progress(step) >= 1.0

    def rate(self, step: int) -> float:
        return share_of_rate(self.optim, step, self.progress(step))

    def total(self, step: int) -> int:
        """How many steps the run has, or is going to have if it goes on like this."""
        return self.optim.steps if self.optim.minutes is None else round(step / max(self.progress(step), 1e-6))

    def places(self, first_step: int) -> Iterator[tuple[int, int]]:
        """(stage, step) of the batches to load, for a run that begins with, or is continued at, a step.

        A batch is the newest of its stage for as many steps as each is repeated, and so many of the newest are looked at in
        turn. Hence the batches before the first one are given as well, if they can be told: the clock leaves no trace.
        """
        if self.optim.minutes is not None:
            yield from self._walk(first_step)
            return
        before: list[tuple[int, int]] = []
        for stage, step in self._walk(0):
            if before and before[-1][0] != stage:
                before = []
            before = [*before, (stage, step)][-self.stages[stage].config.data.repeats :]
            if step >= first_step:
                yield from before
                before = []
                first_step = -1

    def _walk(self, step: int) -> Iterator[tuple[int, int]]:
        while not self.over(step):
            progress = self.progress(step)
            stage = next((n for n, end in enumerate(self._ends) if progress < end), len(self.stages) - 1)
            yield stage, step
            step += self.stages[stage].config.data.repeats


def share_of_rate(optim: OptimSection, step: int, progress: float) -> float:
    """What part of its learning rate each parameter gets: half a cosine, after a linear warm-up."""
    cosine = optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * progress))
    return cosine * min((step + 1) / max(optim.warmup, 1), 1.0)
