"""Streams that are there once: cameras, network streams, pipes, and files as if they were such. Frames in displayed orientation.

Unlike `decode`, which answers for every frame of a file, this goes on over damage: what is lost in a stream is lost.
"""

import itertools
import os
import re
import select
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.container import PROTOCOLS, default_threads, video_stream
from sam2_pipeline.io.decode import MAX_PIXELS, SCALING, Orientation
from sam2_pipeline.masklets.frames import Frame

STDIN = "-"
NETWORK = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
# What a network stream may refer to: other places in the network, never a file of ours.
_NETWORK_PROTOCOLS = f"{','.join(NETWORK)},srtp,tls,httpproxy,crypto,data"
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_CAMERA = re.compile(r"\d+|/dev/video\d+")
_OPEN_S, _READ_S = 15.0, 10.0  # for a network stream to begin, and between two packets
_RETRY_EVERY_S = 1.0
_USUAL_FPS = 25.0


def open_stream(
    source: str | os.PathLike[str] | int,
    *,
    options: Mapping[str, str] | None = None,
    realtime: bool = False,
    reconnect_s: float = 0.0,
    max_pixels: int = MAX_PIXELS,
) -> "LiveSource":
    """Opens a source of frames and waits for its first one.

    Args:
        source: a camera (a number, or ``/dev/video0``), a network stream (``rtsp://``, ``http://``, ...), a file, or ``-`` for
            standard input.
        options: for FFmpeg, such as ``{"video_size": "1280x720", "framerate": "30"}`` of a camera.
        realtime: a file plays at its own pace, as a camera would.
        reconnect_s: a network stream that ends or breaks off is opened again, until this many seconds brought no frame.
        max_pixels: refuse larger pictures.

    Raises:
        ConfigError: not such a source.
        VideoError: it cannot be opened, or gives no frame.
    """
    return LiveSource(str(os.fspath(source)) if isinstance(source, os.PathLike) else str(source), options, realtime, reconnect_s,
                      max_pixels)  # fmt: skip


class LiveSource:
    """An open stream: iterate it once, in any one thread; `close` ends that from any thread. A context manager.

    Attributes:
        url: where it comes from.
        height, width: displayed size, rotation applied; a picture size that changes midway is scaled to that of the first frame.
        fps: frames a second as announced; None where nothing is.
        live: frames come at their own time (a camera, a network stream without an end, ``realtime``).
        damaged: packets so far that could not be decoded, and were left out.
        connections: how often the stream was opened.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None, realtime: bool, reconnect_s: float, max_pixels: int) -> None:
        if not 0 <= reconnect_s < float("inf"):
            raise ConfigError(f"reconnect_s is {reconnect_s}, expected seconds, 0 or more")
        self.url, self._options, self._max_pixels = url, dict(options or {}), max_pixels
        scheme = _SCHEME.match(url)
        self._network = scheme is not None
        self._camera = bool(_CAMERA.fullmatch(url))
        if scheme is not None and scheme[1].lower() not in NETWORK:
            raise ConfigError(f"{url}: {scheme[1]} is no kind of stream, expected a camera, a file, - or {', '.join(NETWORK)}")
        if reconnect_s and not self._network:
            raise ConfigError(f"{url}: only a network stream can be opened again, expected reconnect_s 0")
        self._realtime, self._reconnect_s = realtime, reconnect_s
        self.height = self.width = 0
        self.fps: float | None = None
        self.live = realtime or self._camera
        self.damaged = self.connections = 0
        self._received = 0
        self._time_s = 0.0  # of the latest frame
        self._offset_s: float | None = None  # from the clock of this connection to that of the stream
        self._closed = threading.Event()
        self._frames = self._receive()
        first = next(self._frames, None)
        if first is None:
            raise VideoError(f"{url}: the stream ended without a frame")
        self._first: av.VideoFrame | None = first
        self._orientation = Orientation.of(first, self._metadata)
        self.height, self.width = self._orientation.swap(first.height, first.width)

    def __iter__(self) -> Iterator[Frame]:
        first, self._first = self._first, None
        if first is None:
            raise VideoError(f"{self.url}: the stream is iterated already, and is there only once")
        reformatter, threads = VideoReformatter(), default_threads()
        height, width = self._orientation.swap(self.height, self.width)
        began = time.monotonic()
        try:
            for number, frame in enumerate(itertools.chain([first], self._frames)):
                timestamp_s = self._clock(frame, number)
                if self._realtime and self._closed.wait(max(began + timestamp_s - time.monotonic(), 0)):
                    return
                rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation=SCALING, threads=threads)
                yield Frame(number, timestamp_s, self._orientation.apply(rgb.to_ndarray()))
        finally:
            self._frames.close()

    def close(self) -> None:
        """Ends the iteration after the frame that is awaited, and frees the source."""
        self._closed.set()
        with suppress(ValueError):  # another thread is in it, and ends it
            self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LiveSource({self.url!r}, {self.width}x{self.height}, live={self.live})"

    # ------------------------------------------------------------------------------------------------------- details

    def _receive(self) -> Generator[av.VideoFrame, None, None]:
        """Decoded frames, over all connections."""
        last = time.monotonic()
        while not self._closed.is_set():
            fault = None
            try:
                for frame in self._connection():
                    last = time.monotonic()
                    yield frame
            except VideoError as error:
                fault = error
            if self._closed.is_set():
                return
            if not self._received or time.monotonic() - last >= self._reconnect_s:
                if fault is not None:
                    raise fault
                return
            self._closed.wait(_RETRY_EVERY_S)

    def _connection(self) -> Generator[av.VideoFrame, None, None]:
        """Decoded frames of one connection."""
        with self._opened() as (container, stream):
            self.connections += 1
            self._metadata = dict(stream.metadata)
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else None
            self.live = self.live or (self._network and not container.duration)
            self._offset_s = None
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    self.damaged += 1
                    continue
                for frame in frames:
                    if self._closed.is_set():
                        return
                    if frame.width * frame.height > self._max_pixels:
                        raise VideoError(
                            f"{self.url}: pictures are {frame.width}x{frame.height}, expected {self._max_pixels} pixels"
                        )
                    self._received += 1
                    yield frame

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        place, settings = self._place()
        try:
            with av.open(place, metadata_errors="replace", **settings) as container:
                stream = video_stream(container, self.url)
                stream.codec_context.thread_type = "SLICE"  # threads over frames would each hold one back
                stream.codec_context.thread_count = default_threads()
                yield container, stream
        except av.error.FileNotFoundError as error:
            kind = "camera" if self._camera else "file"
            raise VideoError(f"{self.url}: there is no such {kind}") from error
        except av.error.ExitError as error:
            raise VideoError(f"{self.url}: nothing came for {_READ_S if self._received else _OPEN_S:g} s") from error
        except av.FFmpegError as error:
            after = f"broke off after {self._received} frames" if self._received else "cannot be opened"
            raise VideoError(f"{self.url}: the stream {after}: {error.strerror or error}") from error
        except OSError as error:  # of standard input
            raise VideoError(f"{self.url}: reading failed: {error}") from error

    def _place(self) -> tuple[Any, dict[str, Any]]:
        """What `av.open` takes: a place, and how to open it."""
        options = {"protocol_whitelist": _NETWORK_PROTOCOLS if self._network else PROTOCOLS}
        if self._network:
            transport = {"rtsp_transport": "tcp"} if self.url.startswith("rtsp") else {}
            return self.url, {"options": options | transport | self._options, "timeout": (_OPEN_S, _READ_S)}
        if self._camera:
            return _camera(self.url), {"options": self._options, "format": _camera_format(), "timeout": (_OPEN_S, _READ_S)}
        if self.url == STDIN:
            return _Pipe(sys.stdin.fileno(), self._closed), {"options": options | self._options}
        return f"file:{os.path.expanduser(self.url)}", {"options": options | self._options}

    def _clock(self, frame: av.VideoFrame, number: int) -> float:
        """Seconds since the first frame, rising also where a new connection begins its time anew."""
        due = self._time_s + 1 / (self.fps or _USUAL_FPS) if number else 0.0
        if frame.time is None:
            self._time_s = due
        else:
            self._offset_s = due - frame.time if self._offset_s is None else self._offset_s
            self._time_s = max(frame.time + self._offset_s, self._time_s)
        return self._time_s


def _camera(url: str) -> str:
    return f"/dev/video{url}" if url.isdigit() and sys.platform == "linux" else url


def _camera_format() -> str:
    """The name of FFmpeg's input for cameras, if this FFmpeg has it (that of PyAV's wheels for Linux does not)."""
    name = {"darwin": "avfoundation", "win32": "dshow"}.get(sys.platform, "v4l2")
    if name not in av.formats_available:
        raise ConfigError(
            f"this PyAV was built without cameras ({name}); build it from source (pip install av --no-binary av), or let ffmpeg "
            f"read the camera: ffmpeg -f {name} -i /dev/video0 -c copy -f matroska - | sam2-pipeline live -"
        )
    return name


class _Pipe:
    """A pipe as a file object that a close from another thread can end."""

    def __init__(self, descriptor: int, closed: threading.Event) -> None:
        self._descriptor, self._closed = descriptor, closed

    def read(self, size: int) -> bytes:
        while not self._closed.is_set():
            if select.select([self._descriptor], [], [], 0.1)[0]:
                return os.read(self._descriptor, size)
        return b""
