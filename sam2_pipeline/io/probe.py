"""What a video's header says, without fetching the video: for estimates over many."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from av.container import InputContainer
from av.video.stream import VideoStream

from sam2_pipeline.errors import VideoError
from sam2_pipeline.io.container import opened
from sam2_pipeline.io.decode import MAX_PIXELS, Orientation
from sam2_pipeline.io.images import DEFAULT_FRAME_RATE, ImageSequence, is_image_source
from sam2_pipeline.io.urls import absolute, filesystem_of
from sam2_pipeline.masklets.work import VideoInfo

BLOCK_BYTES = 1 << 20  # what a remote read fetches at least; s3fs would take 50 MB


def probe_video(url: str, *, storage_options: Mapping[str, Any] | None = None) -> VideoInfo:
    """Size, rate, length and codec as the header states them, with one frame decoded for the orientation.

    Reads a few pieces of a remote file. Where the header does not count frames (Matroska, MPEG-TS), ``frame_count`` is
    duration times rate, and damage goes unnoticed: `open_video` tells exactly.

    Raises VideoError when it cannot be opened or holds no video.
    """
    url = absolute(url)
    if is_image_source(url, storage_options):
        return _pictures(url, storage_options)
    with _header(url, storage_options) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(f"{url}: the video stream ({stream.codec.canonical_name}) holds no frames, expected one at least")
        fps, duration_s, count = _length(container, stream)
        height, width = Orientation.of(frame, dict(stream.metadata)).swap(frame.height, frame.width)
        return VideoInfo(width, height, fps, count, duration_s, stream.codec.canonical_name)


def probe_length(url: str, *, storage_options: Mapping[str, Any] | None = None) -> int:
    """Frames of a video as its header states them; nothing is decoded. Raises as `probe_video` does."""
    url = absolute(url)
    if is_image_source(url, storage_options):
        return _pictures(url, storage_options).frame_count
    with _header(url, storage_options) as (container, stream):
        return _length(container, stream)[2]


def _pictures(url: str, storage_options: Mapping[str, Any] | None) -> VideoInfo:
    with ImageSequence(url, storage_options=storage_options, max_pixels=MAX_PIXELS) as pictures:
        return pictures.info


@contextmanager
def _header(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[tuple[InputContainer, VideoStream]]:
    fs, path = filesystem_of(url, storage_options)
    try:
        file = fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="blockcache")
    except OSError as error:
        raise VideoError(f"{url}: cannot be opened: {type(error).__name__}: {error}") from error
    with file, opened(file, url, 1) as (container, stream):
        yield container, stream


def _length(container: InputContainer, stream: VideoStream) -> tuple[float, float, int]:
    """Frames a second, seconds, frames."""
    fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FRAME_RATE)
    duration_s = float(stream.duration * (stream.time_base or 0)) if stream.duration else (container.duration or 0) / 1e6
    count = stream.frames or max(1, round(duration_s * fps))
    return fps, duration_s or count / fps, count
