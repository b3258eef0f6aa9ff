"""Times contestants side by side: in turns, in one process, on the same inputs, and only if they agree on the result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from sam2_pipeline.bench import scene
from sam2_pipeline.bench.conditions import Conditions
from sam2_pipeline.bench.contestants import Contestant, Proposer
from sam2_pipeline.masklets.rle import iou
from sam2_pipeline.model.image_encoder import normalise
from sam2_pipeline.model.memory_bank import NUM_RECENT

HEIGHT, WIDTH = 540, 960
MEMORY_FULL = NUM_RECENT + 1  # frames that come before the first one that reads a full memory; they are not timed
FRAMES_A_TURN = 2  # of tracking, as small frames are encoded two at a time: the second one's encoding takes no time
CPU = Conditions()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: side of the network input, rounds of one-frame tasks, frames tracked with a full memory, points
    per side of the grid for automatic masks, numbers of objects."""

    image_size: int
    rounds: int
    frames: int
    points_per_side: int
    objects: tuple[int, ...] = (1, 4, 16)


QUICK = Sizes(image_size=512, rounds=5, frames=6, points_per_side=8)
FULL = Sizes(image_size=1024, rounds=7, frames=8, points_per_side=32)


@dataclass
class Result:
    """One task: milliseconds of every contestant, turn by turn (warm-up aside), and how far they agree.

    ``extra_mib``: how much memory each took at most beyond what it found, where the system tells; ``profile``: lines of text.
    """

    task: str
    wall_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    extra_mib: dict[str, float] = field(default_factory=dict)
    profile: list[str] = field(default_factory=list)
    agreement: str = ""
    agrees: bool = True

    def ratio(self, clock: str = "wall_ms") -> tuple[float, float, float] | None:
        """(median, lower, upper quartile) over the turns of peer time / our time: above 1 we are faster. None unless two took
        turns."""
        times = list(getattr(self, clock).values())
        if len(times) != 2:
            return None
        ratios = [peer / ours for ours, peer in zip(*times, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        return statistics.median(ratios), low, high


def measure(
    contestants: Sequence[Contestant], sizes: Sizes, profile: Profile | None = None, conditions: Conditions = CPU
) -> Iterator[Result]:
    """The tasks, one after the other; the first contestant is ours, a second one the peer. All are loaded on the conditions'
    device; the precision is what surrounds the caller (`Conditions.applied`)."""
    warm_up, turns = (-(-frames // FRAMES_A_TURN) for frames in (MEMORY_FULL, sizes.frames))
    length = FRAMES_A_TURN * (warm_up + turns + 1)  # the last turn is profiled
    pictures = scene.moving_discs(1, HEIGHT, WIDTH)
    square = scene.moving_discs(length, sizes.image_size, sizes.image_size)
    images = normalise(torch.from_numpy(np.stack(square)).permute(0, 3, 1, 2)).to(conditions.device)
    take = partial(_rounds, profile=profile, conditions=conditions)
    yield take(contestants, "image encoder", sizes.rounds, lambda c: c.encode(images[:1]), _compare_embeddings)
    for count in sizes.objects:
        clicks = scene.clicks(count, HEIGHT, WIDTH)
        task = f"tracking {count} object{'s' if count > 1 else ''}"
        walks = [c.track(images, clicks, HEIGHT, WIDTH) for c in contestants]
        yield _turns(contestants, task, walks, warm_up, turns, _compare_logits, profile, conditions, FRAMES_A_TURN)
    proposers = [c for c in contestants if isinstance(c, Proposer)]
    if len(proposers) == len(contestants):
        points = sizes.points_per_side
        rounds = max(3, sizes.rounds // 2)
        task = f"automatic masks {points}x{points}"
        yield take(proposers, task, rounds, lambda c: c.propose(pictures[0], points), _compare_masks)


Compare = Callable[[list, Conditions], tuple[str, bool]]
Profile = Callable[[Callable[[], object]], list[str]]
SomeContestant = TypeVar("SomeContestant", bound=Contestant)


def _rounds(
    contestants: Sequence[SomeContestant],
    task: str,
    rounds: int,
    work: Callable[[SomeContestant], object],
    compare: Compare,
    profile: Profile | None,
    conditions: Conditions,
) -> Result:
    def again(contestant: SomeContestant) -> Iterator[object]:
        while True:
            yield work(contestant)

    return _turns(contestants, task, [again(c) for c in contestants], 1, rounds, compare, profile, conditions)


def _turns(
    contestants: Sequence[Contestant],
    task: str,
    walks: Sequence[Iterator],
    warm_up: int,
    turns: int,
    compare: Compare,
    profile: Profile | None,
    conditions: Conditions,
    steps: int = 1,
) -> Result:
    """Advances every walk by ``steps`` a turn, whose mean time counts, who begins alternating. The first ``warm_up`` turns are
    not timed, and what is profiled is one more turn of ours."""

    def advance(walk: Iterator) -> object:
        return [next(walk) for _ in range(steps)][-1]

    names = [c.name for c in contestants]
    result = Result(task, {name: [] for name in names}, {name: [] for name in names})
    remarks = []
    for turn in range(warm_up + turns):
        found: dict[str, object] = {}
        order = list(zip(names, walks, strict=True))
        for name, walk in order if turn % 2 else reversed(order):
            conditions.wait()
            peak = conditions.peak_memory()
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = advance(walk)
            conditions.wait()
            wall, cpu = (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps
            if turn >= warm_up:
                result.wall_ms[name].append(wall * 1e3)
                result.cpu_ms[name].append(cpu * 1e3)
                result.extra_mib[name] = max(result.extra_mib.get(name, 0.0), peak.extra_mib())
        if len(contestants) > 1:
            remarks.append(compare([found[name] for name in names], conditions))
    if profile is not None:
        result.profile = profile(lambda: advance(walks[0]))
    if remarks:
        result.agreement = next((text for text, agrees in remarks if not agrees), remarks[-1][0])
        result.agrees = all(agrees for _, agrees in remarks)
    return result


def _compare_embeddings(found: list, conditions: Conditions) -> tuple[str, bool]:
    ours, peer = (embedding.float() for embedding in found)
    error = float((ours - peer).norm() / peer.norm())
    return f"relative difference {error:.1e}", error < conditions.same_embedding


def _compare_logits(found: list, conditions: Conditions) -> tuple[str, bool]:
    """Mean IoU of the masks of one frame; an object that both call absent counts as 1."""
    ours, peer = (logits > 0 for logits in found)
    both, either = (ours & peer).flatten(1).sum(1), (ours | peer).flatten(1).sum(1)
    mean = float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean())
    difference = float((found[0] - found[1]).abs().max())
    return f"mask IoU {mean:.5f}, logits within {difference:.1e}", mean >= conditions.same_mask


def _compare_masks(found: list, conditions: Conditions) -> tuple[str, bool]:
    """Automatic masks: as many, and those of the fewer each with a twin among the others."""
    ours, peer = found
    if not ours or not peer:
        return f"{len(ours)} and {len(peer)} masks", len(ours) == len(peer)
    fewer, more = sorted((peer, ours), key=len)
    mean = float(iou(fewer, more).max(axis=1).mean())
    as_many = len(more) - len(fewer) <= conditions.same_count * len(more)
    return f"{len(ours)} and {len(peer)} masks, IoU {mean:.5f}", as_many and mean >= conditions.same_proposal
