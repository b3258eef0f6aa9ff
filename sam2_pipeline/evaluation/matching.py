"""Which predicted masklet is which true object, where their numbers do not say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.rle import Rle, iou

Match = Literal["ids", "hungarian", "greedy"]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """How P predicted masklets and G true objects overlap in space and time.

    Attributes:
        mean_PG: IoU of the masks, mean over the frames on which either is visible; 0 where there is none.
        visible_PG: the same, mean over the frames on which the true object is visible.
        tube_PG: IoU of the volumes that the masks sweep: intersections of all frames over unions of all frames.
    """

    mean_PG: np.ndarray
    visible_PG: np.ndarray
    tube_PG: np.ndarray


def overlaps(predicted: Masks, true: Masks) -> Overlaps:
    """Over the frames that each true object has a mask for, which every predicted masklet must have, too; masks of one frame
    must be of one size."""
    shape = len(predicted), len(true)
    iou_PG, frames_PG, intersection_PG, union_PG = (np.zeros(shape) for _ in range(4))
    visible_G = np.zeros(len(true))
    for frame in sorted({frame for masks in true.values() for frame in masks}):
        columns = [column for column, masks in enumerate(true.values()) if frame in masks]
        here_P, here_G = _at(frame, predicted), _at(frame, true)
        area_G = np.array([mask.area for mask in here_G])
        total = np.array([mask.area for mask in here_P])[:, None] + area_G
        both = iou(here_P, here_G)
        common = np.rint(both * total / (1 + both))  # from i / (a + b - i), which is how the IoU was made
        iou_PG[:, columns] += both
        frames_PG[:, columns] += total > 0
        visible_G[columns] += area_G > 0
        intersection_PG[:, columns] += common
        union_PG[:, columns] += total - common
    mean_PG, visible_PG = iou_PG / np.maximum(frames_PG, 1), iou_PG / np.maximum(visible_G, 1)
    return Overlaps(mean_PG, visible_PG, intersection_PG / np.maximum(union_PG, 1))


def assign(similarity_PG: np.ndarray, match: Match) -> dict[int, int]:
    """Row of the predicted masklet for every true object's column; those that overlap nothing have none.

    ``hungarian`` makes the sum of the similarities as large as it can be, ``greedy`` takes the best pair, then the best of
    those left, and so on.
    """
    if match == "greedy":
        pairs = _greedy(similarity_PG)
    else:
        from scipy.optimize import linear_sum_assignment

        pairs = list(zip(*linear_sum_assignment(similarity_PG, maximize=True)))
    return {int(column): int(row) for row, column in pairs if similarity_PG[row, column] > 0}


def _greedy(similarity_PG: np.ndarray) -> list[tuple[int, int]]:
    left, pairs = similarity_PG.copy(), []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = -1, -1
    return pairs


def _at(frame: int, objects: Mapping[int, Mapping[int, Rle]]) -> list[Rle]:
    return [masks[frame] for masks in objects.values() if frame in masks]
