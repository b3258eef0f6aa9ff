"""What travels between planning, workers and tables: videos, units of work, and commits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VideoRef:
    """A video to process. ``video_id`` is unique within a run and derives from the URL relative to the input.

    ``frames`` is what planning expects, by its header or its bytes; it says nothing of which video it is.
    """

    video_id: str
    uri: str
    size_bytes: int | None = None
    frames: int | None = field(default=None, compare=False)


def weigher(videos: Iterable[VideoRef]) -> Callable[[VideoRef], float]:
    """How much work a video is, beside the others: by frames, or where those of one are not known, by bytes.

    One of unknown size is taken to be like the mean.
    """
    videos = list(videos)
    by_frames = all(video.frames is not None for video in videos)
    known = [size for video in videos if (size := video.frames if by_frames else video.size_bytes)]
    mean = sum(known) / len(known) if known else 1.0
    return lambda video: (video.frames if by_frames else video.size_bytes) or mean


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a container says of itself; sizes as displayed (rotation applied)."""

    width: int
    height: int
    fps: float
    frame_count: int
    duration_s: float
    codec: str


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """Videos given to one worker; the unit of retry and of commit. The id derives from the content."""

    unit_id: str
    videos: tuple[VideoRef, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file: its table (``videos``, ``masklets``, ``masks``), name under OUTPUT, rows, bytes and SHA-256."""

    table: str
    path: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The record that makes parts visible. A part that no commit names does not exist.

    ``replaces``: ids of units whose rows this commit's parts hold too; their commits no longer count.
    """

    unit_id: str
    attempt_id: str
    parts: tuple[Part, ...]
    video_ids: tuple[str, ...]
    num_videos: int
    num_failures: int
    replaces: tuple[str, ...] = ()
