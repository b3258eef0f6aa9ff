"""One video, from its address to its rows, whatever becomes of it."""

import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline import interrupt
from sam2_pipeline.pipeline.job import Job

# the machine's fault, not the video's: the attempt fails, and the video is tried again elsewhere or later
MACHINE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}

Notify = Callable[[str, int, int | None], None]


class MaskletStream(Protocol):
    """Masks frame by frame; ``seeds`` is complete when the stream has ended."""

    seeds: list[MaskletSeed]

    def __iter__(self) -> Iterator[FrameMasks]: ...


class Generator(Protocol):
    """What turns one video into masklets: `MaskletGenerator`, or a stand-in in tests."""

    def stream(
        self, source: FrameSource, prompts: Sequence[Prompt] | None = None, *, annotate_fps: float | None = None
    ) -> MaskletStream: ...


class WorkerDied(Exception):
    """Attempts at a video ended without a word: killed, out of memory, or crashed in native code."""


class Cancelled(BaseException):
    """The unit is being given up, so this video is too."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be done, and why: what its failed row says."""

    video_id: str
    uri: str
    error_type: str
    error_message: str


@dataclass(frozen=True, slots=True)
class VideoResult:
    """Rows of one video: of ``videos``, and by way of the spool (to be closed by who takes them) of the other tables."""

    row: dict[str, Any]
    spool: MaskSpool
    seeds: list[MaskletSeed]
    failure: Failure | None = None


@dataclass(frozen=True)
class VideoWorker:
    """Processes the videos of one unit, several at once if several threads call it.

    Attributes:
        prompts: by video id; None means automatic masklets.
        deaths: by video id, how many attempts have died while on it.
        notify: told (video id, frames done, frames in all) after every frame.
        cancelled: once set, videos end at their next frame.
    """

    unit_id: str
    generator: Generator
    job: Job
    prompts: Mapping[str, Sequence[Prompt]] | None
    deaths: Mapping[str, int]
    notify: Notify
    cancelled: threading.Event = field(default_factory=threading.Event)

    def process(self, video: VideoRef) -> VideoResult:
        """The rows of one video; any exception that is its own fault makes them those of a failed one."""
        started = time.monotonic()
        row = _blank_row(video, self.unit_id, self.job)
        spool = MaskSpool(video.video_id)
        try:
            seeds = self._track(video, spool, row)
        except BaseException as error:
            spool.close()
            if not isinstance(error, Exception) or not _is_videos_fault(error):
                raise
            failure = Failure(video.video_id, video.uri, type(error).__name__, str(error) or repr(error))
            row |= {"status": "failed", "error_type": failure.error_type, "error_message": failure.error_message}
            row |= {"masklet_count": 0, "annotated_frame_count": 0, "wall_s": time.monotonic() - started}
            return VideoResult(row, MaskSpool(video.video_id), [], failure)
        row |= {"status": "ok", "masklet_count": len(seeds), "wall_s": time.monotonic() - started}
        return VideoResult(row, spool, seeds)

    def _track(self, video: VideoRef, spool: MaskSpool, row: dict[str, Any]) -> list[MaskletSeed]:
        """Fill ``spool`` with the video's masks and ``row`` with what is learnt of the video."""
        config = self.job.config
        deaths = self.deaths.get(video.video_id, 0)
        if deaths >= config.limits.max_attempts:
            raise WorkerDied(f"{deaths} attempts died while on this video; `sam2-pipeline retry` takes it up again")
        with open_video(
            video.uri,
            storage_options=config.storage_options_for(video.uri),
            max_pixels=config.limits.max_pixels,
            max_duration_s=config.limits.max_duration_s,
        ) as source:
            info = source.info
            row |= {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
            row |= {"frame_count": info.frame_count, "duration_s": info.duration_s, "annotated_frame_count": 0}
            prompts = None if self.prompts is None else self.prompts.get(video.video_id, ())
            if prompts is not None and not prompts:
                return []
            stream = self.generator.stream(source, prompts, annotate_fps=config.annotate.fps)
            seen = bytearray(source.num_frames)  # one byte a frame, since a backward pass shows a frame twice
            for frame in stream:
                interrupt.check()
                if self.cancelled.is_set():
                    raise Cancelled
                for masklet_id, mask in frame.masks.items():
                    spool.add(masklet_id, mask)
                seen[frame.frame_index] = 1
                self.notify(video.video_id, frame.frame_index + 1, source.num_frames)
            row["annotated_frame_count"] = sum(seen)
            seeds = list(stream.seeds)
            spool.masklet_rows(seeds)  # masks that do not fit their seeds should cost this video, not its unit
            return seeds


def _blank_row(video: VideoRef, unit_id: str, job: Job) -> dict[str, Any]:
    return {
        "video_id": video.video_id,
        "uri": video.uri,
        "size_bytes": video.size_bytes,
        "unit_id": unit_id,
        "error_type": None,
        "error_message": None,
        "width": None,
        "height": None,
        "fps": None,
        "frame_count": None,
        "duration_s": None,
        "codec": None,
        "model": job.model.name,
        "weights_sha256": job.model.weights_sha256,
        "config_hash": job.config_hash,
        "package_version": job.package_version,
        "device": job.model.device,
    }


def _is_videos_fault(error: Exception) -> bool:
    """Storage and disk trouble, and a GPU left unusable by an earlier kernel, would fail every other video too."""
    if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in MACHINE_ERRNOS):
        return False
    return type(error).__name__ != "AcceleratorError" and "CUDA error" not in str(error)
