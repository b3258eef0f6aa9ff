"""Which of the decoder's four masks is used: `DecodingRules` in NumPy, as `model/sam2.py` has them in PyTorch."""

from dataclasses import dataclass

import numpy as np

from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT, DecodingRules
from sam2_pipeline.onnx.arrays import sigmoid


@dataclass(frozen=True, slots=True)
class Decoded:
    """All that the mask decoder says of N prompts.

    Attributes:
        logits_NMHW: ``[N, 4, S/4, S/4]``: the single mask, then the ambiguous three.
        predicted_iou_NM, object_score_N: scores.
        pointers_NMD: the object pointer that each mask would have.
        no_object_pointer_ND: that of an object which is not there.
    """

    logits_NMHW: np.ndarray
    predicted_iou_NM: np.ndarray
    object_score_N: np.ndarray
    pointers_NMD: np.ndarray
    no_object_pointer_ND: np.ndarray


@dataclass(frozen=True, slots=True)
class Prediction:
    """One mask per row: ``[N, S/4, S/4]``, scores ``[N]`` and pointers ``[N, D]``, all float32."""

    logits_NHW: np.ndarray
    predicted_iou_N: np.ndarray
    object_score_N: np.ndarray
    pointer_ND: np.ndarray


def one_mask(decoded: Decoded, multimask: bool, rules: DecodingRules) -> Prediction:
    """Of each row's four masks the one to use: the best of the ambiguous three with ``multimask``, else the `settled` one."""
    each, score = np.arange(len(decoded.object_score_N)), decoded.object_score_N
    index = best_ambiguous(decoded) if multimask else settled(decoded, rules)
    # the pointer of the single mask, even where that is unstable and replaced
    pointer = decoded.pointers_NMD[each, index if multimask else 0]
    share = (sigmoid(score) if rules.soft_pointer else (score > 0).astype(np.float32))[:, None]
    return Prediction(
        np.where((score > 0)[:, None, None], decoded.logits_NMHW[each, index], np.float32(NO_OBJECT_LOGIT)),
        decoded.predicted_iou_NM[each, index],
        score,
        share * pointer + (1 - share) * decoded.no_object_pointer_ND,
    )


def best_ambiguous(decoded: Decoded) -> np.ndarray:
    """The number 1..3 of the mask with the highest predicted IoU, ``[N]``."""
    return decoded.predicted_iou_NM[:, 1:].argmax(axis=1) + 1


def settled(decoded: Decoded, rules: DecodingRules) -> np.ndarray:
    """Where one mask is asked for: 0, the single one, unless it is unstable and the best of the three replaces it; ``[N]``."""
    single = np.zeros(len(decoded.object_score_N), np.int64)
    if not rules.dynamic_multimask:
        return single
    stable_N = stability(decoded.logits_NMHW[:, 0], rules.stability_offset) >= rules.stability_threshold
    return np.where(stable_N, single, best_ambiguous(decoded))


def stability(logits_NHW: np.ndarray, offset: float) -> np.ndarray:
    """Share of the looser mask (logits > -offset) that the stricter one (> offset) keeps; 1 where both are empty."""
    strict, loose = ((logits_NHW > cut).sum(axis=(1, 2)).astype(np.float32) for cut in (offset, -offset))
    return np.where(loose > 0, strict / np.maximum(loose, 1), np.float32(1))
