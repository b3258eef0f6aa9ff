"""Work in batches that fit: when memory runs out the batch is halved, and the work goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class BatchSize:
    """How many items go together: ``size`` at first, half as many each time that memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, items: Any, work: Callable[[Any], Iterable[Result]]) -> list[Result]:
        """What ``work`` gives for ``items`` (anything that has a length and can be sliced), batch after the other,
        joined. A batch that does not fit is begun again, in halves.

        Raises:
            torch.OutOfMemoryError, MemoryError: a single item is too much.
        """
        results: list[Result] = []
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            try:
                results += list(work(batch))
                start += len(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
            # out here nothing holds the tensors of the failed batch any more, as the exception did
            self.size = len(batch) // 2
            logger.warning("out of memory with a batch of %d; going on with %d", len(batch), self.size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left (for the host, torch raises a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
