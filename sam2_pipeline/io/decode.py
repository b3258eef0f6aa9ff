"""Video files to frames: displayed orientation, exact random access, bounded memory, and damage that is noticed."""

import itertools
import os
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.container import default_threads, opened
from sam2_pipeline.io.frame_index import corrupt, index_by_decoding, index_by_packets
from sam2_pipeline.io.images import DEFAULT_FRAME_RATE, ImageSequence, is_image_source
from sam2_pipeline.io.urls import absolute, fetch, is_local
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.frames import Frame

MAX_PIXELS = 8192 * 8192
MAX_DURATION_S = 24 * 3600.0
REVERSE_BYTES = 128 << 20  # pictures decoded forward, to be handed out backward

# The same bits on every processor, whatever vector instructions it has.
SCALING = int(Interpolation.BICUBIC | Interpolation.BITEXACT)


def open_video(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    max_pixels: int = MAX_PIXELS,
    max_duration_s: float = MAX_DURATION_S,
    max_bytes: int | None = None,
    frame_rate: float = DEFAULT_FRAME_RATE,
    exif_orientation: bool = True,
    threads: int | None = None,
) -> Video:
    """Open a video file, a folder of pictures, or one picture; a local path or any fsspec URL.

    A remote video file is fetched whole into a temporary file, which `Video.close` removes.

    Args:
        url: the path or URL.
        storage_options: for fsspec.
        max_pixels, max_duration_s: refuse what is larger or longer (a header can claim anything).
        max_bytes: refuse to fetch more than so many; None: whatever there is.
        frame_rate: frames per second of what has no clock of its own: pictures, a video of one frame.
        exif_orientation: whether pictures are turned as their EXIF data say (SAM 2's own loader ignores it).
        threads: decoder and scaler threads; None: as many as there are processors, at most four.

    Raises:
        VideoError: there is no such video, or it cannot be read, holds no frames, is truncated, or is too large.
        StorageError: fetching failed for a reason that is not the video's.
    """
    name = absolute(os.fspath(url))
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is {threads}, expected 1 or more")
    if is_image_source(name, storage_options):
        return ImageSequence(
            name,
            storage_options=storage_options,
            max_pixels=max_pixels,
            frame_rate=frame_rate,
            exif_orientation=exif_orientation,
        )
    local = name if is_local(name) else fetch(name, storage_options, max_bytes)
    try:
        video = VideoFile(local, name, max_pixels, max_duration_s, frame_rate, threads or default_threads())
    except BaseException:
        if local != name:
            os.unlink(local)
        raise
    if local != name:
        video.remove_when_closed()
    return video


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pictures become displayed ones: a transposition, then reversed rows and columns."""

    transposed: bool = False
    reverse_y: bool = False
    reverse_x: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame, metadata: Mapping[str, str]) -> "Orientation":
        """From the frame's display matrix, or else the old ``rotate`` tag (clockwise degrees); to the nearest right angle."""
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            # Fixed-point rows (a, b, u), (c, d, v), ...: a stored (x, y) is displayed at (a x + c y, b x + d y).
            a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
            return cls(True, b < 0, c < 0) if abs(b) > abs(a) else cls(False, d < 0, a < 0)
        tag = next((value for key, value in metadata.items() if key.lower() == "rotate"), "0")
        turns = int(tag) // 90 % 4 if tag.lstrip("-").isdigit() else 0
        return (cls(), cls(True, False, True), cls(False, True, True), cls(True, True, False))[turns]

    @property
    def rotation(self) -> int:
        """Clockwise degrees (of the rotation that remains when a mirroring is taken away)."""
        return (90 if self.reverse_x else 270) if self.transposed else (180 if self.reverse_y else 0)

    def swap(self, height: int, width: int) -> tuple[int, int]:
        """A displayed size from a stored one, and back."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, image: np.ndarray) -> np.ndarray:
        image = image.swapaxes(0, 1) if self.transposed else image
        return np.ascontiguousarray(image[:: -1 if self.reverse_y else 1, :: -1 if self.reverse_x else 1])


class VideoFile(Video):
    """A local video file. A picture size that changes midway is scaled to that of the first frame, as players do."""

    def __init__(self, path: str, url: str, max_pixels: int, max_duration_s: float, frame_rate: float, threads: int) -> None:
        super().__init__(url)
        self._path, self._threads, self._max_pixels = path, threads, max_pixels
        with opened(path, url, threads) as (container, stream):
            self._check_pixels(stream.codec_context.width, stream.codec_context.height)
            self._check_duration((container.duration or 0) / 1e6, max_duration_s)
            self.codec = stream.codec.canonical_name
            self._time_base = float(stream.time_base or 0)
            stated_rate, metadata = stream.average_rate or stream.guessed_rate, dict(stream.metadata)
            index = index_by_packets(container, stream, url)
        first = self._first_frame()
        if index is None or index.find(first.pts) != 0:
            index = index_by_decoding(path, url, threads)
        self._index = index
        self.num_frames = index.count
        self._orientation = Orientation.of(first, metadata)
        self.rotation = self._orientation.rotation
        self.height, self.width = self._orientation.swap(first.height, first.width)
        self._set_clock(float(stated_rate) if stated_rate else frame_rate)
        self._check_duration(self.duration_s, max_duration_s)

    def remove_when_closed(self) -> None:
        """The file is a temporary copy: remove it with this object."""
        self._remove = weakref.finalize(self, os.unlink, self._path)

    def close(self) -> None:
        super().close()
        if remove := getattr(self, "_remove", None):
            remove()

    def _first_frame(self) -> av.VideoFrame:
        with opened(self._path, self.url, self._threads) as (container, stream):
            for frame in container.decode(stream):
                self._check_pixels(frame.width, frame.height)
                return frame
        raise VideoError(f"{self.url}: the video stream ({self.codec}) holds no frames, expected one at least")

    def _set_clock(self, stated_rate: float) -> None:
        """Frame rate and duration: as measured over all frames, but the stated rate when it is that but for rounding."""
        pts = self._index.pts
        span_s = float(pts[-1] - pts[0]) * self._time_base if pts is not None else 0.0
        measured = (self.num_frames - 1) / span_s if span_s > 0 else stated_rate
        self.fps = stated_rate if abs(measured / stated_rate - 1) < 0.01 else measured
        self.duration_s = (span_s or (self.num_frames - 1) / self.fps) + 1 / self.fps

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise VideoError(f"{self.url}: pictures are {width}x{height} pixels, expected at most {self._max_pixels} in all")

    def _check_duration(self, duration_s: float, limit_s: float) -> None:
        if duration_s > limit_s:
            raise VideoError(f"{self.url}: the video lasts {duration_s:.0f} s, expected at most {limit_s:.0f} s")

    def _forward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        reformatter = VideoReformatter()
        with closing(self._decode(start)) as decoded:
            for number, frame in itertools.islice(decoded, max(0, stop - start)):
                yield self._picture(reformatter, number, frame, size)

    def _backward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        """Decode forward in chunks of bounded bytes, each from a key frame where one is near, and hand them out reversed."""
        height, width = size or (self.height, self.width)
        chunk = max(4, min(64, REVERSE_BYTES // (height * width * 3)))
        high = start
        while high >= stop:
            low = max(stop, high - chunk + 1)
            low = low if low == stop else self._index.first_key_within(low, high) or low
            with closing(self._forward(low, high + 1, size)) as frames:
                pictures = list(frames)
            while pictures:
                yield pictures.pop()
            high = low - 1

    def _decode(self, first: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """(number, frame) from frame ``first`` to the end, exactly one after the other."""
        expected = first
        for entry in self._index.entries(first):
            with opened(self._path, self.url, self._threads) as (container, stream):
                if entry:
                    assert self._index.pts is not None  # without times there is but one entry, the start
                    container.seek(int(self._index.pts[entry]), stream=stream)
                for number, frame in self._numbered(container.decode(stream), entry):
                    if number > expected:
                        break  # the seek went too far, or frames are missing
                    if number == expected:
                        yield number, frame
                        expected += 1
            if expected > first:
                break
        if expected < self.num_frames:
            raise VideoError(f"{self.url}: truncated or damaged: {expected} frames decoded, {self.num_frames} expected")

    def _numbered(self, frames: Iterator[av.VideoFrame], entry: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Number decoded frames. After a seek those before the first key frame may be wrong, and are left out."""
        reliable, number = entry == 0, None
        for count in itertools.count():
            try:
                frame = next(frames)
            except StopIteration:
                return
            except av.FFmpegError as error:
                after = "at its start" if number is None else f"after frame {number}"
                raise VideoError(f"{self.url}: damaged {after}: {error.strerror}; {self.num_frames} frames expected") from error
            number = self._index.find(frame.pts) if self._index.pts is not None else count
            reliable = reliable or (bool(frame.key_frame) and number is not None)
            if not reliable:
                continue
            if frame.is_corrupt:
                raise corrupt(self.url, count if number is None else number)
            if number is None:
                raise VideoError(f"{self.url}: damaged: a frame was decoded at time {frame.pts}, where the file announces none")
            self._check_pixels(frame.width, frame.height)
            yield number, frame

    def _picture(self, reformatter: VideoReformatter, number: int, frame: av.VideoFrame, size: tuple[int, int] | None) -> Frame:
        # Straight from the decoder's YUV to the wanted size: no full-size RGB picture in between.
        height, width = self._orientation.swap(*(size or (self.height, self.width)))
        rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation=SCALING, threads=self._threads)
        return Frame(number, self._timestamp_s(number), self._orientation.apply(rgb.to_ndarray()))

    def _timestamp_s(self, number: int) -> float:
        pts = self._index.pts
        return number / self.fps if pts is None else float(pts[number] - pts[0]) * self._time_base
