"""Greedy non-maximum suppression of boxes, in NumPy: a few thousand boxes at most."""

import numpy as np


def box_iou(box: np.ndarray, boxes_N4: np.ndarray) -> np.ndarray:
    """IoU of one box with N, all (x0, y0, x1, y1). NaN where both have no area."""
    low = np.maximum(box[:2], boxes_N4[:, :2])
    high = np.minimum(box[2:], boxes_N4[:, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return overlap / (area - overlap)


def suppress(boxes_N4: np.ndarray, scores_N: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes to keep, best score first: each drops the later ones that overlap it by more than ``threshold``."""
    boxes = np.asarray(boxes_N4, np.float32)
    order = np.argsort(-np.asarray(scores_N), kind="stable")
    keep = []
    while len(order):
        first, order = order[0], order[1:]
        keep.append(first)
        order = order[~(box_iou(boxes[first], boxes[order]) > threshold)]
    return np.array(keep, dtype=np.int64)
