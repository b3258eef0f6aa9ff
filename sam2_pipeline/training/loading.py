"""Batches for steps, in order, from any number of loader processes; the same whatever their number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator, default_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.training.augment import augment, to_square
from sam2_pipeline.training.clip_sources import open_clips
from sam2_pipeline.training.clips import Clip, ClipRequest, ClipSource
from sam2_pipeline.training.settings import TrainConfig
from sam2_pipeline.training.steps import StepPlan, plan_step

_ATTEMPTS = 50  # clips in a row that may be unfit
_ORDER, _CLIP = 2, 3  # streams of random numbers


@dataclass(frozen=True, slots=True)
class Example:
    """One clip as the network takes it.

    Attributes:
        frames_T3SS: uint8.
        masks_TNSS: bool.
        draws_TNK: random numbers in 0..1 for the clicks, `draws_needed` per frame and object.
        skipped: clips passed over because they show no object or cannot be read.
    """

    frames_T3SS: Tensor
    masks_TNSS: Tensor
    draws_TNK: Tensor
    skipped: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The clips of a step; V clips, N objects (rows) in all.

    Attributes:
        plan: what to do with them.
        frames_VT3SS: uint8.
        masks_TNSS: bool.
        lanes_N: the clip of every row.
        draws_TNK: see `Example`.
        skipped: see `Example`.
    """

    plan: StepPlan
    frames_VT3SS: Tensor
    masks_TNSS: Tensor
    lanes_N: Tensor
    draws_TNK: Tensor
    skipped: int

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            frames_VT3SS=function(self.frames_VT3SS),
            masks_TNSS=function(self.masks_TNSS),
            lanes_N=function(self.lanes_N),
            draws_TNK=function(self.draws_TNK),
        )


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
        config, plan = self.config, plan_step(self.config, step)
        position = step * max(config.data.batch, config.data.image_batch or 0) + slot
        rng = default_rng([config.run.seed, _CLIP, step, slot])
        clip, skipped = self._next_clip(position // config.data.views, plan, rng)
        frames, masks = to_square(clip, plan.size)
        if config.data.augment:
            varied, varied_masks = augment(frames, masks, rng)
            if varied_masks[0].flatten(1).any(dim=1).all():  # turned out of the picture: better as it was
                frames, masks = varied, varied_masks
        draws = torch.from_numpy(rng.random((*masks.shape[:2], draws_needed(config)), dtype=np.float32))
        return Example(frames.round().to(torch.uint8), masks, draws, skipped)

    def _next_clip(self, position: int, plan: StepPlan, rng: Generator) -> tuple[Clip, int]:
        data = self.config.data
        request = ClipRequest(plan.frames, data.max_stride, data.objects, data.min_area)
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
    return default_rng([seed, _ORDER, epoch]).permutation(length)


def collate(plan: StepPlan, examples: list[Example]) -> Batch:
    """Examples side by side."""
    lanes = torch.repeat_interleave(torch.tensor([example.masks_TNSS.shape[1] for example in examples]))
    return Batch(
        plan,
        torch.stack([example.frames_T3SS for example in examples]),
        torch.cat([example.masks_TNSS for example in examples], dim=1),
        lanes,
        torch.cat([example.draws_TNK for example in examples], dim=1),
        sum(example.skipped for example in examples),
    )


class _Steps(Dataset[Batch]):
    """Whole batches by the number of the step: a loader process makes one at a time."""

    def __init__(self, config: TrainConfig, examples: Examples, rank: int, world: int) -> None:
        self.config, self.examples, self.rank, self.world = config, examples, rank, world

    def __getitem__(self, step: int) -> Batch:
        plan = plan_step(self.config, step)
        share = plan.batch // self.world
        slots = range(self.rank * share, (self.rank + 1) * share)
        return collate(plan, [self.examples[step, slot] for slot in slots])


def batches(config: TrainConfig, first_step: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """The batches of steps ``first_step``, ``first_step + 1``, ..., those of this one of ``world`` workers.

    Raises:
        ConfigError: no data, or batches that cannot be shared out evenly.
    """
    for size in {config.data.batch, config.data.image_batch or config.data.batch}:
        if size % world:
            raise ConfigError(f"a batch of {size} clips cannot be shared evenly by {world} workers")
    steps = _Steps(config, Examples(config, open_clips(config.data)), rank, world)
    loaders = config.data.loaders
    return iter(
        DataLoader(
            steps,
            batch_size=None,
            sampler=range(first_step, config.optim.steps),
            num_workers=loaders,
            prefetch_factor=4 if loaders else None,
            persistent_workers=loaders > 0,
            multiprocessing_context="spawn" if loaders else None,
            pin_memory=torch.cuda.is_available(),
        )
    )
