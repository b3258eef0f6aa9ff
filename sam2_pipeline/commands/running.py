"""What the verbs about runs do (`run`, `demo`, `plan`, `status`, `retry`, `verify`, `compact`); `models`, `doctor`, `bench`."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from sam2_pipeline.commands.shared import format_bytes, list_failures, model_settings, open_storage, reporter, storage_options
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.pipeline.progress import format_duration, format_eta, format_speed


def run(options: argparse.Namespace) -> int:
    return _run(job_config(options), options)


def demo(options: argparse.Namespace) -> int:
    from sam2_pipeline import demo
    from sam2_pipeline.evaluation.show import show

    engine = {"ray.address": options.ray, "ray.workers": options.workers}
    prepared = demo.prepare(options.directory, options.model, options.checkpoint, engine)
    status = _run(prepared.config, options)
    scores = demo.score(prepared)
    pictures = demo.draw(prepared, scores)
    if options.json_logs:
        figures: dict[str, Any] = {"J&F": scores.jf, "recall": scores.recall(0.75), "spurious": scores.spurious_per_object}
        figures |= {name: str(path) for name, path in asdict(pictures).items()}
        reporter(options).say("scores", "compared with the truth", **figures)
    elif not options.quiet:
        print(f"\n{demo.show(prepared.config.output)}\n\nagainst the true masks, in percent:")
        show(scores)
        print(f"\nmasklets beside the truth: {pictures.video} and {pictures.sheet}\nreport: {pictures.report}")
    return status


def plan(options: argparse.Namespace) -> int:
    from sam2_pipeline.pipeline.estimate import estimate

    config, price, unknown = job_config(options), options.gpu_hour_price, "no video could be timed within a few minutes"
    if options.probe < 0 or (price is not None and (price < 0 or not options.probe)):
        raise ConfigError("--probe and --gpu-hour-price: expected 0 or more, and for a price one video at least to be timed")
    try:
        found = estimate(config, options.probe)
    except CheckpointError as error:
        if price is not None:
            raise
        found, unknown = estimate(config), str(error)
    cost = None if price is None or found.worker_hours is None else found.worker_hours * price
    if options.json:
        print(json.dumps(asdict(found) | {"cost": cost}))
        return 0
    sampled = "" if found.probed == found.videos else f" (from {found.probed} probed)"
    print(f"videos  {found.videos} ({found.to_do} to do, {found.done} done before)")
    print(f"hours   {found.hours:.2f}{sampled}")
    print(f"bytes   {format_bytes(found.size_bytes)}")
    print(f"units   {found.units} to do")
    if found.worker_hours is not None:
        kind = "gpu" if str(found.device).startswith("cuda") else "cpu"
        print(f"{kind}-hours  {found.worker_hours:.2f} of one worker on {found.device} ({found.timed} videos timed)")
    elif options.probe and found.to_do:
        print(f"gpu-hours  not known: {unknown}")
    if cost is not None:
        print(f"cost    {cost:.2f}")
    if found.unreadable:
        print(f"of the {found.probed} probed, {found.unreadable} cannot be read")
    return 0


def status(options: argparse.Namespace) -> int:
    from sam2_pipeline.pipeline.runfile import require_run
    from sam2_pipeline.pipeline.summary import read_status

    storage, given = open_storage(options)
    require_run(storage)
    found = read_status(storage, given)
    if options.json:
        print(json.dumps(asdict(found)))
        return 0
    state = "running" if found.running else "finished" if not found.left else "not running; run it again to resume"
    print(f"{found.done}/{found.videos} videos done, {found.left} left, {found.failed} failed ({state})")
    if found.frames_per_s is not None:
        print(f"{format_speed(found.frames_per_s)}, {format_eta(found.eta_s)}")
    list_failures(found.failures)
    return 0


def retry(options: argparse.Namespace) -> int:
    from sam2_pipeline.pipeline.runfile import config_of, require_run

    storage, _ = open_storage(options)
    given = {
        "output": options.output,
        "model.checkpoint": options.checkpoint,
        "model.device": options.device,
        "prompts.file": options.prompts,
        "ray.address": options.ray,
        "ray.workers": options.workers,
    }
    config = config_of(require_run(storage), given, storage_options(options))
    return _run(config, options, retry_failed=True)


def verify(options: argparse.Namespace) -> int:
    from sam2_pipeline.io.verify import verify_output
    from sam2_pipeline.pipeline.runfile import require_run

    storage, _ = open_storage(options)
    require_run(storage)
    problems = verify_output(storage)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{storage.url}: {errors} errors, {len(problems) - errors} warnings")
    return 1 if errors else 0


def compact(options: argparse.Namespace) -> int:
    from sam2_pipeline.evaluation.show import progress
    from sam2_pipeline.io.compact import compact
    from sam2_pipeline.pipeline.runfile import require_run
    from sam2_pipeline.pipeline.summary import read_status

    if options.target_mb < 1 or options.grace < 0:
        raise ConfigError(f"--target-mb {options.target_mb} --grace {options.grace}: expected at least 1 and 0")
    storage, given = open_storage(options)
    require_run(storage)
    if read_status(storage, given).running:
        raise ConfigError(f"{storage.url}: a run is at work there, or was within the last minute; compact when it has ended")
    with progress(options.quiet) as on_merge:
        done = compact(storage, target_bytes=options.target_mb << 20, grace_s=options.grace, on_merge=on_merge)
    if not options.quiet:
        size = f"{format_bytes(done.bytes_written)} written, {done.files_removed} files removed"
        print(f"{storage.url}: {done.commits_before} commits became {done.commits_after}; {size}")
    return 0


def models(options: argparse.Namespace) -> int:
    from sam2_pipeline.model.config import EMBEDDED, MODELS

    for name, config in MODELS.items():
        blocks, size = sum(config.trunk.stage_depths), f"{config.image_size} x {config.image_size} pixels"
        note = f", in jobs {config.offline_size}" if config.offline_size else ""
        note += "  (the default; its weights come with the package)" if config is EMBEDDED else ""
        print(f"{name:22} SAM {config.version}  {blocks:2} trunk blocks  {size}{note}")
    print("other spellings work too, such as facebook/sam2.1-hiera-tiny")
    return 0


def doctor(options: argparse.Namespace) -> int:
    from sam2_pipeline.doctor import examine

    checks = examine(options.output, storage_options(options))
    if options.json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            print(f"{check.verdict:4}  {check.subject:18}  {check.finding}")
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def bench(options: argparse.Namespace) -> int:
    from sam2_pipeline.bench.cli import main

    return main(options.arguments)


def job_config(options: argparse.Namespace) -> JobConfig:
    """The configuration that the options of `run` and `plan` describe."""
    given = model_settings(options) | {
        "input": options.input,
        "output": options.output,
        "prompts.file": options.prompts,
        "annotate.fps": options.fps,
        "max_videos": options.max_videos,
        "ray.address": getattr(options, "ray", None),
        "ray.workers": getattr(options, "workers", None),
    }
    return JobConfig.load(options.config, options.set, given, storage_options(options))


def _run(config: JobConfig, options: argparse.Namespace, *, retry_failed: bool = False) -> int:
    from sam2_pipeline.pipeline.driver import run_job

    summary = run_job(config, reporter=reporter(options), retry_failed=retry_failed)
    if options.json_logs:
        reporter(options).say("end", "the run has ended", **asdict(summary))
        return summary.exit_code
    if not options.quiet:
        frames = f" on {summary.annotated_frames} frames"
        print(f"{summary.videos} videos: {summary.ok} ok, {summary.failed} failed; {summary.masklets} masklets{frames}")
        print(f"tables: videos, masklets and masks in {config.output}  ({format_duration(summary.wall_s_this_run)})")
        if summary.ok and not summary.masklets and config.prompts.file is None:
            print(_why_empty(config))
        list_failures(summary.failures)
    return summary.exit_code


def _why_empty(config: JobConfig) -> str:
    """What to do about automatic masklets of which there are none."""
    from sam2_pipeline.model.config import EMBEDDED

    found = "no masklets: no mask passed the filters (generate.pred_iou_thresh, generate.stability_score_thresh, ...)"
    if config.model.name in (None, EMBEDDED.name) and config.model.checkpoint is None:
        return f"{found}. The embedded model finds little in real videos; Meta's find more (--model sam2.1_hiera_tiny)"
    return found
