"""One unit of work, from videos to one commit. Nothing here knows of Ray."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event

from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import Commit, VideoRef, WorkUnit
from sam2_pipeline.pipeline.attempts import begin_attempt
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.lanes import Lanes, in_lanes
from sam2_pipeline.pipeline.metrics import Meter
from sam2_pipeline.pipeline.video import Cancelled, Done, Failure, Generator, Notify, VideoResult, VideoWorker
from sam2_pipeline.pipeline.watchdog import Watchdog, leash


@dataclass(frozen=True, slots=True)
class UnitResult:
    """A finished unit: its commit, and its videos."""

    commit: Commit
    done: tuple[Done, ...]

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(video.failure for video in self.done if video.failure is not None)


@dataclass(frozen=True)
class Host:
    """What units at work in one process share: turns at the device, the watchdog, the order to stop, and the meter."""

    lanes: Lanes = field(default_factory=lambda: Lanes(1))
    watchdog: Watchdog | None = None
    stop: Event = field(default_factory=Event)
    meter: Meter = field(default_factory=Meter)


def process_work_unit(
    unit: WorkUnit,
    generator: Generator,
    job: Job,
    storage: Storage,
    *,
    prompts: Mapping[str, Sequence[Prompt]] | None = None,
    notify: Notify = lambda video_id, done, total: None,
    host: Host | None = None,
) -> UnitResult:
    """Process every video of ``unit`` and commit the result; of two workers on one unit the first commit stands.

    ``prompts`` maps video ids to their prompts; None means automatic masklets. A video that fails gives a failed row. What
    is raised (`StorageError`, a full disk, a broken GPU) is the machine's fault: nothing is committed, and the unit may be
    tried again. A worker that is to stop (`Cancelled`, KeyboardInterrupt) commits the videos it has before it says so; what is
    left then, `io.commits.uncommitted` tells.
    """
    host = host or Host(Lanes(job.config.tracking.lanes))
    attempt = begin_attempt(storage, unit.unit_id)
    worker = VideoWorker(unit.unit_id, generator, job, prompts, attempt.deaths, notify, host.lanes.device, host.meter, host.stop)

    def process(video: VideoRef) -> VideoResult:
        suspect = video.video_id in attempt.deaths
        with (
            host.lanes.enter(alone=suspect),
            attempt.working_on(video.video_id),
            leash(host.watchdog, video.video_id, attempt) as life,
        ):
            return worker.process(video, life)

    done: list[Done] = []
    stopped: BaseException | None = None
    try:
        with UnitWriter(storage, unit.unit_id, attempt.attempt_id, job.metadata) as writer:
            try:
                with closing(in_lanes(process, unit.videos, job.config.tracking.lanes, cancel=worker.cancelled.set)) as results:
                    for result in results:
                        with closing(result.spool):
                            writer.add_video(result.row, result.spool, result.seeds)
                        done.append(result.done)
            except (Cancelled, KeyboardInterrupt) as order:
                if not done:
                    raise
                stopped = order
            with host.meter.stage("write"):
                parts = writer.finish()
                video_ids, num_failures = tuple(video.video_id for video in done), sum(v.failure is not None for v in done)
                commit = Commit(unit.unit_id, attempt.attempt_id, parts, video_ids, len(done), num_failures)
                won = commit_unit(storage, commit)
        for video in done if won else ():
            host.meter.committed(video.masklets, video.failure.error_type if video.failure else None)
        if stopped is not None:
            raise stopped
    except BaseException:
        attempt.withdraw()
        raise
    return UnitResult(commit, tuple(done))
