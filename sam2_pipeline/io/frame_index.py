"""Which frames a video file holds, and from where each can be decoded. Built once by reading, not decoding, the file."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from sam2_pipeline.errors import VideoError
from sam2_pipeline.io.container import opened
from sam2_pipeline.io.truncation import check_complete

# Where a packet is a frame and carries its presentation time. Elsewhere packets can be half frames, repeated ones or
# none, or have no time of their own (AVI), so that only decoding tells what is there.
EXACT_FORMATS = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "gif"])
EXACT_CODECS = frozenset(["h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "dnxhd", "ffv1", "gif", "png", "rawvideo"])


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Frames in order of presentation.

    Attributes:
        count: number of frames.
        pts: int64 ``[count]`` presentation times, strictly increasing; None where the file has no such times: then
            frames are numbered as they are decoded, from the start.
        keys: increasing numbers of the frames at which decoding can start, beginning with 0.
    """

    count: int
    pts: np.ndarray | None
    keys: np.ndarray

    def find(self, pts: int | None) -> int | None:
        """The number of the frame presented at ``pts``, or None."""
        if self.pts is None or pts is None:
            return None
        number = int(np.searchsorted(self.pts, pts))
        return number if number < self.count and self.pts[number] == pts else None

    def entries(self, number: int) -> Iterator[int]:
        """Key frames from which to try to reach a frame, nearest first, then ever further away, at last 0."""
        position, step = int(np.searchsorted(self.keys, number, side="right")) - 1, 1
        while position > 0:
            yield int(self.keys[position])
            position, step = position - step, step * 2
        yield 0

    def first_key_within(self, low: int, high: int) -> int | None:
        """The first key frame in ``low .. high``, or None."""
        position = bisect_left(self.keys, low)
        return int(self.keys[position]) if position < len(self.keys) and self.keys[position] <= high else None


def index_by_packets(container: InputContainer, stream: VideoStream, url: str) -> FrameIndex | None:
    """Read all packets, without decoding. None where packets do not tell frames.

    Raises VideoError when the file ends before what it announces.
    """
    times, keys = array("q"), array("q")  # eight bytes a frame: an hour has 100,000
    timeless = False
    packets, end_s = 0, 0.0
    vp8 = stream.codec.canonical_name == "vp8"
    for packet in container.demux():
        if packet.size == 0:
            continue
        when = packet.pts if packet.pts is not None else packet.dts
        if when is not None and packet.time_base:
            end_s = max(end_s, float((when + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index:
            continue
        packets += 1
        # Edit lists hide frames that others need; VP8 stores pictures that are never shown.
        if packet.is_discard or (vp8 and not memoryview(packet)[0] & 0x10):
            continue
        if packet.pts is None:
            timeless = True
            continue
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
    check_complete(container, stream, url, packets, end_s)
    if container.format.name not in EXACT_FORMATS or stream.codec.canonical_name not in EXACT_CODECS:
        return None
    pts = np.unique(np.array(times, np.int64))
    if timeless or not len(times) or len(pts) < len(times):
        return None
    return _index(pts, np.array(keys, np.int64))


def index_by_decoding(path: str, url: str, threads: int) -> FrameIndex:
    """Decode the whole file once. For the formats whose packets do not tell frames."""
    times: list[int | None] = []
    keys: list[int | None] = []
    with opened(path, url, threads) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise corrupt(url, len(times))
            times.append(frame.pts)
            if frame.key_frame:
                keys.append(frame.pts)
    if None not in times:
        pts = np.array(times, np.int64)
        if (np.diff(pts) > 0).all():
            return _index(pts, np.array(keys, np.int64))
    return FrameIndex(len(times), None, np.zeros(1, np.int64))


def corrupt(url: str, number: int) -> VideoError:
    return VideoError(f"{url}: frame {number} is corrupt: its data is damaged, expected a sound frame")


def _index(pts: np.ndarray, key_pts: np.ndarray) -> FrameIndex:
    return FrameIndex(len(pts), pts, np.union1d(np.searchsorted(pts, key_pts), [0]))
