"""Frames to an H.264 video that browsers and players take."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sam2_pipeline.errors import ConfigError

_CRF = 20  # H.264's quality; lower is better and larger


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Writes frames, uint8 RGB ``[H, W, 3]``, all of one size, as mp4; gives their number. One frame is held at a time.

    H.264 wants even sides: an odd one gets its last line twice.

    Raises:
        ConfigError: there is no frame, or they differ in size.
    """
    count, first = 0, None
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(_CRF), "preset": "veryfast"}
        for frame in frames:
            if first is None:
                first = frame.shape
                stream.height, stream.width = (side + side % 2 for side in frame.shape[:2])
            if frame.shape != first:
                raise ConfigError(f"frame {count} is {frame.shape}, expected {first} as the first")
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
            count += 1
        if not count:
            raise ConfigError(f"{path}: no frame to write")
        container.mux(stream.encode())
    return count
