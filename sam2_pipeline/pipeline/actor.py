"""The worker: holds the model, and turns tasks into outcomes. Ray Data hosts it in an actor; ``--ray off`` calls it directly."""

import errno
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam2_pipeline.errors import CheckpointError, PipelineError
from sam2_pipeline.io.commits import uncommitted
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import WorkUnit
from sam2_pipeline.pipeline.factory import GeneratorFactory
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.lanes import Lanes
from sam2_pipeline.pipeline.metrics import Meter
from sam2_pipeline.pipeline.video import Done, Failure, Notify
from sam2_pipeline.pipeline.watchdog import Watchdog
from sam2_pipeline.pipeline.work import Host, process_work_unit

# trying again does not help: full, read-only, forbidden
HOPELESS_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Task:
    """A unit and the prompts of its videos (by video id; None: automatic masklets)."""

    unit: WorkUnit
    prompts: Mapping[str, Sequence[Prompt]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try at one unit: committed, or an ``error`` (``hopeless``: the run had better stop).

    ``done`` are the videos that this try did; others of the unit may have been committed before.
    """

    unit_id: str
    num_videos: int = 0
    failures: tuple[Failure, ...] = ()
    error: str | None = None
    hopeless: bool = False
    done: tuple[Done, ...] = ()


class UnitWorker:
    """Builds the generator once, then processes tasks; never raises for what can be reported as an outcome."""

    def __init__(
        self,
        factory: GeneratorFactory,
        job: Job,
        *,
        threads: int | None = None,
        notify: Notify | None = None,
        watched: bool = False,
        meter: Meter | None = None,
    ) -> None:
        """``watched``: this process is killed when a video hangs (see `watchdog`), and somebody will start another."""
        self._job = job
        self._notify = notify or (lambda video_id, done, total: None)
        self._storage = Storage(job.config.output, job.config.storage_options_for(job.config.output))
        watchdog = Watchdog(self._storage) if watched else None
        self._host = Host(Lanes(job.config.tracking.lanes), watchdog, meter=meter or Meter())
        self._generator = None
        self._broken: str | None = None
        try:
            # an exception here would make Ray start this actor again and again
            self._generator, facts = factory.build(threads)
            self._job = job.on(facts)
        except Exception as error:
            self._broken = f"the worker could not load the model: {describe_error(error)}"

    def stop(self) -> None:
        """Make units under way end soon: they commit the videos they have, and `work` raises `Cancelled`."""
        self._host.stop.set()

    def work(self, task: Task) -> Outcome:
        """Process and commit one unit, or what others have left of it. Several threads may call it."""
        unit_id = task.unit.unit_id
        if self._broken or self._generator is None:
            return Outcome(unit_id, error=self._broken, hopeless=True)
        done: tuple[Done, ...] = ()
        try:
            while left := uncommitted(self._storage, task.unit):
                result = process_work_unit(
                    left, self._generator, self._job, self._storage, prompts=task.prompts, notify=self._notify, host=self._host
                )
                done += result.done
        except Exception as error:
            return Outcome(unit_id, error=describe_error(error), hopeless=_is_hopeless(error))
        failures = tuple(video.failure for video in done if video.failure is not None)
        return Outcome(unit_id, len(task.unit.videos), failures, done=done)


def describe_error(error: BaseException) -> str:
    """One line for errors raised on purpose; the traceback's end too for all others, which nobody foresaw."""
    if isinstance(error, PipelineError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" (at {where[0].filename}:{where[0].lineno})" if where else ""
    return f"{type(error).__name__}: {error}{at}"


def _is_hopeless(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, CheckpointError) or (isinstance(error, OSError) and error.errno in HOPELESS_ERRNOS):
            return True
        error = error.__cause__
    return False
