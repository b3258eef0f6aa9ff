"""Training steps as CUDA graphs. A step of a small model is thousands of short kernels, and launching them one by one takes
longer than they do; a graph of them is launched whole.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from sam2_pipeline.training.clip_forward import ClipLearner, Outcome
from sam2_pipeline.training.loading import Batch

_EAGER = 2  # steps of a kind that go before its graph: libraries and allocators settle
_MOST = 12  # graphs; further kinds of steps are done kernel by kernel


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph, the batch that it reads, and what it leaves behind."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    outcome: Outcome
    norm: Tensor


class GraphedSteps:
    """Whole steps: forward, back, and ``update``, which makes use of the gradients and gives their norm. Batches of one kind
    (what is done with them, and their shapes) share a graph.

    Everything is done on a stream of its own. Autograd remembers the stream on which it first met a parameter, and no graph
    may depend on the default one.
    """

    def __init__(self, learner: ClipLearner, parameters: list[nn.Parameter], update: Callable[[], Tensor]) -> None:
        self.learner, self.parameters, self.update = learner, parameters, update
        self._seen: dict[tuple, int] = {}
        self._recorded: dict[tuple, _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def take(self, batch: Batch) -> tuple[Outcome, Tensor]:
        """What came of the batch (without gradient), and the norm of the gradient."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            taken = self._take(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return taken

    def _take(self, batch: Batch) -> tuple[Outcome, Tensor]:
        kind = _kind(batch)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if kind not in self._recorded and (self._seen[kind] <= _EAGER or len(self._recorded) >= _MOST):
            return self._run(batch)
        if kind not in self._recorded:
            self._recorded[kind] = self._record(batch)
        recorded = self._recorded[kind]
        for kept, fresh in zip(_tensors(recorded.batch), _tensors(batch), strict=True):
            kept.copy_(fresh)
        recorded.graph.replay()
        return recorded.outcome, recorded.norm

    def forget(self) -> None:
        """Frees the graphs: no more batches of their kinds will come."""
        torch.cuda.synchronize()
        self._seen, self._recorded, self._pool = {}, {}, torch.cuda.graph_pool_handle()
        self._drop_gradients()
        torch.cuda.empty_cache()

    def _drop_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _run(self, batch: Batch) -> tuple[Outcome, Tensor]:
        self._drop_gradients()
        outcome: Outcome = self.learner(batch)
        outcome.losses.total.backward()
        return replace(outcome, losses=outcome.losses.detached()), self.update()

    def _record(self, batch: Batch) -> _Recorded:
        clones: dict[str, Any] = {name: tensor.clone() for name, tensor in _named(batch)}
        kept = replace(batch, **clones)
        self._drop_gradients()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what the first steps took; the graphs share memory of their own
        graph = torch.cuda.CUDAGraph()
        # The loaders' thread goes on pinning memory meanwhile, which is none of this thread's business.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outcome, norm = self._run(kept)
        return _Recorded(graph, kept, outcome, norm)


def _kind(batch: Batch) -> tuple:
    return replace(batch.plan, step=0), *(tensor.shape for tensor in _tensors(batch))


def _named(batch: Batch) -> list[tuple[str, Tensor]]:
    return [(field.name, value) for field in fields(batch) if isinstance(value := getattr(batch, field.name), Tensor)]


def _tensors(batch: Batch) -> list[Tensor]:
    return [tensor for _, tensor in _named(batch)]
