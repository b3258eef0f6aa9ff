"""What one step of training does, from the seed and its number alone: nothing has to be remembered to continue a run."""

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Literal

from numpy.random import default_rng

from sam2_pipeline.training.settings import TrainConfig


@unique
class Stream(IntEnum):
    """Streams of random numbers, by what is drawn from them: after the run's seed, before the numbers of step and clip."""

    STEP = 1
    ORDER = 2
    CLIP = 3
    PROMPTS = 4


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step; the same for all its clips, so that they share a batch.

    Attributes:
        step: its number, from 0.
        batch: how many clips.
        frames: how many frames each has; 1 is a step on single pictures.
        size: side of the network's input, in pixels.
        prompt: what the first prompts are.
        prompted: frames with a first prompt, beginning with frame 0; they condition the others. Without any, nothing is decoded.
        corrected: frames that get correction clicks.
        corrections: how many clicks each of these gets.
        anywhere: chance that such a click falls anywhere in the object.
    """

    step: int
    batch: int
    frames: int
    size: int
    prompt: Literal["click", "box", "mask"]
    prompted: tuple[int, ...]
    corrected: tuple[int, ...]
    corrections: int
    anywhere: float


def plan_step(config: TrainConfig, step: int, repeat: int = 0) -> StepPlan:
    """The plan of step number ``step + repeat``, which looks at the clips of step number ``step``."""
    data, prompts = config.data, config.prompts
    rng = default_rng([config.run.seed, Stream.STEP, step])
    size = int(rng.choice(data.image_sizes)) if data.image_sizes else config.model.config.image_size
    single = bool(data.frames == 1 or rng.random() < data.image_share)
    rng = default_rng([config.run.seed, Stream.PROMPTS, step + repeat])
    draw = rng.random()
    prompt: Literal["click", "box", "mask"] = "click"
    if draw < prompts.mask + prompts.box:
        prompt = "mask" if draw < prompts.mask else "box"
    prompted: tuple[int, ...] = (0,)
    corrected: tuple[int, ...] = (0,)
    if single:
        # A mask given for a picture leaves nothing to predict.
        prompt = prompt if prompt != "mask" else "click"
    else:
        others = [int(t) for t in rng.permutation(range(1, data.frames))]
        more, corrections = (int(rng.integers(most)) for most in (prompts.conditioning_frames, prompts.corrected_frames))
        prompted = (0, *sorted(others[:more]))
        # After masks there are no corrections: as in semi-supervised segmentation.
        corrected = () if prompt == "mask" else (*prompted, *sorted(others[more : more + corrections]))
    if not prompts.given:
        prompted = corrected = ()
    batch, frames = (data.image_batch or data.batch, 1) if single else (data.batch, data.frames)
    return StepPlan(step + repeat, batch, frames, size, prompt, prompted, corrected, prompts.corrections, prompts.anywhere)
