"""An exported model: the four verbs of `model/sam2.py` over NumPy arrays, each run by onnxruntime. It remembers nothing.

Shapes as there: V pictures (lanes), N rows (objects), S image side, T = (S/16)^2 tokens, D = 256, C = 64, M maps and P pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.config import ModelConfig
from sam2_pipeline.model.conventions import (
    MASK_BIAS,
    MASK_SCALE,
    NOT_A_POINT,
    RELEASED_RULES,
    DecodingRules,
)
from sam2_pipeline.onnx.arrays import resize_maps
from sam2_pipeline.onnx.choosing import Decoded, Prediction, one_mask
from sam2_pipeline.onnx.files import PARTS, Facts, part_path

_SCORES_AT_ONCE = 2**26  # attention scores held at a time (256 MB), unless a single row needs more


@dataclass(frozen=True, slots=True)
class Features:
    """What the image encoder says of V pictures; ``unremembered`` is what an object without a past sees of ``stride16``."""

    stride16_VDHW: np.ndarray
    stride8_VCHW: np.ndarray
    stride4_VCHW: np.ndarray
    unremembered_VDHW: np.ndarray


@dataclass(frozen=True, slots=True)
class Memories:
    """Memories of N rows that see equally many, as `model/memory_batch.py`'s ``MemoryBatch``."""

    maps_NMTC: np.ndarray
    rows_NM: np.ndarray
    pointers_NPD: np.ndarray
    pointer_time_NP: np.ndarray


def load_model(folder: str | Path, *, providers: Sequence[str] | None = None, threads: int | None = None) -> OnnxModel:
    """The model that `sam2-pipeline export-onnx` wrote into a folder.

    Args:
        folder: where the five files are.
        providers: onnxruntime's execution providers, such as ``["CUDAExecutionProvider"]``; None is the CPU.
        threads: CPU threads; None lets onnxruntime choose.

    Raises:
        CheckpointError: a file is missing, broken, not ours, or of another model than the others.
        ConfigError: onnxruntime is not installed, or lacks a provider.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("onnxruntime is not installed; pip install 'sam2-pipeline[onnx]'") from error
    wanted, had = list(providers or ["CPUExecutionProvider"]), onnxruntime.get_available_providers()
    if not set(wanted) <= set(had):
        raise ConfigError(f"onnxruntime has no provider {sorted(set(wanted) - set(had))}, only {had}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # warnings about its own optimiser are nobody's business here
    sessions = {}
    for part in PARTS:
        path = part_path(folder, part)
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; expected a folder that `sam2-pipeline export-onnx` wrote")
        try:
            sessions[part] = onnxruntime.InferenceSession(path, options, providers=wanted)
        except Exception as error:  # its own exceptions have no common base but this
            raise CheckpointError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    facts = {
        part: Facts.from_metadata(session.get_modelmeta().custom_metadata_map, part_path(folder, part))
        for part, session in sessions.items()
    }
    if len(set(facts.values())) > 1:
        raise CheckpointError(f"{folder} holds parts of different models or exports; export it again")
    return OnnxModel(facts[PARTS[0]], sessions)


class OnnxModel:
    """The verbs. Made by `load_model`; ``facts`` tells the configuration and where the weights come from."""

    def __init__(self, facts: Facts, sessions: dict[str, Any]):
        self.facts, self._sessions = facts, sessions

    @property
    def config(self) -> ModelConfig:
        return self.facts.config

    @property
    def mask_side(self) -> int:
        """Side of the low-resolution masks."""
        return self.config.image_size // 4

    def _run(self, part: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self._sessions[part].run(None, inputs)

    # ------------------------------------------------------------------------------------------------------ the verbs

    def encode_frames(self, images_V3SS: np.ndarray) -> Features:
        """Features of normalised pictures (see `arrays.normalise`)."""
        return Features(*self._run("image_encoder", images=images_V3SS.astype(np.float32, copy=False)))

    def attend_memory(self, features: Features, lanes_N: np.ndarray, memory: Memories | None) -> np.ndarray:
        """The image embedding ``[N, D, h, h]`` as each row sees it."""
        if memory is None:
            return features.unremembered_VDHW[lanes_N]
        N, M, T, _ = memory.maps_NMTC.shape
        together = max(1, _SCORES_AT_ONCE // (T * T * M))
        seen = [
            self._run(
                "memory_attention",
                stride16=features.stride16_VDHW,
                lanes=lanes_N[rows],
                maps=memory.maps_NMTC[rows],
                map_rows=memory.rows_NM[rows],
                pointers=memory.pointers_NPD[rows],
                pointer_time=memory.pointer_time_NP[rows],
            )[0]
            for rows in (slice(start, start + together) for start in range(0, N, together))
        ]
        return np.concatenate(seen)

    def decode(
        self,
        embedding_NDHW: np.ndarray,
        features: Features,
        lanes_N: np.ndarray,
        points_NL2: np.ndarray,
        labels_NL: np.ndarray,
        mask_logits_NHW: np.ndarray | None = None,
    ) -> Decoded:
        """All four masks of every row; behind the points is one labelled `NOT_A_POINT`, as the network expects: see `padded`."""
        N, side = len(lanes_N), self.mask_side
        found = self._run(
            "mask_decoder",
            embedding=embedding_NDHW,
            stride8=features.stride8_VCHW,
            stride4=features.stride4_VCHW,
            lanes=lanes_N,
            points=points_NL2.astype(np.float32),
            labels=labels_NL.astype(np.int64),
            mask_logits=np.zeros((N, side, side), np.float32) if mask_logits_NHW is None else mask_logits_NHW,
            has_mask=np.full(N, mask_logits_NHW is not None),
        )
        return Decoded(*found)

    def decode_masks(
        self,
        embedding_NDHW: np.ndarray,
        features: Features,
        lanes_N: np.ndarray,
        points_NP2: np.ndarray | None = None,
        labels_NP: np.ndarray | None = None,
        mask_logits_NHW: np.ndarray | None = None,
        *,
        multimask: bool | None = None,
        rules: DecodingRules = RELEASED_RULES,
    ) -> Prediction:
        """One mask per row, from what the row sees and its prompts (pixels of the S x S input), if any."""
        if points_NP2 is None or labels_NP is None:
            num_points = 0
            points_NP2 = np.zeros((len(lanes_N), 1, 2), np.float32)
            labels_NP = np.full((len(lanes_N), 1), NOT_A_POINT)
        else:
            num_points = points_NP2.shape[1]
        if multimask is None:
            multimask = rules.multimask_points[0] <= num_points <= rules.multimask_points[1]
        decoded = self.decode(embedding_NDHW, features, lanes_N, *padded(points_NP2, labels_NP), mask_logits_NHW)
        return one_mask(decoded, multimask, rules)

    def adopt_masks(
        self, features: Features, lanes_N: np.ndarray, masks_NSS: np.ndarray, rules: DecodingRules = RELEASED_RULES
    ) -> Prediction:
        """Takes mask prompts (0 or 1, float32 ``[N, S, S]``) as the prediction itself; only the object pointer is computed."""
        [mask_prompt] = self._run("mask_prompt", masks=masks_NSS)
        N = len(masks_NSS)
        nothing = padded(np.zeros((N, 1, 2), np.float32), np.full((N, 1), NOT_A_POINT))
        decoded = self.decode(features.stride16_VDHW[lanes_N], features, lanes_N, *nothing, mask_prompt)
        pointer = one_mask(decoded, False, rules).pointer_ND
        present_N: np.ndarray = np.any(masks_NSS > 0, axis=(1, 2))
        return Prediction(
            resize_maps(masks_NSS * np.float32(MASK_SCALE) + np.float32(MASK_BIAS), (self.mask_side,) * 2, antialias=True),
            np.ones(N, np.float32),
            np.where(present_N, np.float32(MASK_SCALE + MASK_BIAS), np.float32(MASK_BIAS)),
            np.where(present_N[:, None], pointer, decoded.no_object_pointer_ND),
        )

    def encode_memory(
        self, features: Features, lanes_N: np.ndarray, logits_NHW: np.ndarray, object_score_N: np.ndarray, *, binarise: bool
    ) -> np.ndarray:
        """Memories ``[N, T, C]`` of masks ``[N, S/4, S/4]``; float32 numbers that are rounded to bfloat16."""
        [memory] = self._run(
            "memory_encoder",
            stride16=features.stride16_VDHW,
            lanes=lanes_N,
            logits=logits_NHW,
            object_score=object_score_N,
            binarise=np.array([binarise]),
        )
        return memory


def padded(points_NP2: np.ndarray, labels_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points with the one that is none behind them, which the decoder expects after any points."""
    N = len(points_NP2)
    points = np.concatenate((points_NP2, np.zeros((N, 1, 2), np.float32)), axis=1)
    return points, np.concatenate((labels_NP, np.full((N, 1), NOT_A_POINT)), axis=1)
