"""Points and boxes that a caller gives for a picture, as the network takes them. NumPy only."""

from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.prompts import numbers
from sam2_pipeline.model.conventions import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT

_LABELS = (NOT_A_POINT, 0, 1, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)  # the last two make boxes of two points, as the reference has them
_FAR_AWAY = 1e6  # pixels; beyond, float32 has no digits left for a place


def prompt_arrays(
    points: Any, labels: Any, boxes: Any, size: tuple[int, int], image_size: int
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Points and boxes in pixels of a picture of ``size`` (width, height) as float32 ``[N, P, 2]`` and int64 ``[N, P]`` in pixels
    of the network input; boxes come first.

    Raises:
        ConfigError: shapes that do not fit together, labels that mean nothing, NaN or infinity.
    """
    coordinates, kinds = [], []
    if boxes is not None:
        corners = real_numbers(boxes, "boxes")
        if corners.shape != (4,) and corners.shape[1:] not in ((4,), (2, 2)):
            raise ConfigError(f"boxes are {corners.shape}, expected [4] or [N, 4]")
        coordinates.append(corners.reshape(-1, 2, 2))
        kinds.append(np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), (len(coordinates[0]), 1)))
    if (points is None) != (labels is None):
        raise ConfigError("points and labels go together; only one of them was given")
    if points is not None:
        clicks, marks = real_numbers(points, "points"), real_numbers(labels, "labels")
        clicks, marks = clicks[None] if clicks.ndim == 2 else clicks, marks[None] if marks.ndim == 1 else marks
        if clicks.ndim != 3 or clicks.shape[-1] != 2 or clicks.shape[:2] != marks.shape:
            raise ConfigError(f"points are {clicks.shape} and labels {marks.shape}, expected [N, P, 2] and [N, P]")
        if not np.isin(marks, _LABELS).all():
            raise ConfigError(f"labels hold {sorted(set(marks.ravel().tolist()))}, expected 1 (object) or 0 (background)")
        coordinates.append(clicks)
        kinds.append(marks.astype(np.int64))
    if not coordinates:
        return None, None
    if len({len(c) for c in coordinates}) > 1:
        raise ConfigError(f"{len(coordinates[0])} boxes but points for {len(coordinates[1])} prompts")
    points_NP2 = np.concatenate(coordinates, axis=1)
    if not (np.abs(points_NP2) < _FAR_AWAY).all():  # NaN is not below anything either
        raise ConfigError(f"points or boxes hold NaN or infinity, or lie far outside the {size[0]}x{size[1]} picture")
    if not len(points_NP2):
        raise ConfigError("points or boxes for 0 prompts, expected one at least")
    return points_NP2 / np.array(size, np.float32) * np.float32(image_size), np.concatenate(kinds, axis=1)


def real_numbers(values: Any, name: str) -> np.ndarray:
    """As a float32 array. Raises ConfigError for anything that is no array, list or tensor of real numbers."""
    found = numbers(values.detach().cpu() if hasattr(values, "detach") else values)
    if found is None:
        raise ConfigError(f"{name} are of type {type(values).__name__}, expected numbers")
    return found
