"""One step of tracking with PyTorch, for many objects of many videos at once. Nothing here knows of sessions or files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.memory_bank import FrameRecord, MemoryRules
from sam2_pipeline.model.memory_batch import gather
from sam2_pipeline.model.sam2 import MaskPrediction, Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.clean import fill_holes
from sam2_pipeline.segment.engine import Row, alike
from sam2_pipeline.segment.options import TrackingOptions


def lane_indices(rows: Sequence[Row], device: torch.device) -> Tensor:
    return torch.tensor([row.lane for row in rows], device=device)


def see(model: Sam2, features: FrameFeatures, rows: Sequence[Row], rules: MemoryRules) -> list[tuple[list[int], Tensor]]:
    """The image embedding as each row's memory shows it: (row numbers, ``[n, D, h, h]``) per group of rows that are `alike`."""
    seen = []
    for numbers, plans in alike(rows, rules):
        memory = gather([rows[n].bank for n in numbers], plans, model.device)
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
