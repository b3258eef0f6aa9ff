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
        masks_TNHW: bool; all False where an object is not visible (absent, or hidden).
        ground_THW: bool, where there is no object at all; None if that is not known, or nobody asked.
    """

    frames_THWC: np.ndarray
    masks_TNHW: np.ndarray
    ground_THW: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Clip(frames={self.frames_THWC.shape}, masks={self.masks_TNHW.shape})"


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """What a clip shall be: so many frames, at most ``max_stride`` annotated frames apart; so many objects at most, each
    covering at least the share ``min_area`` of the clip's first frame; with the ``ground``, if the source knows it."""

    frames: int
    max_stride: int = 1
    objects: int = 3
    min_area: float = 0.0
    ground: bool = False


class ClipSource(Protocol):
    """Videos by number. `read` is a function of its arguments alone, so that loaders may run anywhere and in any order."""

    def __len__(self) -> int: ...

    def read(self, index: int, request: ClipRequest, rng: Generator) -> Clip | None:
        """A clip of video ``index``; None where its first frame shows no object that is large enough.

        Raises:
            VideoError: the video or its masks cannot be read.
        """
        ...


def choose_frames(available: int, request: ClipRequest, rng: Generator) -> np.ndarray:
    """Which of ``available`` frames make a clip: evenly apart, forward or backward. A video too short is walked to and fro."""
    wanted = request.frames
    most = max(1, min(request.max_stride, (available - 1) // max(wanted - 1, 1)))
    stride = int(rng.integers(1, most + 1))
    start = int(rng.integers(max(available - (wanted - 1) * stride, 1)))
    there_and_back = np.r_[0:available, available - 2 : 0 : -1]
    chosen = there_and_back[(start + np.arange(wanted) * stride) % len(there_and_back)]
    return chosen[::-1] if rng.random() < 0.5 else chosen


def choose_objects(shares_N: np.ndarray, request: ClipRequest, rng: Generator) -> np.ndarray:
    """Numbers of the objects to learn, from the share of the first frame that each covers; empty where none is large enough."""
    fit = np.flatnonzero((shares_N > 0) & (shares_N >= request.min_area))
    return np.sort(rng.permutation(fit)[: request.objects])
