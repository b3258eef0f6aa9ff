"""Points and boxes that a caller gives for a picture, as the network takes them. NumPy only."""

from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT


def prompt_arrays(
    points: Any, labels: Any, boxes: Any, size: tuple[int, int], image_size: int
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Points and boxes in pixels of a picture of ``size`` (width, height) as float32 ``[N, P, 2]`` and int64 ``[N, P]`` in pixels
    of the network input; boxes come first.

    Raises:
        ConfigError: shapes that do not fit together, NaN or infinity.
    """
    coordinates, kinds = [], []
    if boxes is not None:
        corners = np.asarray(boxes, np.float32).reshape(-1, 2, 2)
        coordinates.append(corners)
        kinds.append(np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), (len(corners), 1)))
    if (points is None) != (labels is None):
        raise ConfigError("points and labels go together; only one of them was given")
    if points is not None:
        clicks, marks = np.asarray(points, np.float32), np.asarray(labels).astype(np.int64)
        clicks, marks = clicks[None] if clicks.ndim == 2 else clicks, marks[None] if marks.ndim == 1 else marks
        if clicks.ndim != 3 or clicks.shape[-1] != 2 or clicks.shape[:2] != marks.shape:
            raise ConfigError(f"points are {clicks.shape} and labels {marks.shape}, expected [N, P, 2] and [N, P]")
        coordinates.append(clicks)
        kinds.append(marks)
    if not coordinates:
        return None, None
    if len({len(c) for c in coordinates}) > 1:
        raise ConfigError(f"{len(coordinates[0])} boxes but points for {len(coordinates[1])} prompts")
    points_NP2 = np.concatenate(coordinates, axis=1)
    if not np.isfinite(points_NP2).all():
        raise ConfigError("points or boxes hold NaN or infinity")
    return points_NP2 / np.array(size, np.float32) * np.float32(image_size), np.concatenate(kinds, axis=1)
