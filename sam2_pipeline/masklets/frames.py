"""Frames, and what every supplier of frames offers. Shared by those who decode and those who segment."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture of a video.

    Attributes:
        index: native frame number, from 0.
        timestamp_s: presentation time in seconds, 0 at the first frame.
        image: uint8 ``[H, W, 3]`` RGB, in the orientation in which the video is displayed.
    """

    index: int
    timestamp_s: float
    image: np.ndarray

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Frame(index={self.index}, timestamp_s={self.timestamp_s:.3f}, image={height}x{width})"


class FrameSource(Protocol):
    """A video as the segmenters see it: a size, a length, and frames in either direction.

    ``num_frames`` is None for a stream of unknown length. Sources hold a bounded number of frames in memory whatever
    their length, and may be iterated several times.
    """

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def num_frames(self) -> int | None: ...

    def frames(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        reverse: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Frame]:
        """Frames ``start, start + 1, ..., stop - 1`` (``reverse``: ``start, start - 1, ..., 0``, or down to ``stop`` inclusive).

        ``size`` is (height, width) of the pictures to hand out, squeezed without regard to the aspect ratio (SAM 2 wants
        squares); None gives the displayed size.
        """
        ...


@runtime_checkable
class LiveFrames(Protocol):
    """A source that is there once, and maybe without an end: a camera, a network stream, a pipe. Iterate it in one thread.

    Attributes:
        height, width: displayed size of its pictures.
        live: frames come at their own time; whoever takes too long misses some.
    """

    height: int
    width: int
    live: bool

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Ends the iteration, from any thread."""
        ...
