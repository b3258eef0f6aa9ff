"""A prompt: what a person, a detector or a grid says about one object on one frame."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import Rle


def _no_points() -> np.ndarray:
    return np.zeros((0, 2), np.float32)


def _no_labels() -> np.ndarray:
    return np.zeros((0,), np.int8)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Names one object on one frame by points, a box, both, or a mask.

    Coordinates are pixels of the displayed video in (x, y) order; a box is (x0, y0, x1, y1).

    Attributes:
        object_id: the caller's number for the object.
        frame_index: native frame number.
        points_xy: float32 ``[P, 2]``.
        point_labels: int8 ``[P]``; 1 on the object, 0 on the background.
        box_xyxy: float32 ``[4]`` or None.
        mask: COCO RLE at the displayed size or None; excludes points and box.
    """

    object_id: int
    frame_index: int
    points_xy: np.ndarray = field(default_factory=_no_points)
    point_labels: np.ndarray = field(default_factory=_no_labels)
    box_xyxy: np.ndarray | None = None
    mask: Rle | None = None

    def __post_init__(self) -> None:
        for name in ("object_id", "frame_index"):
            object.__setattr__(self, name, whole_number(getattr(self, name), name))
        where = f"prompt for object {self.object_id} on frame {self.frame_index}"
        points, labels = _points(self.points_xy, where), _labels(self.point_labels, where)
        if len(points) != len(labels):
            raise ConfigError(f"{where}: {len(points)} points but {len(labels)} labels")
        object.__setattr__(self, "points_xy", points)
        object.__setattr__(self, "point_labels", labels)
        if self.box_xyxy is not None:
            box = numbers(self.box_xyxy)
            if box is None or box.size != 4 or not np.isfinite(box).all() or (box.ravel()[2:] <= box.ravel()[:2]).any():
                raise ConfigError(f"{where}: box is {_short(self.box_xyxy)}, expected x0 < x1 and y0 < y1 in pixels")
            object.__setattr__(self, "box_xyxy", box.reshape(4))
        if self.frame_index < 0:
            raise ConfigError(f"{where}: the frame index is negative")
        if self.mask is not None and not isinstance(self.mask, Rle):
            raise ConfigError(f"{where}: the mask is a {type(self.mask).__name__}, expected an Rle, as `rle.encode` makes one")
        if self.mask is not None and (len(points) or self.box_xyxy is not None):
            raise ConfigError(f"{where}: a mask excludes points and box")
        if self.mask is None and not len(points) and self.box_xyxy is None:
            raise ConfigError(f"{where}: has neither points, nor a box, nor a mask")


def whole_number(value: Any, name: str) -> int:
    """An int, of Python's or NumPy's kind, as Python's. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} is {_short(value)}, expected a whole number")
    return int(value)


def numbers(values: Any) -> np.ndarray | None:
    """Real numbers in any nesting as a float32 array; None for anything else. What float32 cannot hold becomes infinite."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            return None
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    except (TypeError, ValueError, OverflowError):  # ragged, or of strange things
        return None


def _points(values: Any, where: str) -> np.ndarray:
    points = numbers(values)
    if points is not None and not points.size:
        return _no_points()
    if points is None or points.shape[-1:] != (2,) or points.ndim > 2:
        raise ConfigError(f"{where}: points are {_short(values)}, expected [P, 2] numbers")
    if not np.isfinite(points).all():
        raise ConfigError(f"{where}: points hold NaN or infinity: {points.tolist()}")
    return points.reshape(-1, 2)


def _labels(values: Any, where: str) -> np.ndarray:
    labels = numbers(values)
    if labels is None or not np.isin(labels, (0, 1)).all():
        raise ConfigError(f"{where}: labels are {_short(values)}, expected 1 (object) or 0 (background)")
    return labels.reshape(-1).astype(np.int8)


def _short(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
