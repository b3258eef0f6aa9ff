"""One unit of work, from videos to one commit. Nothing here knows of Ray."""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError, StorageError
from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import Commit, VideoRef, WorkUnit
from sam2_pipeline.pipeline.attempts import Attempt, begin_attempt

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


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model, exactly, and where it runs."""

    name: str
    weights_sha256: str
    device: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker has to know of the run: the settings, and what goes into every row."""

    config: JobConfig
    config_hash: str
    package_version: str
    model: ModelFacts

    def on(self, facts: ModelFacts) -> "Job":
        """This job on the model that a worker really loaded.

        Raises:
            CheckpointError: its weights are not those that the run began with.
        """
        if facts.weights_sha256 != self.model.weights_sha256:
            raise CheckpointError(
                f"the weights of {facts.name} are {facts.weights_sha256[:12]} here, but the run began with "
                f"{self.model.weights_sha256[:12]}; is the checkpoint the same file on every machine?"
            )
        return replace(self, model=facts)

    @property
    def metadata(self) -> dict[str, str]:
        """Run-level metadata of every Parquet part."""
        return {
            "config_hash": self.config_hash,
            "package_version": self.package_version,
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be done, and why: what its failed row says."""

    video_id: str
    uri: str
    error_type: str
    error_message: str


@dataclass(frozen=True, slots=True)
class UnitResult:
    """A finished unit: its commit, and which of its videos failed."""

    commit: Commit
    failures: tuple[Failure, ...]


def process_work_unit(
    unit: WorkUnit,
    generator: Generator,
    job: Job,
    storage: Storage,
    *,
    prompts: Mapping[str, Sequence[Prompt]] | None = None,
    notify: Notify = lambda video_id, done, total: None,
) -> UnitResult:
    """Process every video of ``unit`` and commit the result; of two workers on one unit the first commit stands.

    ``prompts`` maps video ids to their prompts; None means automatic masklets. A video that fails gives a failed row. What
    is raised (`StorageError`, a full disk, a broken GPU) is the machine's fault: nothing is committed, and the unit may be
    tried again.
    """
    attempt = begin_attempt(storage, unit.unit_id)
    failures = []
    try:
        with UnitWriter(storage, unit.unit_id, attempt.attempt_id, job.metadata) as writer:
            for video in unit.videos:
                attempt.working_on(video.video_id)
                video_prompts = None if prompts is None else prompts.get(video.video_id, ())
                failure = _add_video(video, video_prompts, generator, job, attempt, writer, notify)
                failures += [failure] if failure else []
            parts = writer.finish()
        ids = tuple(video.video_id for video in unit.videos)
        commit = Commit(unit.unit_id, attempt.attempt_id, parts, ids, len(ids), len(failures))
        commit_unit(storage, commit)
    except BaseException:
        attempt.withdraw()
        raise
    return UnitResult(commit, tuple(failures))


def _add_video(
    video: VideoRef,
    prompts: Sequence[Prompt] | None,
    generator: Generator,
    job: Job,
    attempt: Attempt,
    writer: UnitWriter,
    notify: Notify,
) -> Failure | None:
    """Write one video's rows, whatever becomes of it; what went wrong, if something did."""
    started = time.monotonic()
    row = _blank_row(video, attempt.unit_id, job)
    with closing(MaskSpool(video.video_id)) as spool:
        try:
            deaths = attempt.deaths[video.video_id]
            if deaths >= job.config.limits.max_attempts:
                raise WorkerDied(f"{deaths} attempts died while on this video; `sam2-pipeline retry` takes it up again")
            seeds = _track(video, prompts, generator, job.config, spool, row, notify)
        except Exception as error:
            if not _is_videos_fault(error):
                raise
            failure = Failure(video.video_id, video.uri, type(error).__name__, str(error) or repr(error))
        else:
            row |= {"status": "ok", "masklet_count": len(seeds), "wall_s": time.monotonic() - started}
            writer.add_video(row, spool, seeds)
            return None
    row |= {"status": "failed", "error_type": failure.error_type, "error_message": failure.error_message}
    row |= {"masklet_count": 0, "annotated_frame_count": 0, "wall_s": time.monotonic() - started}
    with closing(MaskSpool(video.video_id)) as empty:
        writer.add_video(row, empty, [])
    return failure


def _track(
    video: VideoRef,
    prompts: Sequence[Prompt] | None,
    generator: Generator,
    config: JobConfig,
    spool: MaskSpool,
    row: dict[str, Any],
    notify: Notify,
) -> list[MaskletSeed]:
    """Fill ``spool`` with the video's masks and ``row`` with what is learnt of the video."""
    options = config.storage_options_for(video.uri)
    limits = config.limits
    with open_video(
        video.uri, storage_options=options, max_pixels=limits.max_pixels, max_duration_s=limits.max_duration_s
    ) as source:
        info = source.info
        row |= {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
        row |= {"frame_count": info.frame_count, "duration_s": info.duration_s, "annotated_frame_count": 0}
        if prompts is not None and not prompts:
            return []
        stream = generator.stream(source, prompts, annotate_fps=config.annotate.fps)
        seen = bytearray()  # one byte a frame, since a backward pass shows a frame twice
        for frame in stream:
            for masklet_id, mask in frame.masks.items():
                spool.add(masklet_id, mask)
            if len(seen) <= frame.frame_index:
                seen.extend(bytes(frame.frame_index + 1 - len(seen)))
            seen[frame.frame_index] = 1
            notify(video.video_id, frame.frame_index + 1, source.num_frames)
        row["annotated_frame_count"] = sum(seen)
        seeds = list(stream.seeds)
        spool.masklet_rows(seeds)  # masks that do not fit their seeds should cost this video, not its unit
        return seeds


class WorkerDied(Exception):
    """Attempts at a video ended without a word: killed, out of memory, or crashed in native code."""


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
