"""Everything that is checked before a run may write, and what it then writes first."""

from dataclasses import dataclass
from functools import partial

from sam2_pipeline import __version__
from sam2_pipeline.config import JobConfig, is_remote
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.compact import settle
from sam2_pipeline.io.manifest import plan_work, read_manifest, write_manifest
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.urls import secret_in
from sam2_pipeline.masklets.work import WorkUnit
from sam2_pipeline.pipeline.actor import Task
from sam2_pipeline.pipeline.cluster import check_address
from sam2_pipeline.pipeline.factory import GeneratorFactory, KeptFactory, ModelFactory
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.probing import predict_frames
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.pipeline.prompts import load_prompts
from sam2_pipeline.pipeline.retry import forget_failures
from sam2_pipeline.pipeline.runfile import check_content, check_output, read_run, write_run
from sam2_pipeline.pipeline.summary import read_failures


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that passed every check: the job, where it writes, and the tasks left to do.

    ``done`` and ``failed`` count the videos that earlier runs have committed and this one lets be.
    """

    job: Job
    storage: Storage
    factory: GeneratorFactory
    tasks: list[Task]
    new_units: tuple[WorkUnit, ...]
    prompts_sha256: str | None
    done: int
    failed: int
    retry_failed: bool


def prepare(config: JobConfig, factory: GeneratorFactory | None, reporter: Reporter, retry_failed: bool = False) -> Prepared:
    """Check everything that can be checked without writing, and plan.

    Raises:
        ConfigError, CheckpointError: something is wrong with what was asked.
        StorageError: the output cannot be read.
    """
    config = config.anchored()
    _check_engine(config)
    factory = factory or ModelFactory(config)
    storage = Storage(config.output, config.storage_options_for(config.output))
    run = read_run(storage)
    check_output(storage, run, config)
    videos = list(list_videos(config.input, config.storage_options_for(config.input), config.max_videos, config.sources.schemes))
    prompts = load_prompts(config, videos)
    for problem in prompts.skipped if prompts else ():
        reporter.say("prompt_skipped", f"prompt left out: {problem}", important=True)
    if config.ray.address == "off":
        factory = KeptFactory(factory)
    facts = factory.describe()
    sha256 = prompts.sha256 if prompts else None
    config_hash = facts.config_hash(config, sha256)
    job = Job(config, config_hash, __version__, facts)
    check_content(storage, run, job, sha256)

    done = {video_id for commit in list_commits(storage) for video_id in commit.video_ids}
    failed = {failure.video_id for failure in read_failures(storage, storage.options)} if run else set()
    if retry_failed:
        done -= failed
    plan = plan_work(
        videos,
        planned=read_manifest(storage),
        done=done,
        videos_per_unit=config.videos_per_unit,
        predict=list if config.ray.address == "off" else partial(predict_frames, config),  # one worker needs no balance
    )
    by_video = prompts.by_video if prompts else None
    tasks = [
        Task(unit, None if by_video is None else {v.video_id: by_video.get(v.video_id, ()) for v in unit.videos})
        for unit in plan.units
    ]
    reporter.say(
        "start",
        f"{count(len(videos), 'video')} under {config.input}: {plan.num_videos} to do in {count(len(tasks), 'unit')}, "
        f"{len(videos) - plan.num_videos} done before; {facts.name} ({facts.weights_sha256[:12]})",
        videos=len(videos),
        to_do=plan.num_videos,
        units=len(tasks),
        config_hash=config_hash,
    )
    return Prepared(job, storage, factory, tasks, plan.added, sha256, len(done), len(failed & done), retry_failed)


def freeze(prepared: Prepared) -> None:
    """Record the run and its plan: the first that is written."""
    storage = prepared.storage
    if is_remote(prepared.job.config.output):
        storage.check_exclusive()
    write_run(storage, prepared.job, prepared.prompts_sha256)
    settle(storage)  # what an interrupted `compact` has left
    if prepared.retry_failed:
        forget_failures(storage)
    write_manifest(storage, prepared.new_units)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _check_engine(config: JobConfig) -> None:
    in_process = config.ray.address == "off"
    if not config.input or not config.output:
        raise ConfigError("a run needs an INPUT and an OUTPUT")
    check_secrets(config)
    if in_process and (config.ray.workers or 1) > 1:
        raise ConfigError(f"ray.workers is {config.ray.workers}, but without Ray there is one; use --ray local")
    if not in_process and "memory://" in f"{config.input} {config.output}":
        raise ConfigError("memory:// exists in one process only; use --ray off")
    if not in_process:
        check_address(config)


def check_secrets(config: JobConfig) -> None:
    """Refuse URLs that hold credentials, since settings are recorded; the message does not repeat them."""
    places = {"INPUT": config.input, "OUTPUT": config.output}
    places |= {"prompts.file": config.prompts.file or "", "model.checkpoint": config.model.checkpoint or ""}
    for name, url in places.items():
        if reason := secret_in(url):
            raise ConfigError(f"{name}: {reason}")
