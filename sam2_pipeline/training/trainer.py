"""The training loop: `train` runs, or continues, the training that a `TrainConfig` describes.

In its folder: ``checkpoint.pt`` (to continue), ``log.csv``, ``pictures/``, ``settings.yaml``, and at the end
``weights.safetensors``, which `load_model` takes (and with ``loss.pixels`` ``teacher.safetensors``, for ``model.teacher``).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sam2_pipeline.errors import ConfigError, PipelineError, StorageError
from sam2_pipeline.model.checkpoint import build_model, load_model
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.settings import to_plain
from sam2_pipeline.training.clip_forward import ClipLearner, Outcome, see_frames
from sam2_pipeline.training.graphs import GraphedSteps
from sam2_pipeline.training.journal import Journal, numbers, save_sheet
from sam2_pipeline.training.loading import Batch, Material, materials
from sam2_pipeline.training.optimizer import SlowCopy, freeze, make_optimizer, set_learning_rate
from sam2_pipeline.training.saving import Reached, load_teacher, resume, save, save_weights, write_whole
from sam2_pipeline.training.schedule import Schedule
from sam2_pipeline.training.settings import PRETRAINED, TrainConfig

_LOST_IN_A_ROW = 5  # steps without a finite gradient after which there is no hope


@dataclass(frozen=True, slots=True)
class Progress:
    """What is reported after a step. ``steps`` is how many there will be, a guess where the clock decides. ``values`` are those
    of the log, None on steps that are not logged."""

    step: int
    steps: int
    values: dict[str, float] | None


def train(config: TrainConfig, report: Callable[[Progress], None] | None = None) -> Path:
    """Trains to the end, continuing what is in ``run.output``; gives the path of the weights.

    Inside an initialised ``torch.distributed`` group, each process is one of several workers that share every batch.

    Raises:
        ConfigError: settings that do not fit, or data to learn nothing from.
        CheckpointError: weights to start from, or a run to continue, that cannot be read.
        PipelineError: the loss is no longer a number, step after step. The last checkpoint stays as it is.
    """
    return Trainer(config, report or (lambda _: None)).run()


class Trainer:
    """One worker's share of a run."""

    def __init__(self, config: TrainConfig, report: Callable[[Progress], None]) -> None:
        self.config, self.report = config, report
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        check_workers(config, self.world)
        self.folder = Path(config.run.output).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"run.output {self.folder} cannot be made: {error.strerror}") from error
        self.model = start_model(config)
        freeze(self.model, config.model.freeze)
        self.learner = ClipLearner(self.model, config.loss, config.run.compile)
        if config.model.teacher is not None and self.learner.pixels is not None:
            load_teacher(self.learner.pixels, config.model.teacher)
        self.trained = [parameter for parameter in self.learner.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(self.model, config.optim, self.learner.pixels)
        self.slow = SlowCopy(self.model, config.optim.ema, config.optim.ema_ramp)
        reached = resume(self.folder, self.learner, self.slow, self.optimizer, config)
        self.step, self.skipped = reached.step, reached.skipped
        self.schedule = Schedule(config, reached.seconds)
        self.materials = materials(self.schedule, self.step, self.rank, self.world)
        self.forward: nn.Module = self.learner
        if self.world > 1:
            # Which parameters take part differs from step to step (mask prompts, memory), but not between workers.
            self.forward = DistributedDataParallel(self.learner, find_unused_parameters=True)
        # Looked at when something is logged or saved: a look at every step would keep the device waiting.
        self.lost = torch.tensor(reached.lost, device=self.model.device)
        self.lost_in_a_row = torch.zeros_like(self.lost)
        self.waited = 0.0
        self.newest: list[Material] = []
        self.seen: dict[int, FrameFeatures] = {}
        self.graphs = None
        if config.run.cuda_graphs and self.world == 1 and self.model.device.type == "cuda":
            self.optimizer.keep_rates_on(self.model.device)
            self.graphs = GraphedSteps(self.learner, self.trained, self._update)

    def run(self) -> Path:
        if self.rank == 0:
            write_whole(self.folder / "settings.yaml", yaml.safe_dump(to_plain(self.config), sort_keys=False).encode())
            self.journal = Journal(self.folder, self.step)
        saved = self.step
        for material in self._materials():
            for batch in self._batches(material):
                self._take_step(batch)
            # Between two batches, and nowhere else: a run is continued with the next one. And not while steps are being lost.
            if self.step // self.config.run.save_every > saved // self.config.run.save_every and not int(self.lost_in_a_row):
                self._save()
                saved = self.step
        if saved != self.step:
            self._check(most=1)
            self._save()
        if self.rank == 0:
            return save_weights(self.folder, self.slow, self.learner.pixels)
        return self.folder / "weights.safetensors"

    def _materials(self) -> Iterator[Material]:
        """What the loaders give, and how long they were waited for."""
        while True:
            begun = time.monotonic()
            material = next(self.materials, None)
            self.waited += time.monotonic() - begun
            if material is None:
                return
            yield material

    def _batches(self, material: Material) -> Iterator[Batch]:
        """Those of the steps for which the material is the newest: of it and of those before it in its stage, in turn. One batch
        many times in a row would be learnt by heart."""
        if self.newest and self.newest[-1].stage != material.stage:
            self.newest = []
            if self.graphs is not None:
                self.graphs.forget()
        self.newest = [*self.newest, material.to(self.model.device)][-len(material.plans) :]
        if material.step < self.step:  # of a run that is continued: its steps have been taken
            return
        self.skipped += self._sum(material.skipped)
        for repeat in range(len(material.plans)):
            if self.schedule.over(self.step):
                return
            yield self._batch(self.newest[-1 - repeat % len(self.newest)], repeat)

    def _batch(self, material: Material, repeat: int) -> Batch:
        """Where neither the pictures nor the image encoder change from step to step, it looks at them once."""
        batch = material.batch(repeat)
        frozen = "image_encoder" in self.config.model.freeze
        if len(material.plans) == 1 or material.varied or not frozen or self.graphs is not None:
            return batch
        self.seen = {one.step: self.seen[one.step] for one in self.newest if one.step in self.seen}
        if material.step not in self.seen:
            with torch.no_grad():
                self.seen[material.step] = see_frames(self.model, batch.frames_VT3SS)
        return replace(batch, seen=self.seen[material.step])

    def _take_step(self, batch: Batch) -> None:
        outcome, norm = self._learn(batch)
        values = self._logged(outcome, norm)
        self.step += 1
        if self.rank == 0 and (self.step % self.config.run.pictures_every == 0 or self.schedule.over(self.step)):
            save_sheet(self.folder / "pictures" / f"{self.step:07d}.png", batch, outcome)
        self.report(Progress(self.step, self.schedule.total(self.step), values))

    def _learn(self, batch: Batch) -> tuple[Outcome, Tensor]:
        """One step; (what came out, norm of the gradient)."""
        self.share = self.schedule.rate(self.step)
        set_learning_rate(self.optimizer, self.share)
        if self.graphs is not None:
            outcome, norm = self.graphs.take(batch)
        else:
            outcome = self.forward(batch, self._sum(len(batch.lanes_N)) / self.world)
            self.optimizer.zero_grad()
            outcome.losses.total.backward()
            norm = self._update()
        self.slow.follow(self.step)
        return outcome, norm

    def _update(self) -> Tensor:
        """Takes the step that the gradients tell; gives their norm. Nothing here waits for the device."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.optim.clip)
        self._lose_unless(norm.isfinite())
        self.optimizer.step()
        return norm

    def _lose_unless(self, finite: Tensor) -> None:
        """A step whose gradient is not finite has none. With the gradients summed over workers, it is so for all of them."""
        self.lost += ~finite
        self.lost_in_a_row.copy_(torch.where(finite, 0, self.lost_in_a_row + 1))
        for parameter in self.trained:
            if parameter.grad is not None:
                torch.nan_to_num_(parameter.grad, 0.0, 0.0, 0.0)

    def _check(self, most: int = _LOST_IN_A_ROW) -> None:
        if (lost := int(self.lost_in_a_row)) >= most:
            raise PipelineError(
                f"step {self.step}: the gradients of {lost} steps in a row are not finite, expected that they are; nothing since "
                "the last checkpoint was kept. Lower optim.lr or optim.clip, and continue"
            )

    def _logged(self, outcome: Outcome, norm: Tensor) -> dict[str, float] | None:
        if self.step % self.config.run.log_every and not self.schedule.over(self.step + 1):
            return None
        self._check()
        parts = {name: self._mean(getattr(outcome.losses, name).detach()) for name in outcome.losses.__slots__}
        counts = {"skipped": self.skipped, "lost": int(self.lost), "waited": self.waited, "seconds": self.schedule.seconds}
        values = numbers({"step": self.step, **parts, "rate": self.share, "norm": norm, **counts})
        if self.rank == 0:
            self.journal.add(values)
        return values

    def _save(self) -> None:
        if self.rank == 0:
            reached = Reached(self.step, self.skipped, int(self.lost), self.schedule.seconds)
            save(self.folder, self.learner, self.slow, self.optimizer, self.config, reached)

    def _sum(self, count: int) -> int:
        """Of all workers."""
        if self.world == 1:
            return count
        total = torch.tensor(count, device=self.model.device)
        dist.all_reduce(total)
        return int(total)

    def _mean(self, value: Tensor) -> Tensor:
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value / self.world


def check_workers(config: TrainConfig, workers: int) -> None:
    """Raises `ConfigError` for settings with which so many workers cannot train together."""
    if workers > 1 and config.optim.minutes is not None:
        raise ConfigError(
            f"optim.minutes is {config.optim.minutes}, expected null with {workers} workers, as clocks differ: give optim.steps"
        )


def start_model(config: TrainConfig) -> Sam2:
    """The model as training finds it: with weights of its own or those of a checkpoint, or random from the seed."""
    device = torch.device(config.run.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    halved = device.type == "cuda" if config.run.bfloat16 is None else config.run.bfloat16
    dtype = torch.bfloat16 if halved else torch.float32
    if config.model.checkpoint is not None:
        given = None if config.model.checkpoint == PRETRAINED else config.model.checkpoint
        return load_model(config.model.name, checkpoint=given, device=device, dtype=dtype).train()
    before = torch.random.get_rng_state()
    torch.manual_seed(config.run.seed)
    model = build_model(config.model.name, device=device, dtype=dtype).train()
    torch.random.set_rng_state(before)
    return model
