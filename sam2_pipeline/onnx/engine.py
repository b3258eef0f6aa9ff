"""The engine of a `VideoSession` that runs the networks with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT, PREVIOUS_LOGIT_LIMIT
from sam2_pipeline.model.memory_bank import FrameRecord, MemoryBank, ReadingPlan
from sam2_pipeline.onnx.arrays import fill_holes, from_bfloat16, normalise, resize_maps, to_bfloat16
from sam2_pipeline.onnx.choosing import Prediction
from sam2_pipeline.onnx.model import Features, Memories, OnnxModel
from sam2_pipeline.onnx.results import FrameResult
from sam2_pipeline.segment.engine import Row, alike
from sam2_pipeline.segment.options import TrackingOptions


class OnnxEngine:
    """An `OnnxModel` at work. Memories are kept as the 16 bits of bfloat16."""

    def __init__(self, model: OnnxModel, options: TrackingOptions):
        self.model, self.options = model, options

    @property
    def image_size(self) -> int:
        return self.model.config.image_size

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return normalise(image.transpose(2, 0, 1))

    def mask_prompts(self, masks_NHW: np.ndarray) -> np.ndarray:
        side = self.image_size
        if masks_NHW.shape[-2:] == (side, side):
            return masks_NHW.astype(np.float32)
        return (resize_maps(masks_NHW, (side, side), antialias=True) >= 0.5).astype(np.float32)

    @property
    def together(self) -> int:
        return 1

    def encode(self, images_3SS: Sequence[np.ndarray]) -> list[Features]:
        return [self.model.encode_frames(image[None]) for image in images_3SS]

    def decode_points(
        self, features: Features, row: Row | None, points_P2: np.ndarray, labels_P: np.ndarray, earlier: FrameRecord | None
    ) -> FrameRecord:
        previous = None
        if earlier is not None and earlier.logits_HW is not None:
            previous = np.clip(earlier.logits_HW, -PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)[None]
        lanes = np.zeros(1, np.int64)
        memory = None
        if row is not None:
            [(_, plans)] = alike([row], self.options.memory)
            memory = gather([row.bank], plans)
        embedding = self.model.attend_memory(features, lanes, memory)
        prediction = self.model.decode_masks(
            embedding, features, lanes, points_P2[None], labels_P[None], previous, rules=self.options.decoding
        )
        return self._records(prediction)[0]

    def adopt_masks(self, features: Features, masks_NSS: np.ndarray) -> list[FrameRecord]:
        lanes = np.zeros(len(masks_NSS), np.int64)
        return self._records(self.model.adopt_masks(features, lanes, masks_NSS, self.options.decoding))

    def remember(self, features: Features, records: Sequence[FrameRecord]) -> None:
        logits = np.stack([record.logits_HW for record in records if record.logits_HW is not None])
        scores = np.stack([record.object_score for record in records])
        lanes = np.zeros(len(records), np.int64)
        memory = self.model.encode_memory(features, lanes, logits, scores, binarise=self.options.binarise_prompted)
        for record, memory_TC in zip(records, memory, strict=True):
            record.memory_TC = to_bfloat16(memory_TC)

    def track(self, features: Features, rows: Sequence[Row]) -> list[FrameRecord]:
        records: dict[int, FrameRecord] = {}
        for start in range(0, len(rows), self.options.row_batch):
            batch = rows[start : start + self.options.row_batch]
            for numbers, plans in alike(batch, self.options.memory):
                lanes = np.array([batch[n].lane for n in numbers])
                embedding = self.model.attend_memory(features, lanes, gather([batch[n].bank for n in numbers], plans))
                prediction = self.model.decode_masks(embedding, features, lanes, rules=self.options.decoding)
                memory = self.model.encode_memory(
                    features, lanes, prediction.logits_NHW, prediction.object_score_N, binarise=False
                )
                found = self._records(prediction, to_bfloat16(memory))
                records.update(zip((start + n for n in numbers), found, strict=True))
        return [records[number] for number in range(len(rows))]

    def result(
        self, frame_index: int, timestamp_s: float, records: dict[int, FrameRecord | None], height: int, width: int
    ) -> FrameResult:
        N, side = len(records), self.model.mask_side
        logits = np.full((N, side, side), NO_OBJECT_LOGIT, np.float32)
        iou, score = np.zeros(N, np.float32), np.full(N, NO_OBJECT_LOGIT, np.float32)
        for n, record in enumerate(records.values()):
            if record is not None:
                iou[n], score[n] = record.predicted_iou, record.object_score
                if record.logits_HW is not None:
                    logits[n] = record.logits_HW
        non_overlapping = self.options.non_overlapping
        return FrameResult(frame_index, timestamp_s, tuple(records), logits, iou, score, height, width, non_overlapping)

    def _records(self, prediction: Prediction, memory_NTC: np.ndarray | None = None) -> list[FrameRecord]:
        """One record per row, small holes filled. Arrays are copied: a view would keep the whole batch alive."""
        logits = fill_holes(prediction.logits_NHW, self.options.fill_hole_area)
        return [
            FrameRecord(
                logits[n].copy(),
                prediction.predicted_iou_N[n],
                prediction.object_score_N[n],
                prediction.pointer_ND[n].copy(),
                None if memory_NTC is None else memory_NTC[n].copy(),
            )
            for n in range(len(logits))
        ]


def gather(banks: Sequence[MemoryBank], plans: Sequence[ReadingPlan]) -> Memories:
    """Stacks what the banks' objects read; all plans have the same signature and at least one map."""

    def record(bank: MemoryBank, frame: int) -> FrameRecord:
        found = bank.record(frame)
        assert found is not None, f"planned to read frame {frame}, which the bank does not hold"
        return found

    maps: np.ndarray = np.array([[record(bank, frame).memory_TC for frame, _ in plan.maps] for bank, plan in zip(banks, plans)])
    dim = record(banks[0], plans[0].maps[0][0]).pointer_D.shape[-1]
    pointers = [[record(bank, frame).pointer_D for frame, _ in plan.pointers] for bank, plan in zip(banks, plans)]
    time = [[age / plan.pointer_span for _, age in plan.pointers] for plan in plans]
    return Memories(
        from_bfloat16(maps),
        np.array([[row for _, row in plan.maps] for plan in plans], np.int64),
        np.array(pointers, np.float32).reshape(len(banks), -1, dim),
        np.array(time, np.float32).reshape(len(banks), -1),
    )
