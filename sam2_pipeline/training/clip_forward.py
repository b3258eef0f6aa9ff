"""The model on clips with simulated prompts, frame by frame, with gradients through memory: from a batch to losses.

Frames with a first prompt come first, then the others in order, as in SAM 2's own training. Letters in names as in
`model.sam2` and `loading`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sam2_pipeline.model.image_encoder import FrameFeatures, normalise
from sam2_pipeline.model.layers import constant, resize_maps
from sam2_pipeline.model.memory_bank import MemoryRules, plan_reading
from sam2_pipeline.model.memory_batch import MemoryBatch
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.training.clicks import boxes, correction_clicks, first_clicks
from sam2_pipeline.training.decoding import Candidates, decode_candidates
from sam2_pipeline.training.loading import Batch
from sam2_pipeline.training.losses import Losses, mask_losses, nothing
from sam2_pipeline.training.pixels import PixelTeacher
from sam2_pipeline.training.settings import LossSection

# Without cuDNN's: a run with it met a gradient that was not finite (H200, PyTorch 2.11, bfloat16), those without it did not.
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True, slots=True)
class Remembered:
    """One frame of all rows: its memory and pointer, and the mask logits that were shown."""

    memory_NTC: Tensor
    pointer_ND: Tensor
    logits_NHW: Tensor


@dataclass(frozen=True, slots=True)
class Outcome:
    """Losses of a batch, and the masks ``[T, N, S/4, S/4]`` (logits, without gradient) that came out."""

    losses: Losses
    logits_TNHW: Tensor


class ClipLearner(nn.Module):
    """The model and its teacher; calling it is one training step's forward pass (a module, so that DDP can wrap it)."""

    def __init__(self, model: Sam2, loss: LossSection, compiled: bool = False) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.pixels = PixelTeacher(model.config).to(model.device) if loss.pixels else None
        self.mask_losses = torch.compile(mask_losses, dynamic=True) if compiled else mask_losses

    def forward(self, batch: Batch, rows: Tensor | float | None = None) -> Outcome:
        """``rows``: how many rows this step has on average per worker, if there are several workers."""
        with input_size(self.model, batch.plan.size), sdpa_kernel(_ATTENTION), rounding_once(self.model):
            return _Lesson(self, batch, len(batch.lanes_N) if rows is None else rows).run()


@contextmanager
def input_size(model: Sam2, size: int) -> Iterator[None]:
    """The model at another size of its input; no weight depends on it."""
    before = model.config
    try:
        model.config, model.sam_prompt_encoder.image_size = replace(before, image_size=size), size
        yield
    finally:
        model.config, model.sam_prompt_encoder.image_size = before, before.image_size


def rounding_once(model: Sam2) -> AbstractContextManager:
    """Autocast keeps its rounded copies of weights while any of its contexts is open: one that does nothing, about all of a step,
    makes it round a weight once and not in every frame. (Not weights that are put in
    order first: those of `PairedLinear`, and of the mask's first convolutions.)"""
    return torch.autocast(model.device.type, enabled=False)


def see_frames(model: Sam2, frames_VT3SS: Tensor) -> FrameFeatures:
    """Features of the frames of clip after clip."""
    return model.encode_frames(normalise(frames_VT3SS.flatten(0, 1)))


def _by_frame(features: FrameFeatures, frames: int) -> list[FrameFeatures]:
    """Features of V clips of T frames as those of V pictures, T times."""
    levels = (features.stride16_VDHW, features.stride8_VCHW, features.stride4_VCHW)
    apart = (maps.unflatten(0, (-1, frames)).unbind(1) for maps in levels)
    return [FrameFeatures(*maps) for maps in zip(*apart, strict=True)]


class _Lesson:
    """One batch on its way through the model."""

    def __init__(self, learner: ClipLearner, batch: Batch, rows: Tensor | float) -> None:
        self.learner, self.model, self.batch, self.plan, self.rows = learner, learner.model, batch, batch.plan, rows
        frames = batch.frames_VT3SS
        self.seen = see_frames(self.model, frames) if batch.seen is None else batch.seen
        self.features = _by_frame(self.seen, frames.shape[1])
        self.ground_N11 = batch.ground_N[:, None, None]
        self.prompted: dict[int, Remembered] = {}
        self.tracked: dict[int, Remembered] = {}
        self.losses, self.decodings = nothing(frames.device), 0

    def run(self) -> Outcome:
        taught, joined = self._join_pixels()
        if not self.plan.prompted:
            return Outcome(taught, joined)
        order = [*self.plan.prompted, *(t for t in range(self.plan.frames) if t not in self.plan.prompted)]
        for t in order:
            features = self.features[t]
            conditioning = t in self.plan.prompted or t in self.plan.corrected
            seen = self._mask_given(features, t) if self._takes_mask(t) else self._looked(features, t)
            (self.prompted if conditioning else self.tracked)[t] = seen
        shown = torch.stack([(self.prompted | self.tracked)[t].logits_NHW.detach() for t in range(self.plan.frames)])
        return Outcome(self.losses.over(max(self.decodings, 1)) + taught, shown)

    def _join_pixels(self) -> tuple[Losses, Tensor]:
        """What pairs of pixels teach, the mean over the frames; and the masks that they make."""
        taught, teacher, weights = nothing(self.ground_N11.device), self.learner.pixels, self.learner.loss
        if teacher is None:
            return taught, taught.total
        batch = self.batch
        with self.model.precision():
            losses_TN, logits_TNHW = teacher.losses(self.seen, batch.lanes_N, batch.masks_TNSS, batch.draws_TNK[0], weights)
        loss = losses_TN.mean(dim=0).sum() / self.rows
        return replace(taught, total=weights.pixels * loss, pixels=loss.detach()), logits_TNHW.detach()

    def _takes_mask(self, t: int) -> bool:
        return self.plan.prompt == "mask" and t in self.plan.prompted

    def _mask_given(self, features: FrameFeatures, t: int) -> Remembered:
        """The true mask is the prompt and the result; there is nothing to learn but what comes of remembering it."""
        given = self.model.adopt_masks(features, self.batch.lanes_N, self.batch.masks_TNSS[t])
        return self._remembered(features, given.logits_NHW, given.object_score_N, given.pointer_ND)

    def _looked(self, features: FrameFeatures, t: int) -> Remembered:
        """The first prompt, or none where the object is tracked, then corrections where there shall be any."""
        masks, draws, lanes = self.batch.masks_TNSS[t], self.batch.draws_TNK[t], self.batch.lanes_N
        points = self._first_prompt(masks, draws) if t in self.plan.prompted else None
        truth = masks & ~self.ground_N11
        memory = None if t in self.plan.prompted else self._memory(t)
        embedding = self.model.attend_memory(features, lanes, memory)
        found = decode_candidates(self.model, embedding, features, lanes, points)
        # A box around the ground holds objects: what the model makes of it is none of our business.
        scored = self.batch.ground_N & masks.flatten(1).any(dim=1) if self.plan.prompt == "click" else None
        self._judge(found, truth, scored)
        for turn in range(self.plan.corrections if t in self.plan.corrected else 0):
            where, anywhere = draws[:, 4 + 2 * turn], draws[:, 5 + 2 * turn] < self.plan.anywhere
            logits = found.chosen_logits().detach()
            predicted = resize_maps(logits[:, None], tuple(truth.shape[-2:]))[:, 0] > 0  # type: ignore[arg-type]
            click = correction_clicks(predicted & ~anywhere[:, None, None], truth, where)
            points = click if points is None else (torch.cat((points[0], click[0]), 1), torch.cat((points[1], click[1]), 1))
            found = decode_candidates(self.model, embedding, features, lanes, points, logits)
            self._judge(found, truth, scored)
        return self._remembered(features, found.shown_logits(), found.object_score_N, found.pointer_ND)

    def _first_prompt(self, truth_NSS: Tensor, draws_NK: Tensor) -> tuple[Tensor, Tensor]:
        return boxes(truth_NSS, draws_NK[:, :4]) if self.plan.prompt == "box" else first_clicks(truth_NSS, draws_NK[:, 0])

    def _judge(self, found: Candidates, truth_NSS: Tensor, scored_N: Tensor | None) -> None:
        losses = self.learner.mask_losses(found, truth_NSS, self.learner.loss, self.rows, self.batch.ground_N, scored_N)
        self.losses = self.losses + losses
        self.decodings += 1

    def _remembered(self, features: FrameFeatures, logits: Tensor, object_score: Tensor, pointer: Tensor) -> Remembered:
        if self.plan.frames == 1:  # nobody will ask
            return Remembered(logits[:, :0, :0], pointer, logits)
        # Probabilities, not a cut mask, also on prompted frames: a cut would let no gradient through.
        memory = self.model.encode_memory(features, self.batch.lanes_N, logits, object_score, binarise=False)
        return Remembered(memory, pointer, logits)

    def _memory(self, t: int) -> MemoryBatch:
        """What frame ``t`` reads: the same frames for all rows."""
        plan = plan_reading(list(self.prompted), self.tracked, t, 1, self.plan.frames, MemoryRules())
        known, N, device = self.prompted | self.tracked, len(self.batch.lanes_N), self.batch.lanes_N.device
        pointers = [known[frame].pointer_ND for frame, _ in plan.pointers]
        times = constant([age / plan.pointer_span for _, age in plan.pointers], device)
        return MemoryBatch(
            torch.stack([known[frame].memory_NTC for frame, _ in plan.maps], dim=1),
            constant([row for _, row in plan.maps], device, torch.long).expand(N, -1),
            torch.stack(pointers, dim=1) if pointers else torch.zeros(N, 0, self.model.config.hidden_dim, device=device),
            times.expand(N, -1),
        )
