"""Frames to an H.264 video that browsers and players take."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.video.stream import VideoStream

from sam2_pipeline.errors import ConfigError, StorageError

_CRF = 20  # H.264's quality; lower is better and larger
_CLOCK = 90_000  # ticks a second of a video whose frames have times of their own
_FRAGMENT_S = 2.0


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Writes frames, uint8 RGB ``[H, W, 3]``, all of one size, as mp4; gives their number. One frame is held at a time.

    H.264 wants even sides: an odd one gets its last line twice.

    Raises:
        ConfigError: there is no frame, or they differ in size.
    """
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        encoder = _Encoder(container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001)))
        for frame in frames:
            container.mux(encoder.encode(frame))
        if not encoder.count:
            raise ConfigError(f"{path}: no frame to write")
        container.mux(encoder.stream.encode())
    return encoder.count


class VideoWriter:
    """An mp4 that grows frame by frame for as long as one likes; each frame is shown from its own time on.

    It is written in fragments, so that neither memory grows with it, nor is more than the last two seconds lost when the process
    is killed. A context manager.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "fflags": "flush_packets"}
        self._container = av.open(self._file, "w", format="mp4", options=options)
        stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        stream.codec_context.gop_size = max(round(_FRAGMENT_S * fps), 1)
        self._encoder, self._last = _Encoder(stream), -1

    def write(self, frame: np.ndarray, timestamp_s: float) -> None:
        """A frame, uint8 RGB ``[H, W, 3]``, of the size of the first one, and later than the one before it."""
        self._last = max(round(timestamp_s * _CLOCK), self._last + 1)
        self._container.mux(self._encoder.encode(frame, self._last))

    def close(self) -> None:
        try:
            if self._encoder.count:
                self._container.mux(self._encoder.stream.encode())
            self._container.close()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Encoder:
    """Frames of one size to packets of a stream."""

    def __init__(self, stream: VideoStream) -> None:
        self.stream, self.count = stream, 0
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(_CRF), "preset": "veryfast"}
        self._first: tuple[int, ...] | None = None

    def encode(self, frame: np.ndarray, ticks: int | None = None) -> list[av.Packet]:
        if self._first is None:
            self._first = frame.shape
            self.stream.height, self.stream.width = (side + side % 2 for side in frame.shape[:2])
        if frame.shape != self._first:
            raise ConfigError(f"frame {self.count} is {frame.shape}, expected {self._first} as the first")
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        if ticks is not None:
            picture.pts, picture.time_base = ticks, Fraction(1, _CLOCK)
        self.count += 1
        return self.stream.encode(picture)
