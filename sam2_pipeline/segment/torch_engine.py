"""The engine of a `VideoSession` that runs the networks with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT, PREVIOUS_LOGIT_LIMIT
from sam2_pipeline.model.image_encoder import FrameFeatures, normalise
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.memory_bank import FrameRecord
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.engine import Row
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.tracking import make_records, remember, see, track_rows

_SMALL = 384  # side of the network input up to which one frame is too little work for two processors, or a GPU


class TorchEngine:
    """A `Sam2` at work. ``storage`` is where records are kept, by default the model's device."""

    def __init__(self, model: Sam2, options: TrackingOptions, storage: torch.device | None = None):
        self.model, self.options, self.storage = model, options, storage or model.device
        self.batch_size = BatchSize(options.row_batch)

    @property
    def image_size(self) -> int:
        return self.model.config.image_size

    def prepare(self, image: np.ndarray) -> Tensor:
        return normalise(torch.tensor(image).to(self.model.device).permute(2, 0, 1))

    def mask_prompts(self, masks_NHW: np.ndarray) -> Tensor:
        return mask_prompt(torch.from_numpy(masks_NHW), self.image_size)

    @property
    def together(self) -> int:
        return 2 if self.image_size <= _SMALL else 1

    @torch.inference_mode()
    def encode(self, images_3SS: Sequence[Tensor]) -> list[FrameFeatures]:
        features = self.model.encode_frames(torch.stack(list(images_3SS)))
        return [features.select(slice(place, place + 1)) for place in range(len(images_3SS))]

    @torch.inference_mode()
    def decode_points(
        self, features: FrameFeatures, row: Row | None, points_P2: np.ndarray, labels_P: np.ndarray, earlier: FrameRecord | None
    ) -> FrameRecord:
        device = self.model.device
        previous = None
        if earlier is not None and earlier.logits_HW is not None:
            previous = earlier.logits_HW.to(device).clamp(-PREVIOUS_LOGIT_LIMIT, PREVIOUS_LOGIT_LIMIT)[None]
        lanes = torch.zeros(1, dtype=torch.long, device=device)
        if row is None:
            embedding = self.model.attend_memory(features, lanes, None)
        else:
            [(_, embedding)] = see(self.model, features, [row], self.options.memory)
        points, labels = torch.as_tensor(points_P2)[None].to(device), torch.as_tensor(labels_P)[None].to(device)
        prediction = self.model.decode_masks(embedding, features, lanes, points, labels, previous, rules=self.options.decoding)
        [record] = make_records(prediction, self.options, self.storage)
        return record

    @torch.inference_mode()
    def adopt_masks(self, features: FrameFeatures, masks_NSS: Tensor) -> list[FrameRecord]:
        def adopt(masks_NSS: Tensor) -> list[FrameRecord]:
            lanes = torch.zeros(len(masks_NSS), dtype=torch.long, device=self.model.device)
            prediction = self.model.adopt_masks(features, lanes, masks_NSS.to(self.model.device), self.options.decoding)
            return make_records(prediction, self.options, self.storage)

        return self.batch_size.run(masks_NSS, adopt)

    @torch.inference_mode()
    def remember(self, features: FrameFeatures, records: Sequence[FrameRecord]) -> None:
        remember(self.model, features, records, self.options, self.batch_size, self.storage)

    @torch.inference_mode()
    def track(self, features: FrameFeatures, rows: Sequence[Row]) -> list[FrameRecord]:
        return track_rows(self.model, features, rows, self.options, self.batch_size, self.storage)

    @torch.inference_mode()
    def result(
        self, frame_index: int, timestamp_s: float, records: dict[int, FrameRecord | None], height: int, width: int
    ) -> FrameResult:
        side, device = self.model.mask_side, self.model.device
        known = list(records.values())
        absent = torch.full((side, side), NO_OBJECT_LOGIT, device=device)
        zero, low = torch.zeros((), device=device), torch.full((), NO_OBJECT_LOGIT, device=device)
        logits = [absent if r is None or r.logits_HW is None else r.logits_HW.to(device) for r in known]
        return FrameResult(
            frame_index,
            timestamp_s,
            tuple(records),
            torch.stack(logits) if known else absent[None][:0],
            torch.stack([zero if r is None else r.predicted_iou for r in known]) if known else zero[None][:0],
            torch.stack([low if r is None else r.object_score for r in known]) if known else zero[None][:0],
            height,
            width,
            self.options.non_overlapping,
        )


def mask_prompt(masks_NHW: Tensor, image_size: int) -> Tensor:
    """Masks of any size as 0 or 1 at the size of the network input."""
    masks = masks_NHW.float()
    if masks.shape[-2:] == (image_size, image_size):
        return masks
    return (resize_maps(masks[:, None], (image_size, image_size), antialias=True)[:, 0] >= 0.5).float()
