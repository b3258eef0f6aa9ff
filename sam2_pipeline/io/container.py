"""Opening a video file with FFmpeg: which stream, which threads, and errors in our words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from sam2_pipeline.errors import VideoError

# What a file may refer to. Playlists and the like could otherwise make a worker fetch whatever their author names.
PROTOCOLS = "file,crypto,data"


def default_threads() -> int:
    """Decoder threads: more than four gain little, and several videos are often decoded at once."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def opened(source: str | Any, url: str, threads: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local path or a binary file object; FFmpeg's errors become VideoErrors that name ``url``."""
    try:
        # "file:" keeps FFmpeg from reading a meaning into names like "concat:a" or "rtsp:b".
        with av.open(
            f"file:{source}" if isinstance(source, str) else source,
            options={"protocol_whitelist": PROTOCOLS},
            metadata_errors="replace",
        ) as container:
            stream = video_stream(container, url)
            # Not "FRAME" or "AUTO": threads over frames mark damaged frames as corrupt or not by chance. No slower here, where
            # scaling takes most of the time and has threads of its own.
            stream.codec_context.thread_type = "SLICE"
            stream.codec_context.thread_count = threads
            yield container, stream
    except av.error.FileNotFoundError as error:
        raise VideoError(f"{url}: there is no such file") from error
    except av.FFmpegError as error:
        raise VideoError(f"{url}: FFmpeg cannot read it as a video: {error.strerror or error}") from error


def video_stream(container: InputContainer, url: str) -> VideoStream:
    # A cover picture in a music file is a "video" stream too.
    pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"
        raise VideoError(f"{url}: there is no video stream; the file holds {kinds} ({container.format.long_name})")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{url}: this FFmpeg has no decoder for its video stream")
    return stream
