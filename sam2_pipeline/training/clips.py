"""What training reads: short runs of frames with the masks of a few objects.

Letters in names: T frames, N objects, H x W pixels.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames and truth.

    Attributes:
        frames_THWC: uint8 RGB.
        masks_TNHW: bool; all False where an object is not visible.
    """

    frames_THWC: np.ndarray
    masks_TNHW: np.ndarray

    @property
    def visible_TN(self) -> np.ndarray:
        return self.masks_TNHW.any(axis=(2, 3))

    def __repr__(self) -> str:
        return f"Clip(frames={self.frames_THWC.shape}, masks={self.masks_TNHW.shape})"


class ClipSource(Protocol):
    """Videos by number. `read` is a function of its arguments alone, so that loaders may run anywhere and in any order."""

    def __len__(self) -> int: ...

    def read(self, index: int, frames: int, max_stride: int, rng: Generator) -> Clip:
        """A clip of ``frames`` frames of video ``index``, at most ``max_stride`` annotated frames apart, with all objects."""
        ...


def choose_frames(available: int, wanted: int, max_stride: int, rng: Generator) -> np.ndarray:
    """Which of ``available`` frames make a clip: evenly apart, in order. A video that is too short goes to and fro."""
    most = max(1, min(max_stride, (available - 1) // max(wanted - 1, 1)))
    stride = int(rng.integers(1, most + 1))
    span = (wanted - 1) * stride + 1
    start = int(rng.integers(max(available - span, 0) + 1))
    there_and_back = np.r_[0:available, available - 2 : 0 : -1] if available > 1 else np.zeros(1, int)
    return there_and_back[(start + np.arange(wanted) * stride) % len(there_and_back)]


def choose_objects(clip: Clip, most: int, min_area: float, rng: Generator) -> Clip | None:
    """The clip with at most ``most`` objects, all of which cover ``min_area`` of its first frame; None if there are none."""
    areas_N = clip.masks_TNHW[0].mean(axis=(1, 2))
    fit = np.flatnonzero((areas_N > 0) & (areas_N >= min_area))
    if not len(fit):
        return None
    chosen = np.sort(rng.permutation(fit)[:most])
    return Clip(clip.frames_THWC, clip.masks_TNHW[:, chosen])
