"""What each verb of the command line does: from parsed options to a call, and from its result to text and exit status."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sam2_pipeline.config import JobConfig, parse_storage_option
from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.pipeline.progress import Reporter, format_duration
from sam2_pipeline.settings import put

SHOWN_FAILURES = 20


def reporter(options: argparse.Namespace) -> Reporter:
    if getattr(options, "json_logs", False):
        return Reporter("json")
    return Reporter("quiet" if getattr(options, "quiet", False) else "auto")


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

    found = estimate(job_config(options))
    if options.json:
        print(json.dumps(asdict(found)))
        return 0
    sampled = "" if found.probed == found.videos else f" (from {found.probed} probed)"
    print(f"videos  {found.videos} ({found.to_do} to do, {found.done} done before)")
    print(f"hours   {found.hours:.2f}{sampled}")
    print(f"bytes   {format_bytes(found.size_bytes)}")
    print(f"units   {found.units} to do")
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
        eta = "not known yet" if found.eta_s is None else format_duration(found.eta_s)
        print(f"{found.frames_per_s:.1f} frames/s, ETA {eta}")
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


def evaluate(options: argparse.Namespace) -> int:
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise ConfigError(f"--json {options.json}: its folder does not exist")
    found = _evaluate_model(options) if options.protocol else _evaluate_masks(options)
    if options.json:
        _write_json(options.json, found.to_json())
    for failure in found.failures[:SHOWN_FAILURES]:
        reporter(options).say("failed", f"not scored: {failure.video_id}: {failure.reason}", important=True)
    if len(found.failures) > SHOWN_FAILURES:
        reporter(options).say("failed", f"... and {len(found.failures) - SHOWN_FAILURES} more; see --json", important=True)
    return 3 if found.failures else 0


def _evaluate_model(options: argparse.Namespace) -> Any:
    from sam2_pipeline.protocols.command import evaluate_model

    if options.match or options.common:
        raise ConfigError("--match and --common are for PREDICTIONS, expected neither with --protocol")
    if options.ground_truth is not None:
        raise ConfigError(f"--protocol makes its own predictions, expected GROUND_TRUTH alone, not {options.ground_truth}, too")
    return evaluate_model(options, storage_options(options))


def _evaluate_masks(options: argparse.Namespace) -> Any:
    from sam2_pipeline.evaluation import show
    from sam2_pipeline.evaluation.evaluate import evaluate
    from sam2_pipeline.formats.sources import open_masks

    if options.model or options.checkpoint:
        raise ConfigError("--model and --checkpoint are for --protocol; masks are compared without a model")
    if options.ground_truth is None:
        raise ConfigError("expected PREDICTIONS and GROUND_TRUTH, or GROUND_TRUTH and --protocol NAME to prompt a model")
    config = JobConfig(storage_options=storage_options(options))
    predictions = open_masks(options.predictions, config.storage_options_for(options.predictions))
    truth = open_masks(options.ground_truth, config.storage_options_for(options.ground_truth), sav=options.sav)
    with show.progress(options.quiet) as on_video:
        found = evaluate(
            predictions,
            truth,
            match=options.match,
            keep_first_and_last=options.keep_first_and_last,
            common=options.common,
            workers=options.workers,
            on_video=on_video,
        )
    if not options.quiet:
        show.show(found)
    return found


def train(options: argparse.Namespace) -> int:
    from sam2_pipeline.training.settings import TrainConfig
    from sam2_pipeline.training.show import reporting
    from sam2_pipeline.training.trainer import train

    output = [] if options.output is None else [f"run.output={json.dumps(options.output)}"]
    config = TrainConfig.load(options.config, [*options.set, *output])
    with reporting(options.quiet) as report:
        weights = train(config, report)
    if not options.quiet:
        print(f"weights: {weights}")
    return 0


def models(options: argparse.Namespace) -> int:
    from sam2_pipeline.model.config import EMBEDDED, MODELS

    for name, config in MODELS.items():
        blocks, size = sum(config.trunk.stage_depths), f"{config.image_size} x {config.image_size} pixels"
        note = "  (the default; its weights come with the package)" if config is EMBEDDED else ""
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
    given = {
        "input": options.input,
        "output": options.output,
        "model.name": options.model,
        "model.checkpoint": options.checkpoint,
        "model.image_size": options.image_size,
        "model.device": options.device,
        "model.dtype": options.dtype,
        "prompts.file": options.prompts,
        "annotate.fps": options.fps,
        "max_videos": options.max_videos,
        "ray.address": getattr(options, "ray", None),
        "ray.workers": getattr(options, "workers", None),
    }
    return JobConfig.load(options.config, options.set, given, storage_options(options))


def format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


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
        list_failures(summary.failures)
    return summary.exit_code


def list_failures(failures: Any) -> None:
    for failure in failures[:SHOWN_FAILURES]:
        print(f"  failed: {failure.video_id}: {failure.error_type}: {failure.error_message}")
    if len(failures) > SHOWN_FAILURES:
        print(f"  ... and {len(failures) - SHOWN_FAILURES} more; see the videos table")


def _write_json(path: str, content: dict[str, Any]) -> None:
    try:
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error


def open_storage(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from sam2_pipeline.io.storage import Storage

    given = JobConfig(storage_options=storage_options(options)).storage_options_for(options.output)
    return Storage(options.output, given), given


def storage_options(options: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in options.storage_option:
        put(values, *parse_storage_option(text))
    return values
