"""What one step of training does, from the seed and its number alone: nothing has to be remembered to continue a run."""

from dataclasses import dataclass
from typing import Literal

from numpy.random import default_rng

from sam2_pipeline.training.settings import TrainConfig

_STREAM = 1


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step; the same for all its clips, so that they share a batch.

    Attributes:
        step: its number, from 0.
        batch: how many clips.
        frames: how many frames each has; 1 is a step on single pictures.
        size: side of the network's input, in pixels.
        prompt: what the first prompts are.
        prompted: frames with a first prompt, beginning with frame 0; they condition the others.
        corrected: frames that get correction clicks.
    """

    step: int
    batch: int
    frames: int
    size: int
    prompt: Literal["click", "box", "mask"]
    prompted: tuple[int, ...]
    corrected: tuple[int, ...]


def plan_step(config: TrainConfig, step: int) -> StepPlan:
    """The plan of step number ``step``."""
    data, prompts = config.data, config.prompts
    rng = default_rng([config.run.seed, _STREAM, step])
    size = int(rng.choice(data.image_sizes)) if data.image_sizes else config.model.config.image_size
    draw = rng.random()
    prompt: Literal["click", "box", "mask"] = "click"
    if draw < prompts.mask + prompts.box:
        prompt = "mask" if draw < prompts.mask else "box"
    others = [int(t) for t in rng.permutation(range(1, data.frames))]
    more, corrections = (int(rng.integers(most)) for most in (prompts.conditioning_frames, prompts.corrected_frames))
    if data.frames == 1 or rng.random() < data.image_share:
        # A mask given for a picture leaves nothing to predict.
        prompt = prompt if prompt != "mask" else "click"
        return StepPlan(step, data.image_batch or data.batch, 1, size, prompt, (0,), (0,))
    prompted = (0, *sorted(others[:more]))
    # After masks there are no corrections: as in semi-supervised segmentation.
    corrected = () if prompt == "mask" else (*prompted, *sorted(others[more : more + corrections]))
    return StepPlan(step, data.batch, data.frames, size, prompt, prompted, corrected)
