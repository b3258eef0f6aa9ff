"""One unit of work, from videos to one commit. Nothing here knows of Ray."""

import collections.abc
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import Commit, VideoRef, WorkUnit
from sam2_pipeline.pipeline.attempts import begin_attempt
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.video import Failure, Generator, Notify, VideoResult, VideoWorker

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    worker = VideoWorker(unit.unit_id, generator, job, prompts, attempt.deaths, notify)

    def process(video: VideoRef) -> VideoResult:
        with attempt.working_on(video.video_id):
            return worker.process(video)

    failures = []
    lanes = job.config.tracking.lanes
    try:
        with UnitWriter(storage, unit.unit_id, attempt.attempt_id, job.metadata) as writer:
            with closing(in_lanes(process, unit.videos, lanes, cancel=worker.cancelled.set)) as results:
                for result in results:
                    with closing(result.spool):
                        writer.add_video(result.row, result.spool, result.seeds)
                    failures += [result.failure] if result.failure else []
            parts = writer.finish()
        ids = tuple(video.video_id for video in unit.videos)
        commit = Commit(unit.unit_id, attempt.attempt_id, parts, ids, len(ids), len(failures))
        commit_unit(storage, commit)
    except BaseException:
        attempt.withdraw()
        raise
    return UnitResult(commit, tuple(failures))


def in_lanes(
    function: Callable[[Item], Result], items: Iterable[Item], lanes: int, *, cancel: Callable[[], None]
) -> collections.abc.Generator[Result, None, None]:
    """``function`` of every item, in their order, up to ``lanes`` at work at once; one lane needs no thread.

    When a result is an exception, or the caller stops taking results, ``cancel`` is called and what is at work awaited.
    """
    if lanes == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    pending: deque[Future[Result]] = deque()
    complete = False
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == lanes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        complete = True
    finally:
        if not complete:
            cancel()
        pool.shutdown(wait=True, cancel_futures=True)
