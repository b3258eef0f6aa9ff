"""One step of tracking, for many objects of many videos at once. Nothing here knows of sessions or files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.memory_bank import MAX_POINTERS, FrameRecord, MemoryBank, MemoryRules
from sam2_pipeline.model.memory_batch import gather
from sam2_pipeline.model.sam2 import MaskPrediction, Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.clean import fill_holes


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """How objects are tracked. The defaults do what a user means; `compat` sets what the reference does.

    Attributes:
        memory: which memories are read.
        decoding: how one mask is chosen among the decoder's.
        binarise_prompted: masks of prompted frames are remembered as 0 or 1, not as probabilities.
        fill_hole_area: background components up to this many low-resolution pixels are filled.
        non_overlapping: a pixel belongs to the object with the highest logit only (in what is handed out, not in memory).
        corrections_condition: a prompt on a frame that was tracked makes it a conditioning frame. The reference stores the
            result where the next propagation forgets it.
        own_timeline: an object is tracked only where a prompt of its own lies behind, in the direction of travel; prompts
            given while frames are walked through count from the next frame on.
        forget_around_corrections: a prompt makes the object forget what was tracked within seven strides of it.
        history_frames: how far from the current frame results can be corrected without losing their neighbours'
            memories; None keeps everything for ever. Costs about 0.8 MB per object and frame at 1024 pixels.
        row_batch: at most this many objects go through the network together; halved when memory runs out.
    """

    memory: MemoryRules = field(default_factory=MemoryRules)
    decoding: DecodingRules = field(default_factory=DecodingRules)
    binarise_prompted: bool = True
    fill_hole_area: int = 8
    non_overlapping: bool = False
    corrections_condition: bool = True
    own_timeline: bool = True
    forget_around_corrections: bool = False
    history_frames: int | None = 32
    row_batch: int = 16

    def __post_init__(self) -> None:
        if self.row_batch < 1:
            raise ConfigError(f"row_batch is {self.row_batch}, expected at least 1")
        if self.history_frames is not None and self.history_frames < 0:
            raise ConfigError(f"history_frames is {self.history_frames}, expected None or at least 0")

    def forget(self, bank: MemoryBank, frame: int) -> None:
        """Drops what the history need not hold, never what the next frame may read."""
        if self.history_frames is not None:
            bank.forget_far_from(frame, max(self.history_frames, self.memory.map_horizon), MAX_POINTERS)


@dataclass(frozen=True, slots=True)
class Row:
    """One object to be tracked on one frame: its memory, and the lane (picture) it looks at."""

    bank: MemoryBank
    frame_index: int
    direction: int
    video_length: int | None
    lane: int = 0


def lane_indices(rows: Sequence[Row], device: torch.device) -> Tensor:
    return torch.tensor([row.lane for row in rows], device=device)


def see(model: Sam2, features: FrameFeatures, rows: Sequence[Row], rules: MemoryRules) -> list[tuple[list[int], Tensor]]:
    """The image embedding as each row's memory shows it: (row numbers, ``[n, D, h, h]``) per group of equal memory signature.

    Grouping instead of padding: every row gets what it would get alone.
    """
    plans = [row.bank.plan(row.frame_index, row.direction, row.video_length, rules) for row in rows]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, plan in enumerate(plans):
        groups.setdefault(plan.signature, []).append(number)
    seen = []
    for numbers in groups.values():
        memory = gather([rows[n].bank for n in numbers], [plans[n] for n in numbers], model.device)
        seen.append((numbers, model.attend_memory(features, lane_indices([rows[n] for n in numbers], model.device), memory)))
    return seen


def track_rows(
    model: Sam2,
    features: FrameFeatures,
    rows: Sequence[Row],
    options: TrackingOptions,
    batch_size: BatchSize,
    storage: torch.device | None = None,
) -> list[FrameRecord]:
    """Tracks every row onto its frame; records in the order of the rows, with their memories, kept on ``storage``."""

    def track(batch: Sequence[Row]) -> list[FrameRecord]:
        records: dict[int, FrameRecord] = {}
        for numbers, embedding in see(model, features, batch, options.memory):
            lanes = lane_indices([batch[n] for n in numbers], model.device)
            prediction = model.decode_masks(embedding, features, lanes, rules=options.decoding)
            memory = model.encode_memory(features, lanes, prediction.logits_NHW, prediction.object_score_N, binarise=False)
            records.update(zip(numbers, make_records(prediction, options, storage, memory)))
        return [records[number] for number in range(len(batch))]

    return batch_size.run(rows, track)


def make_records(
    prediction: MaskPrediction, options: TrackingOptions, storage: torch.device | None = None, memory_NTC: Tensor | None = None
) -> list[FrameRecord]:
    """One record per row of a prediction, small holes filled. Tensors are copied: a view would keep the whole batch alive."""
    logits = fill_holes(prediction.logits_NHW, options.fill_hole_area)
    storage = storage or logits.device
    return [
        FrameRecord(
            logits[n].to(storage, copy=True),
            prediction.predicted_iou_N[n].clone(),
            prediction.object_score_N[n].clone(),
            prediction.pointer_ND[n].clone(),
            None if memory_NTC is None else memory_NTC[n].to(storage, copy=True),
        )
        for n in range(len(logits))
    ]


def remember(
    model: Sam2,
    features: FrameFeatures,
    records: Sequence[FrameRecord],
    options: TrackingOptions,
    batch_size: BatchSize,
    storage: torch.device | None = None,
) -> None:
    """Encodes the memories of prompted records of one frame, from their stored masks."""

    def encode(batch: Sequence[FrameRecord]) -> list[Tensor]:
        logits = torch.stack([r.logits_HW for r in batch if r.logits_HW is not None]).to(model.device)
        scores = torch.stack([r.object_score for r in batch])
        lanes = torch.zeros(len(batch), dtype=torch.long, device=model.device)
        memory = model.encode_memory(features, lanes, logits, scores, binarise=options.binarise_prompted)
        return [memory_TC.to(storage or memory_TC.device, copy=True) for memory_TC in memory]

    for record, memory_TC in zip(records, batch_size.run(records, encode)):
        record.memory_TC = memory_TC
