"""A masklet's measures as SA-V defines them, gathered one frame at a time.

SA-V's own annotation files settle what its paper leaves open: the size is the mean over the frames on which the object is
visible (not the first frame's), and visibility changes are counted from the first appearance on, so that an object that
enters late and then stays has none.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sam2_pipeline.masklets.masklet import MaskletFrame
from sam2_pipeline.masklets.quality import Shape, is_jump, shape_of, temporal_iou
from sam2_pipeline.masklets.rle import Rle

SizeBucket = Literal["small", "medium", "large"]

_UNSEEN, _HIDDEN, _VISIBLE = 0, 1, 2


def size_bucket(size_abs: float) -> SizeBucket:
    """SA-V's class of an area in pixels: small below 32², medium below 96², else large."""
    return "small" if size_abs < 32**2 else "medium" if size_abs < 96**2 else "large"


@dataclass(slots=True)
class _Mean:
    """Mean and smallest of the values met so far; NaN stands for a value that nobody knows, and does not count."""

    total: float = 0.0
    count: int = 0
    smallest: float = math.inf

    def add(self, value: float) -> None:
        if math.isnan(value):
            return
        self.total += value
        self.count += 1
        self.smallest = min(self.smallest, value)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def least(self) -> float | None:
        return self.smallest if self.count else None


@dataclass(slots=True)
class Succession:
    """Measures of what changes from one mask of a masklet to the next. Its masks come in order of frames."""

    jumps: int = 0
    _iou: _Mean = field(default_factory=_Mean)
    _before: tuple[Rle, int] | None = None

    def add(self, rle: Rle, area: int) -> float | None:
        """The IoU with the mask before; None for the first one, and where both are empty."""
        before, self._before = self._before, (rle, area)
        if before is None:
            return None
        areas = (before[1], area)
        self.jumps += is_jump(areas)
        value = temporal_iou(before[0], rle, areas)
        if value is not None and all(areas):
            self._iou.add(value)
        return value

    def row(self, visibility_changes: int, visible: int) -> dict[str, Any]:
        """The measures under their column names in the masklets table."""
        flicker = (visibility_changes + self.jumps) / visible if visible else None
        return {"temporal_iou_mean": self._iou.mean, "temporal_iou_min": self._iou.least, "flicker": flicker}


@dataclass(slots=True)
class MaskletStatistics:
    """Measures of one masklet. Frames may be added in any order; one byte per native frame is kept, no mask."""

    _pixels: int = 0
    _area: int = 0
    _predicted_iou: _Mean = field(default_factory=_Mean)
    _object_score: _Mean = field(default_factory=_Mean)
    _stability: _Mean = field(default_factory=_Mean)
    _border: _Mean = field(default_factory=_Mean)
    _components: int = 0
    _presence: bytearray = field(default_factory=bytearray)

    def add(self, frame: MaskletFrame, shape: Shape | None = None) -> None:
        """Takes one frame into account; ``shape`` spares looking at the mask again.

        Raises:
            ValueError: the frame was added before, or its mask has another size than the frames before it.
        """
        shape = shape or shape_of(frame.rle)
        area = shape.area
        index, pixels = frame.frame_index, frame.rle.height * frame.rle.width
        if index >= len(self._presence):
            self._presence.extend(bytes(index + 1 - len(self._presence)))
        if self._presence[index] != _UNSEEN:
            raise ValueError(f"frame {index} was added twice")
        if self._pixels and self._pixels != pixels:
            raise ValueError(f"the mask of frame {index} has {pixels} pixels, those before it {self._pixels}")
        self._pixels = pixels
        self._presence[index] = _VISIBLE if area else _HIDDEN
        self._object_score.add(frame.object_score)
        if area:
            self._area += area
            self._predicted_iou.add(frame.predicted_iou)
            self._stability.add(frame.stability_score)
            self._border.add(shape.border_touch or 0.0)
            self._components = max(self._components, shape.num_components)

    def visible_frames(self) -> np.ndarray:
        """The frames on which the mask is not empty, int64, rising."""
        return np.flatnonzero(np.frombuffer(bytes(self._presence), np.uint8) == _VISIBLE)

    def row(self, succession: Succession | None = None) -> dict[str, Any]:
        """The measures under their column names in the masklets table; those of change if a ``succession`` has seen the same
        masks, in order."""
        presence = np.frombuffer(bytes(self._presence), np.uint8)
        annotated = presence[presence != _UNSEEN] == _VISIBLE
        visible_frames = self.visible_frames()
        visible = len(visible_frames)
        since_first = annotated[np.argmax(annotated) :] if visible else annotated[:0]
        size_abs = self._area / visible if visible else 0.0
        changes = int(np.count_nonzero(since_first[1:] != since_first[:-1]))
        return {
            "first_frame_index": int(visible_frames[0]) if visible else None,
            "last_frame_index": int(visible_frames[-1]) if visible else None,
            "frame_count": len(annotated),
            "visible_frame_count": visible,
            "size_abs": size_abs,
            "size_rel": size_abs / self._pixels if self._pixels else 0.0,
            "size_bucket": size_bucket(size_abs),
            "visibility_changes": changes,
            "predicted_iou_mean": self._predicted_iou.mean,
            "object_score_mean": self._object_score.mean,
            "stability_score_mean": self._stability.mean,
            "stability_score_min": self._stability.least,
            "predicted_iou_min": self._predicted_iou.least,
            "num_components_max": self._components if visible else None,
            "border_touch_mean": self._border.mean,
        } | (succession.row(changes, visible) if succession else {})


def measure(frames: Iterable[MaskletFrame]) -> dict[str, Any]:
    """The measures of a masklet whose frames are at hand, in order."""
    statistics, succession = MaskletStatistics(), Succession()
    for frame in frames:
        shape = shape_of(frame.rle)
        statistics.add(frame, shape)
        succession.add(frame.rle, shape.area)
    return statistics.row(succession)
