"""Times contestants side by side: in turns, in one process, on the same inputs, and only if they agree on the result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from sam2_pipeline.bench import scene
from sam2_pipeline.bench.contestants import Contestant, Proposer
from sam2_pipeline.masklets.rle import iou
from sam2_pipeline.model.image_encoder import normalise

HEIGHT, WIDTH = 540, 960
_SAME_MASK = 0.99  # mean IoU from which two implementations count as one


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: side of the network input, rounds of one-frame tasks, frames tracked, points per side."""

    image_size: int
    rounds: int
    frames: int
    points_per_side: int
    objects: tuple[int, ...] = (1, 8)


QUICK = Sizes(image_size=512, rounds=5, frames=7, points_per_side=4)
FULL = Sizes(image_size=1024, rounds=7, frames=10, points_per_side=8)


@dataclass
class Result:
    """One task: milliseconds of every contestant, turn by turn (warm-up aside), and how far they agree."""

    task: str
    wall_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    agreement: str = ""
    agrees: bool = True

    def ratio(self, clock: str = "wall_ms") -> tuple[float, float, float] | None:
        """(median, lower, upper quartile) over the turns of peer time / our time: above 1 we are faster."""
        times = list(getattr(self, clock).values())
        if len(times) < 2:
            return None
        ratios = [peer / ours for ours, peer in zip(*times, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        return statistics.median(ratios), low, high


def measure(contestants: Sequence[Contestant], sizes: Sizes) -> Iterator[Result]:
    """The tasks, one after the other; the first contestant is ours, a second one the peer."""
    pictures = scene.moving_discs(sizes.frames, HEIGHT, WIDTH)
    square = scene.moving_discs(sizes.frames, sizes.image_size, sizes.image_size)
    images = normalise(torch.from_numpy(np.stack(square)).permute(0, 3, 1, 2))
    yield _rounds(contestants, "image encoder", sizes.rounds, lambda c: c.encode(images[:1]), _compare_embeddings)
    for count in sizes.objects:
        clicks = scene.clicks(count, HEIGHT, WIDTH)
        task = f"tracking {count} object{'s' if count > 1 else ''}"
        yield _turns(
            contestants, task, [c.track(images, clicks, HEIGHT, WIDTH) for c in contestants], sizes.frames, _compare_logits
        )
    proposers = [c for c in contestants if isinstance(c, Proposer)]
    if len(proposers) == len(contestants):
        propose = f"automatic masks {sizes.points_per_side}x{sizes.points_per_side}"
        rounds = max(3, sizes.rounds // 2)
        yield _rounds(proposers, propose, rounds, lambda c: c.propose(pictures[0], sizes.points_per_side), _compare_masks)


Compare = Callable[[list], tuple[str, bool]]
SomeContestant = TypeVar("SomeContestant", bound=Contestant)


def _rounds(
    contestants: Sequence[SomeContestant], task: str, rounds: int, work: Callable[[SomeContestant], object], compare: Compare
) -> Result:
    def again(contestant: SomeContestant) -> Iterator[object]:
        while True:
            yield work(contestant)

    return _turns(contestants, task, [again(c) for c in contestants], rounds + 1, compare)


def _turns(contestants: Sequence[Contestant], task: str, walks: Sequence[Iterator], turns: int, compare: Compare) -> Result:
    """Advances every walk by one step a turn, who begins alternating. The first turn (start-up, prompts) is not timed."""
    result = Result(task, {c.name: [] for c in contestants}, {c.name: [] for c in contestants})
    remarks = []
    for turn in range(turns):
        found: dict[str, object] = {}
        order = list(zip(contestants, walks, strict=True))
        for contestant, walk in order if turn % 2 else reversed(order):
            wall, cpu = time.perf_counter(), time.process_time()
            found[contestant.name] = next(walk)
            if turn:
                result.wall_ms[contestant.name].append((time.perf_counter() - wall) * 1e3)
                result.cpu_ms[contestant.name].append((time.process_time() - cpu) * 1e3)
        if len(contestants) > 1:
            remarks.append(compare([found[c.name] for c in contestants]))
    if remarks:
        result.agreement = next((text for text, agrees in remarks if not agrees), remarks[-1][0])
        result.agrees = all(agrees for _, agrees in remarks)
    return result


def _compare_embeddings(found: list) -> tuple[str, bool]:
    ours, peer = found
    error = float((ours - peer).norm() / peer.norm())
    return f"relative difference {error:.1e}", error < 1e-4


def _compare_logits(found: list) -> tuple[str, bool]:
    """Mean IoU of the masks of one frame; an object that both call absent counts as 1."""
    ours, peer = (logits > 0 for logits in found)
    both, either = (ours & peer).flatten(1).sum(1), (ours | peer).flatten(1).sum(1)
    mean = float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean())
    difference = float((found[0] - found[1]).abs().max())
    return f"mask IoU {mean:.5f}, logits within {difference:.1e}", mean >= _SAME_MASK


def _compare_masks(found: list) -> tuple[str, bool]:
    """Automatic masks: as many, and each with a twin."""
    ours, peer = found
    if not ours or not peer:
        return f"{len(ours)} and {len(peer)} masks", len(ours) == len(peer)
    overlap = iou(peer, ours)
    mean = float(overlap.max(axis=1).mean())
    return f"{len(ours)} and {len(peer)} masks, IoU {mean:.5f}", len(ours) == len(peer) and mean >= _SAME_MASK
