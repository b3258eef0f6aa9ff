"""Batches for steps, in order, from any number of loader processes; the same whatever their number."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, default_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.training.augment import Variation, cut_out, draw_variation, square_clip, vary
from sam2_pipeline.training.clip_sources import open_clips
from sam2_pipeline.training.clips import Clip, ClipRequest, ClipSource
from sam2_pipeline.training.schedule import Schedule
from sam2_pipeline.training.settings import TrainConfig
from sam2_pipeline.training.steps import StepPlan, Stream, plan_step

_ATTEMPTS = 50  # clips in a row that may be unfit


@dataclass(frozen=True, slots=True)
class Example:
    """One clip as the network takes it, for R steps.

    Attributes:
        frames_T3SS: uint8.
        masks_TNSS: bool.
        ground_N: bool, the last row if it stands for the ground, and not for an object.
        draws_RTNK: random numbers in 0..1 for the clicks, `draws_needed` per frame and object.
        variations: one for each step, or none.
        skipped: clips passed over because they show no object or cannot be read.
    """

    frames_T3SS: Tensor
    masks_TNSS: Tensor
    ground_N: Tensor
    draws_RTNK: Tensor
    variations: tuple[Variation, ...]
    skipped: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The clips of a step; V clips, N objects (rows) in all.

    Attributes:
        plan: what to do with them.
        frames_VT3SS: uint8.
        masks_TNSS: bool.
        lanes_N: the clip of every row.
        ground_N: bool, rows that stand for the ground: their mask is where there is no object. Those without one only fill up.
        draws_TNK: see `Example`.
        seen: features of the frames of clip after clip, where they are known already.
    """

    plan: StepPlan
    frames_VT3SS: Tensor
    masks_TNSS: Tensor
    lanes_N: Tensor
    ground_N: Tensor
    draws_TNK: Tensor
    seen: FrameFeatures | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """Clips as they were loaded, for R steps.

    Attributes:
        stage: the number of the stage that they are for.
        plans: of the steps.
        affine_RV23, factors_RVT3: the variations of the clips, None where they stay as they are.
        skipped: see `Example`. The others are those of a batch.
    """

    stage: int
    plans: tuple[StepPlan, ...]
    frames_VT3SS: Tensor
    masks_TNSS: Tensor
    lanes_N: Tensor
    ground_N: Tensor
    draws_RTNK: Tensor
    affine_RV23: Tensor | None
    factors_RVT3: Tensor | None
    skipped: int

    @property
    def step(self) -> int:
        """The first of its steps."""
        return self.plans[0].step

    @property
    def varied(self) -> bool:
        """Whether the clips look different in every step."""
        return self.affine_RV23 is not None

    def batch(self, repeat: int) -> Batch:
        frames, masks = self.frames_VT3SS, self.masks_TNSS
        if self.affine_RV23 is not None and self.factors_RVT3 is not None:
            frames, masks = vary(frames, masks, self.lanes_N, Variation(self.affine_RV23[repeat], self.factors_RVT3[repeat]))
        return Batch(self.plans[repeat], frames, masks, self.lanes_N, self.ground_N, self.draws_RTNK[repeat])

    def to(self, device: torch.device) -> "Material":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Material":
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Material":
        tensors = {name: value for name in self.__slots__ if isinstance(value := getattr(self, name), Tensor)}
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in tensors.items()}
        return replace(self, **changed)


def draws_needed(config: TrainConfig) -> int:
    """Random numbers for one frame of one object: a first click or box (4), and two for each correction."""
    return 4 + 2 * config.prompts.corrections


class Examples(Dataset[Example]):
    """Example (step, slot) of an endless run: a function of the seed and these two."""

    def __init__(self, config: TrainConfig, source: ClipSource) -> None:
        if not len(source):
            raise ConfigError("there are no clips to learn from, expected at least one video")
        self.config, self.source = config, source

    def __getitem__(self, place: tuple[int, int]) -> Example:
        step, slot = place
        config, plan, data = self.config, plan_step(self.config, step), self.config.data
        position = step * max(data.batch, data.image_batch or 0) + slot
        rng = default_rng([config.run.seed, Stream.CLIP, step, slot])
        clip, skipped = self._next_clip(position // data.views, plan, rng)
        clip = cut_out(clip, data.zoom, data.min_area, rng)
        frames, masks = square_clip(clip, plan.size)
        rows = masks.shape[1]
        ground = torch.arange(rows) == (rows - 1 if clip.ground_THW is not None else rows)
        if config.run.cuda_graphs:
            wanted = data.objects + (plan.frames == 1 and config.prompts.ground > 0)
            masks = F.pad(masks, (0, 0, 0, 0, 0, wanted - rows))
            ground, rows = F.pad(ground, (0, wanted - rows), value=True), wanted
        variations = tuple(draw_variation(plan.frames, rng) for _ in range(data.repeats if data.augment else 0))
        shape = (data.repeats, plan.frames, rows, draws_needed(config))
        return Example(frames, masks, ground, torch.from_numpy(rng.random(shape, dtype=np.float32)), variations, skipped)

    def _next_clip(self, position: int, plan: StepPlan, rng: Generator) -> tuple[Clip, int]:
        data = self.config.data
        ground = plan.frames == 1 and rng.random() < self.config.prompts.ground
        request = ClipRequest(plan.frames, data.max_stride, data.objects, data.min_area, ground)
        last: str | None = None
        for skipped in range(_ATTEMPTS):
            # Skipping on in the epoch's order would show the next example twice: the replacement is drawn.
            index = self._index(position) if not skipped else int(rng.integers(len(self.source)))
            try:
                clip = self.source.read(index, request, rng)
            except VideoError as error:
                last = str(error)
                continue
            if clip is not None:
                return clip, skipped
        reason = f"the last one: {last}" if last else "they show no object on their first frame"
        raise ConfigError(f"{_ATTEMPTS} clips in a row cannot be learnt from; {reason}")

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self.source))
        return int(_order(self.config.run.seed, epoch, len(self.source))[place])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return default_rng([seed, Stream.ORDER, epoch]).permutation(length)


def collate(stage: int, plans: tuple[StepPlan, ...], examples: Sequence[Example]) -> Material:
    """Examples side by side."""
    lanes = torch.repeat_interleave(torch.tensor([example.masks_TNSS.shape[1] for example in examples]))
    varied = bool(examples[0].variations)

    def stacked(of: Callable[[Variation], Tensor]) -> Tensor | None:
        steps = zip(*(example.variations for example in examples), strict=True)
        return torch.stack([torch.cat([of(one) for one in step]) for step in steps]) if varied else None

    return Material(
        stage,
        plans,
        torch.stack([example.frames_T3SS for example in examples]),
        torch.cat([example.masks_TNSS for example in examples], dim=1),
        lanes,
        torch.cat([example.ground_N for example in examples]),
        torch.cat([example.draws_RTNK for example in examples], dim=2),
        stacked(lambda one: one.affine_V23),
        stacked(lambda one: one.factors_VT3),
        sum(example.skipped for example in examples),
    )


class _Batches(Dataset[Material]):
    """Whole batches by the numbers of the stage and the step: a loader process makes one at a time."""

    def __init__(self, stages: Sequence[Examples], rank: int, world: int) -> None:
        self.stages, self.rank, self.world = stages, rank, world

    def __getitem__(self, place: tuple[int, int]) -> Material:
        stage, step = place
        examples = self.stages[stage]
        plans = tuple(plan_step(examples.config, step, repeat) for repeat in range(examples.config.data.repeats))
        share = plans[0].batch // self.world
        slots = range(self.rank * share, (self.rank + 1) * share)
        return collate(stage, plans, [examples[step, slot] for slot in slots])


def materials(schedule: Schedule, first_step: int, rank: int = 0, world: int = 1) -> Iterator[Material]:
    """What the steps from ``first_step`` on learn from: the share of this one of ``world`` workers.

    Raises:
        ConfigError: no data, or batches that cannot be shared out evenly.
    """
    stages = [stage.config for stage in schedule.stages]
    for size in sorted({size for one in stages for size in (one.data.batch, one.data.image_batch or one.data.batch)}):
        if size % world:
            raise ConfigError(f"a batch of {size} clips cannot be shared evenly by {world} workers")
    loaders = stages[0].data.loaders
    return iter(
        DataLoader(
            _Batches([Examples(one, open_clips(one.data)) for one in stages], rank, world),
            batch_size=None,
            sampler=schedule.places(first_step),
            num_workers=loaders,
            # With repeats, more would only delay the next stage.
            prefetch_factor=None if not loaders else 4 if all(one.data.repeats == 1 for one in stages) else 1,
            persistent_workers=loaders > 0,
            multiprocessing_context="spawn" if loaders else None,
            pin_memory=torch.cuda.is_available(),
        )
    )
