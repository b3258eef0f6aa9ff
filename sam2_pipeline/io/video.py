"""What every source of frames has in common: a size, a clock, and bounded, checked iteration in both directions."""

import operator
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from functools import partial
from typing import Self

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.readahead import ReadAhead
from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.masklets.work import VideoInfo

READ_AHEAD_FRAMES = 4
READ_AHEAD_BYTES = 64 << 20


class Video(ABC):
    """A video, a folder of pictures or one picture: a `FrameSource` that can also be indexed, iterated and closed.

    Iterating gives `Frame`s at the displayed size; ``video[i]`` is exactly frame ``i``. Any number of iterations may run
    at once, each with its own decoder and a few frames of read-ahead. Use it as a context manager, or call `close`.

    Attributes:
        url: where it came from.
        height, width: displayed size in pixels, rotation applied.
        fps: average frames per second.
        num_frames: how many frames there are.
        duration_s: from the first frame's start to the last one's end.
        codec: name of the codec, such as ``h264``.
        rotation: clockwise degrees (0, 90, 180, 270) by which stored pictures have been turned for display.
    """

    url: str
    height: int
    width: int
    fps: float
    num_frames: int
    duration_s: float
    codec: str
    rotation: int

    def __init__(self, url: str) -> None:
        self.url = url
        self.closed = False
        self._readers: weakref.WeakSet[ReadAhead[Frame]] = weakref.WeakSet()
        self._prepared: tuple[tuple[int, int], ReadAhead[Frame]] | None = None

    @abstractmethod
    def _forward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        """Frames start .. stop - 1."""

    @abstractmethod
    def _backward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        """Frames start, start - 1, ... stop, in bounded memory."""

    @property
    def info(self) -> VideoInfo:
        return VideoInfo(self.width, self.height, self.fps, self.num_frames, self.duration_s, self.codec)

    def frames(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False, size: tuple[int, int] | None = None
    ) -> Iterator[Frame]:
        """Frames ``start .. stop - 1``; with ``reverse``: ``start, start - 1, ...`` down to ``stop`` (default 0) inclusive.

        Args:
            start: first frame to hand out, 0 to ``num_frames`` (``num_frames - 1`` when reversed).
            stop: see above; forward, one past the end is taken as the end.
            size: (height, width) to squeeze pictures to, by bicubic resampling; None: the displayed size.

        Raises:
            ConfigError: at once, for arguments out of range.
            VideoError: during the iteration, when a frame cannot be decoded or is missing.
        """
        last = self.num_frames - 1 if reverse else self.num_frames
        if not 0 <= start <= last:
            raise ConfigError(f"{self.url}: start is frame {start}, expected 0 to {last} ({self.num_frames} frames)")
        if stop is not None and stop < 0:
            raise ConfigError(f"{self.url}: stop is frame {stop}, expected 0 or more")
        if size is not None and min(size) < 1:
            raise ConfigError(f"{self.url}: size is {size}, expected a positive height and width")
        self._check_open()
        stop = (stop or 0) if reverse else self.num_frames if stop is None else min(stop, self.num_frames)
        if self._prepared is not None and (start, stop, reverse, size) == (0, self.num_frames, False, self._prepared[0]):
            (_, reader), self._prepared = self._prepared, None
            return reader
        height, width = size or (self.height, self.width)
        depth = max(1, min(READ_AHEAD_FRAMES, READ_AHEAD_BYTES // (height * width * 3)))
        reader = ReadAhead(partial(self._backward if reverse else self._forward, start, stop, size), depth)
        self._readers.add(reader)
        return reader

    def prepare(self, size: tuple[int, int]) -> None:
        """Begins to decode the first few frames, for who will ask for all `frames` of that size."""
        reader = self.frames(size=size)
        assert isinstance(reader, ReadAhead)
        reader.start()
        self._prepared = size, reader

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, index: int) -> Frame:
        number = operator.index(index)
        if not -self.num_frames <= number < self.num_frames:
            raise IndexError(f"{self.url}: there is no frame {number}, it has {self.num_frames}")
        self._check_open()
        number %= self.num_frames
        frames = self._forward(number, number + 1, None)
        try:
            return next(frames)
        finally:
            frames.close()

    def _check_open(self) -> None:
        if self.closed:
            raise VideoError(f"{self.url}: the video has been closed")

    def close(self) -> None:
        """End the iterations that are under way (their next step raises VideoError) and free everything held."""
        self.closed = True
        for reader in list(self._readers):
            reader.close(VideoError(f"{self.url}: the video was closed during an iteration"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.url!r}, {self.width}x{self.height}, {self.num_frames} frames, "
            f"{self.fps:.3f} fps, {self.codec})"
        )
