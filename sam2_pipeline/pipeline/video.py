"""One video, from its address to its rows, whatever becomes of it."""

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from sam2_pipeline.errors import StorageError, VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.urls import forbidden
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.verdict import Judgement, MaskStore
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline import interrupt
from sam2_pipeline.pipeline.identity import identity_options, settle_identity
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.memory import give_back
from sam2_pipeline.pipeline.metrics import Meter
from sam2_pipeline.pipeline.watchdog import TIMED_OUT, Leash, Patience

# the machine's fault, not the video's: the attempt fails, and the video is tried again elsewhere or later
MACHINE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
SLOWEST_FETCH = 1e6  # bytes a second; slower than that, fetching counts as hanging

Notify = Callable[[str, int, int | None], None]


class MaskletStream(Protocol):
    """Masks frame by frame; ``seeds`` and ``shot_count`` (None: nobody looked for shots) are right when the stream has ended."""

    seeds: list[MaskletSeed]
    shot_count: int | None

    def __iter__(self) -> Iterator[FrameMasks]: ...


class Generator(Protocol):
    """What turns one video into masklets: `MaskletGenerator`, or a stand-in in tests."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) to which it squeezes the frames that it asks a source for."""
        ...

    def stream(
        self, source: FrameSource, prompts: Sequence[Prompt] | None = None, *, annotate_fps: float | None = None
    ) -> MaskletStream: ...

    def judge(
        self, source: FrameSource, seeds: Sequence[MaskletSeed], masks: MaskStore, on_frame: Callable[[], None]
    ) -> Mapping[int, Judgement]: ...


class WorkerDied(Exception):
    """Attempts at a video took their workers with them: killed, out of memory, or crashed in native code."""


class TimedOut(WorkerDied):
    """So they did, each time because the watchdog found the video hanging."""


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
class Done:
    """A video with a committed row, as events tell of it."""

    video_id: str
    masklets: int
    annotated_frames: int
    wall_s: float
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class VideoResult:
    """Rows of one video: of ``videos``, and by way of the spool (to be closed by who takes them) of the other tables."""

    row: dict[str, Any]
    spool: MaskSpool
    seeds: list[MaskletSeed]
    failure: Failure | None = None

    @property
    def done(self) -> Done:
        row = self.row
        return Done(row["video_id"], len(self.seeds), row["annotated_frame_count"], row["wall_s"], self.failure)


@dataclass(frozen=True)
class VideoWorker:
    """Processes the videos of one unit, several at once if several threads call it.

    Attributes:
        prompts: by video id; None means automatic masklets.
        deaths: by video id, why each of the attempts died that were on it.
        notify: told (video id, frames done, frames in all) after every frame.
        device: held while a video is tracked, not while it is fetched.
        meter: told of frames, and of the seconds that each stage takes.
        stop, cancelled: once one is set (for the whole process, for this unit), videos end at their next frame.
    """

    unit_id: str
    generator: Generator
    job: Job
    prompts: Mapping[str, Sequence[Prompt]] | None
    deaths: Mapping[str, Sequence[str]]
    notify: Notify
    device: AbstractContextManager[Any] = field(default_factory=nullcontext)
    meter: Meter = field(default_factory=Meter)
    stop: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def process(self, video: VideoRef, leash: Leash) -> VideoResult:
        """The rows of one video; any exception that is its own fault makes them those of a failed one."""
        row = _blank_row(video, self.unit_id, self.job)
        spool = MaskSpool(video.video_id)
        started = time.monotonic()
        try:
            self._check_cancelled()
            self._check_deaths(video)
            seeds = self._track(video, spool, row, leash)
        except BaseException as error:
            spool.close()
            if not isinstance(error, Exception) or not _is_videos_fault(error):
                raise
            failure = Failure(video.video_id, video.uri, type(error).__name__, str(error) or repr(error))
            row |= {"status": "failed", "error_type": failure.error_type, "error_message": failure.error_message}
            row |= {"masklet_count": 0, "annotated_frame_count": 0, "wall_s": row["wall_s"] + time.monotonic() - started}
            return VideoResult(row, MaskSpool(video.video_id), [], failure)
        give_back()  # what the video's index and frames took, before its rows are written
        row |= {"status": "ok", "masklet_count": len(seeds), "wall_s": row["wall_s"] + time.monotonic() - started}
        return VideoResult(row, spool, seeds)

    def _check_deaths(self, video: VideoRef) -> None:
        """Refuse a video that has taken too many workers down."""
        deaths = self.deaths.get(video.video_id, ())
        if len(deaths) < self.job.config.limits.max_attempts:
            return
        kind = TimedOut if all(reason.startswith(TIMED_OUT) for reason in deaths) else WorkerDied
        reasons = "; ".join(f"{count} {reason}" for reason, count in Counter(deaths).items())
        raise kind(f"{len(deaths)} attempts died while on this video ({reasons}); `sam2-pipeline retry` takes it up again")

    def _track(self, video: VideoRef, spool: MaskSpool, row: dict[str, Any], leash: Leash) -> list[MaskletSeed]:
        """Fill ``spool`` with the video's masks and ``row`` with what is learnt of the video."""
        with self.meter.stage("fetch"):
            source = self._open(video, leash)
        with source:
            info = source.info
            row |= {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
            row |= {"frame_count": info.frame_count, "duration_s": info.duration_s, "annotated_frame_count": 0}
            prompts = None if self.prompts is None else self.prompts.get(video.video_id, ())
            if prompts is not None and not prompts:
                return []
            source.prepare(self.generator.frame_size)  # so that the device need not wait for a decoder to get going
            leash.rest()
            ready = time.monotonic()
            with self.device:
                waited = time.monotonic() - ready
                row["wall_s"] = -waited  # waiting for other videos is no time of this one's
                self.meter.add("sam2_stage_seconds_total", waited, stage="wait")
                with self.meter.stage("track"):
                    seeds, found = self._spool_masks(source, prompts, spool, leash)
                row |= found
                if (options := identity_options(self.job.config)) is not None:
                    seeds = settle_identity(spool, seeds, options)
                if self.job.config.judge.enabled:
                    with self.meter.stage("judge"):
                        spool.add_judgements(self._judge(source, seeds, spool, leash))
            spool.masklet_rows(seeds)  # masks that do not fit their seeds should cost this video, not its unit
            return seeds

    def _open(self, video: VideoRef, leash: Leash) -> Video:
        config, limits = self.job.config, self.job.config.limits
        if reason := forbidden(video.uri, config.sources.schemes):
            raise VideoError(f"{video.uri}: {reason}")
        opening_s = limits.timeout_s + (video.size_bytes or 0) / SLOWEST_FETCH
        leash.allow(opening_s, f"not fetched and opened within {opening_s:.0f} s (limits.timeout_s)")
        return open_video(
            video.uri,
            storage_options=config.storage_options_for(video.uri),
            max_pixels=limits.max_pixels,
            max_duration_s=limits.max_duration_s,
            max_bytes=limits.max_bytes,
        )

    def _spool_masks(
        self, source: Video, prompts: Sequence[Prompt] | None, spool: MaskSpool, leash: Leash
    ) -> tuple[list[MaskletSeed], dict[str, Any]]:
        """Masklets' seeds, and what was learnt for the video's row. What the device holds of the video is free on return."""
        self._check_cancelled()
        patience = Patience(leash, self.job.config.limits, source.num_frames)
        stream = self.generator.stream(source, prompts, annotate_fps=self.job.config.annotate.fps)
        seen = bytearray(source.num_frames)  # one byte a frame, since a backward pass shows a frame twice
        for frame in stream:
            patience.renew()
            self._check_cancelled()
            for masklet_id, mask in frame.masks.items():
                spool.add(masklet_id, mask)
            seen[frame.frame_index] = 1
            self.meter.add("sam2_frames_total")
            self.notify(spool.video_id, frame.frame_index + 1, source.num_frames)
        patience.renew()
        return list(stream.seeds), {"annotated_frame_count": sum(seen), "shot_count": stream.shot_count}

    def _judge(self, source: Video, seeds: Sequence[MaskletSeed], spool: MaskSpool, leash: Leash) -> Mapping[int, Judgement]:
        """The verdicts on the video's masklets; they may take as much time again as tracking."""
        patience = Patience(leash, self.job.config.limits, source.num_frames)

        def on_frame() -> None:
            patience.renew()
            self._check_cancelled()

        return self.generator.judge(source, seeds, spool, on_frame)

    def _check_cancelled(self) -> None:
        interrupt.check()
        if self.cancelled.is_set() or self.stop.is_set():
            raise Cancelled


def _blank_row(video: VideoRef, unit_id: str, job: Job) -> dict[str, Any]:
    return {
        "video_id": video.video_id,
        "uri": video.uri,
        "size_bytes": video.size_bytes,
        "unit_id": unit_id,
        "wall_s": 0.0,
        "error_type": None,
        "error_message": None,
        "width": None,
        "height": None,
        "fps": None,
        "frame_count": None,
        "duration_s": None,
        "codec": None,
        "attributes": None,
        "shot_count": None,
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
