"""Makes small test videos: shapes that move in known ways, and everything that can be wrong or unusual about a file."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

CORNERS = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)  # red, green; blue, white


def moving_shapes(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """uint8 RGB pictures: a bright square that moves right, a disc that moves down, over a gradient. All differ."""
    y, x = np.mgrid[:height, :width]
    side, radius = max(2, height // 4), max(2, height // 8)
    pictures = []
    for index in range(count):
        picture = np.stack([x * 100 // width, y * 100 // height, np.full_like(x, 60)], -1).astype(np.uint8)
        left = index * 2 % max(1, width - side)
        picture[height // 2 : height // 2 + side, left : left + side] = (250, 220, 30)
        disc_y = radius + index % max(1, height - 2 * radius)
        picture[(y - disc_y) ** 2 + (x - width * 3 // 4) ** 2 <= radius**2] = (30, 60, 240)
        pictures.append(picture)
    return pictures


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture of four colours (`CORNERS`), which shows how it has been turned."""
    return CORNERS.repeat(height // 2, 0).repeat(width // 2, 1)


def write_video(
    path: str | Path,
    pictures: Sequence[np.ndarray],
    *,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    audio_s: float = 0,
) -> Path:
    """Encode pictures (all of one size).

    Args:
        times: presentation times in seconds, for a variable frame rate; one before 0 hides its frame by an edit list.
        rotation: counterclockwise degrees of the display matrix.
        audio_s: adds a silent sound track of that length.
        muxing: options of the container.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", format=container, options=muxing or {}) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = gop
        stream.options = options or ({"preset": "veryfast", "bf": "2"} if codec == "libx264" else {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=16000, layout="mono") if audio_s else None
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt)
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for index in range(round(audio_s * 16000 / 1024)) if sound else ():
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16000, index * 1024
            output.mux(sound.encode(silence))
        if sound:
            output.mux(sound.encode(None))
    return Path(path)


def write_audio_only(path: str | Path) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        for index in range(10):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16000, index * 1024
            output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    return Path(path)


def write_without_frames(path: str | Path) -> Path:
    """A video stream of no frames, beside a little sound."""
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = output.add_stream("aac", rate=16000, layout="mono")
        for index in range(10):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16000, index * 1024
            output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    return Path(path)


def write_changing_size(path: str | Path, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Path:
    """One MPEG transport stream whose picture size changes midway: two streams, one behind the other."""
    parts = []
    for number, pictures in enumerate((first, second)):
        part = Path(f"{path}.{number}.ts")
        start = 0.0 if number == 0 else len(first) / 25
        write_video(part, pictures, container="mpegts", times=[start + index / 25 for index in range(len(pictures))])
        parts.append(part.read_bytes())
        part.unlink()
    Path(path).write_bytes(b"".join(parts))
    return Path(path)


def truncated(source: Path, target: Path, fraction: float = 0.6) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def flipped(source: Path, target: Path, count: int = 40, seed: int = 0) -> Path:
    """Invert some bytes in the middle half of a file, where an MP4 without its index in front keeps pictures."""
    data = np.frombuffer(source.read_bytes(), np.uint8).copy()
    where = np.random.default_rng(seed).integers(len(data) // 4, len(data) * 3 // 4, count)
    data[where] ^= 0xFF
    target.write_bytes(data.tobytes())
    return target


def write_pictures(folder: Path, pictures: Sequence[np.ndarray], pattern: str = "{:05d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / pattern.format(index))
    return folder
