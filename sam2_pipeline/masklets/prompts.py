"""A prompt: what a person, a detector or a grid says about one object on one frame."""

from dataclasses import dataclass, field

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
        where = f"prompt for object {self.object_id} on frame {self.frame_index}"
        points = np.asarray(self.points_xy, np.float32).reshape(-1, 2) if np.size(self.points_xy) else _no_points()
        labels = np.asarray(self.point_labels).reshape(-1)
        if len(points) != len(labels):
            raise ConfigError(f"{where}: {len(points)} points but {len(labels)} labels")
        if not np.isin(labels, (0, 1)).all():
            raise ConfigError(f"{where}: labels are {labels.tolist()}, expected 1 (object) or 0 (background)")
        if not np.isfinite(points).all():
            raise ConfigError(f"{where}: points hold NaN or infinity: {points.tolist()}")
        object.__setattr__(self, "points_xy", points)
        object.__setattr__(self, "point_labels", labels.astype(np.int8))
        if self.box_xyxy is not None:
            box = np.asarray(self.box_xyxy, np.float32).reshape(-1)
            if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
                raise ConfigError(f"{where}: box is {box.tolist()}, expected x0 < x1 and y0 < y1 in pixels")
            object.__setattr__(self, "box_xyxy", box)
        if self.frame_index < 0:
            raise ConfigError(f"{where}: the frame index is negative")
        if self.mask is not None and (len(points) or self.box_xyxy is not None):
            raise ConfigError(f"{where}: a mask excludes points and box")
        if self.mask is None and not len(points) and self.box_xyxy is None:
            raise ConfigError(f"{where}: has neither points, nor a box, nor a mask")
