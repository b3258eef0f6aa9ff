"""`run_job`: a whole run, from the input's listing to the summary. Run again, it resumes."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import PipelineError, StorageError
from sam2_pipeline.io.commits import list_commits, sweep_orphans
from sam2_pipeline.pipeline import interrupt
from sam2_pipeline.pipeline.actor import Outcome, Task, UnitWorker
from sam2_pipeline.pipeline.attempts import forget_attempts, forgive_last_attempts
from sam2_pipeline.pipeline.cluster import Cluster
from sam2_pipeline.pipeline.factory import GeneratorFactory
from sam2_pipeline.pipeline.metrics import Meter, RayMeter
from sam2_pipeline.pipeline.prepare import Prepared, count, freeze, prepare
from sam2_pipeline.pipeline.progress import Reporter, Snapshot, Tracker
from sam2_pipeline.pipeline.summary import Summary, summarise, write_progress, write_summary
from sam2_pipeline.pipeline.telling import Teller

Engine = Callable[[Sequence[Task]], Iterator[Outcome]]


class RunError(PipelineError):
    """The run ended before its work was done. What is committed stays; running it again resumes."""


def run_job(
    config: JobConfig,
    *,
    factory: GeneratorFactory | None = None,
    reporter: Reporter | None = None,
    retry_failed: bool = False,
) -> Summary:
    """Masklets for every video under ``config.input``, into tables under ``config.output``.

    Committed work is not done again. Nothing is written before every check has passed. ``factory`` makes the workers'
    generators (default: the model that the configuration names); ``retry_failed`` takes failed videos up again.

    Raises:
        ConfigError, CheckpointError: something is wrong with what was asked; nothing was written.
        StorageError, RunError: the run could not go on; run it again to resume.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    prepared = prepare(config, factory, reporter, retry_failed)
    if not prepared.tasks:
        freeze(prepared)
        return _finish(prepared, 0, time.monotonic() - started)
    teller = Teller(reporter, prepared.storage, prepared.tasks)
    try:
        frames = _work(prepared, teller, reporter)
    finally:
        with suppress(StorageError):  # what ended the run has been said, and is the more important
            teller.rest()
    return _finish(prepared, frames, time.monotonic() - started)


def _work(prepared: Prepared, teller: Teller, reporter: Reporter) -> int:
    """Run the tasks on the engine that the configuration asks for; the number of frames done."""
    tracker = Tracker(prepared.tasks, done=prepared.done, failed=prepared.failed)
    storage, job, factory = prepared.storage, prepared.job, prepared.factory

    def beat(snapshot: Snapshot, meter: Meter | None = None) -> None:
        if meter:
            meter.set("sam2_videos_left", snapshot.total - snapshot.done)
        with suppress(StorageError):  # only `status` reads it; real trouble shows when a unit is committed
            write_progress(storage, snapshot)

    if job.config.ray.address == "off":
        freeze(prepared)
        worker = UnitWorker(factory, job, notify=tracker.frame)
        with reporter.watching(tracker, lambda: None, beat):
            _run_passes(prepared, lambda tasks: map(worker.work, tasks), tracker, teller, reporter)
    else:
        with Cluster(job.config) as cluster:
            meter = RayMeter(job.config.output)
            pool = cluster.pool()
            freeze(prepared)
            forgive_last_attempts(storage, (task.unit.unit_id for task in prepared.tasks))
            placed = factory.on(pool.device)
            reporter.say("workers", f"{count(pool.workers, 'worker')} on {pool.device}, {count(pool.threads, 'CPU thread')} each")
            with reporter.watching(tracker, lambda: tracker.look(*cluster.progress()), lambda snapshot: beat(snapshot, meter)):
                _run_passes(prepared, lambda tasks: cluster.run(tasks, placed, job, pool), tracker, teller, reporter)
            beat(tracker.snapshot(), meter)
    snapshot = tracker.snapshot()
    beat(snapshot)
    return snapshot.frames


def _run_passes(prepared: Prepared, engine: Engine, tracker: Tracker, teller: Teller, reporter: Reporter) -> None:
    """Give every task to the engine, and what came back undone once more, up to ``limits.max_attempts`` times."""
    left = {task.unit.unit_id: task for task in prepared.tasks}
    errors: dict[str, str] = {}
    for _ in range(prepared.job.config.limits.max_attempts):
        for outcome in engine(list(left.values())):
            interrupt.check()
            if outcome.error is None:
                left.pop(outcome.unit_id, None)
                tracker.add(outcome)
                teller.unit(outcome)
            else:
                errors[outcome.unit_id] = outcome.error
                reporter.say("unit_error", f"unit {outcome.unit_id}: {outcome.error}", unit_id=outcome.unit_id, important=True)
                if outcome.hopeless:
                    raise RunError(outcome.error)
        if not left:
            return
    _check_complete(prepared, errors)


def _check_complete(prepared: Prepared, errors: dict[str, str]) -> None:
    """Compare the plan with the commits: Ray drops, without a word, units that it could not deliver."""
    done = {video_id for commit in list_commits(prepared.storage) for video_id in commit.video_ids}
    missing = [task.unit.unit_id for task in prepared.tasks if not done.issuperset(v.video_id for v in task.unit.videos)]
    if missing:
        first = next((unit_id for unit_id in missing if unit_id in errors), missing[0])
        reason = errors.get(first, "no worker returned it")
        raise RunError(f"{len(missing)} of {len(prepared.tasks)} units are not committed; unit {first}: {reason}")


def _finish(prepared: Prepared, frames: int, wall_s: float) -> Summary:
    """Reconcile, clear away what no commit names, and record how it went."""
    _check_complete(prepared, {})
    sweep_orphans(prepared.storage)
    forget_attempts(prepared.storage)
    config = prepared.job.config
    summary = summarise(prepared.storage, config.storage_options_for(config.output), prepared.job.config_hash)
    summary = dataclasses.replace(summary, frames_this_run=frames, wall_s_this_run=wall_s)
    if prepared.tasks or not prepared.storage.exists("_run/summary.json"):
        write_summary(prepared.storage, summary)
    return summary
