"""The graphs to export: a `Sam2`'s verbs as modules from tensors to tensors. Names of inputs and outputs are part of the format.

N, V, M, P and L (prompt tokens) may differ from call to call; the image size is that of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.mask_decoder import NUM_MASKS
from sam2_pipeline.model.memory_batch import MemoryBatch
from sam2_pipeline.model.sam2 import Sam2


@dataclass(frozen=True, slots=True)
class Graph:
    """One file: ``inputs`` are examples by name, ``sizes`` the letters of their dimensions that may change."""

    module: nn.Module
    inputs: dict[str, Tensor]
    sizes: dict[str, str]
    outputs: tuple[str, ...]


def graphs_of(model: Sam2) -> dict[str, Graph]:
    """The graph of every part in `files.PARTS`."""
    config = model.config
    D, C, side = config.hidden_dim, config.memory_dim, config.feature_side
    # No two examples are equal, and none is 0 or 1: an exporter would think that they must be.
    V, N, M, P, L = 2, 3, 4, 5, 6
    S, low = config.image_size, config.image_size // 4
    stride16, lanes = torch.zeros(V, D, side, side), torch.zeros(N, dtype=torch.long)
    return {
        "image_encoder": Graph(
            _ImageEncoder(model),
            {"images": torch.zeros(V, 3, S, S)},
            {"images": "V"},
            ("stride16", "stride8", "stride4", "unremembered"),
        ),
        "mask_decoder": Graph(
            _MaskDecoder(model),
            {
                "embedding": torch.zeros(N, D, side, side),
                "stride8": torch.zeros(V, D // 4, 2 * side, 2 * side),
                "stride4": torch.zeros(V, D // 8, 4 * side, 4 * side),
                "lanes": lanes,
                "points": torch.zeros(N, L, 2),
                "labels": torch.zeros(N, L, dtype=torch.long),
                "mask_logits": torch.zeros(N, low, low),
                "has_mask": torch.zeros(N, dtype=torch.bool),
            },
            {
                "embedding": "N", "stride8": "V", "stride4": "V", "lanes": "N", "points": "NL", "labels": "NL",
                "mask_logits": "N", "has_mask": "N",
            },
            ("logits", "predicted_iou", "object_score", "pointers", "no_object_pointer"),
        ),
        "mask_prompt": Graph(_MaskPrompt(model), {"masks": torch.zeros(N, S, S)}, {"masks": "N"}, ("mask_logits",)),
        "memory_attention": Graph(
            _MemoryAttention(model),
            {
                "stride16": stride16,
                "lanes": lanes,
                "maps": torch.zeros(N, M, side * side, C),
                "map_rows": torch.zeros(N, M, dtype=torch.long),
                "pointers": torch.zeros(N, P, D),
                "pointer_time": torch.zeros(N, P),
            },
            {"stride16": "V", "lanes": "N", "maps": "NM", "map_rows": "NM", "pointers": "NP", "pointer_time": "NP"},
            ("embedding",),
        ),
        "memory_encoder": Graph(
            _MemoryEncoder(model),
            {
                "stride16": stride16,
                "lanes": lanes,
                "logits": torch.zeros(N, low, low),
                "object_score": torch.zeros(N),
                "binarise": torch.zeros(1, dtype=torch.bool),
            },
            {"stride16": "V", "lanes": "N", "logits": "N", "object_score": "N", "binarise": ""},
            ("memory",),
        ),
    }  # fmt: skip


class _Part(nn.Module):
    def __init__(self, model: Sam2):
        super().__init__()
        self.model = model
        self.eval()


class _ImageEncoder(_Part):
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode_frames(images)
        every = torch.arange(images.shape[0])
        unremembered = self.model.attend_memory(features, every, None)
        return features.stride16_VDHW, features.stride8_VCHW, features.stride4_VCHW, unremembered


class _MaskDecoder(_Part):
    def forward(
        self,
        embedding: Tensor,
        stride8: Tensor,
        stride4: Tensor,
        lanes: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        encoder, decoder = self.model.sam_prompt_encoder, self.model.sam_mask_decoder
        dense = torch.where(has_mask[:, None, None, None], encoder.encode_masks(mask_logits), encoder.no_mask())
        decoded = decoder.attend(embedding + dense, encoder.image_positions(), encoder.point_tokens(points, labels))
        upscaled = decoder.upscale(decoded.image_NDHW, stride8[lanes], stride4[lanes])
        every = torch.arange(NUM_MASKS).expand(lanes.shape[0], -1)
        logits = decoder.draw(upscaled, decoded.mask_tokens_NMD, every)
        pointers = self.model.obj_ptr_proj(decoded.mask_tokens_NMD)
        no_object = self.model.no_obj_ptr.expand(lanes.shape[0], -1)  # as many as rows: an output cannot be a constant
        return logits, decoded.predicted_iou_NM, decoded.object_score_N, pointers, no_object


class _MaskPrompt(_Part):
    def forward(self, masks: Tensor) -> Tensor:
        return self.model.mask_downsample(masks[:, None])[:, 0]


class _MemoryAttention(_Part):
    def forward(
        self, stride16: Tensor, lanes: Tensor, maps: Tensor, map_rows: Tensor, pointers: Tensor, pointer_time: Tensor
    ) -> Tensor:
        features = FrameFeatures(stride16, stride16, stride16)  # only the first is looked at
        return self.model.attend_memory(features, lanes, MemoryBatch(maps, map_rows, pointers, pointer_time))


class _MemoryEncoder(_Part):
    def forward(self, stride16: Tensor, lanes: Tensor, logits: Tensor, object_score: Tensor, binarise: Tensor) -> Tensor:
        features = FrameFeatures(stride16, stride16, stride16)
        high = resize_maps(logits[:, None], (self.model.config.image_size,) * 2)
        masks = torch.where(binarise, (high > 0).float(), high.sigmoid())
        return self.model.remember_masks(features, lanes, masks, object_score).float()
