"""What the verbs about models do: `evaluate` and `train`."""

import argparse
import json
from pathlib import Path
from typing import Any

from sam2_pipeline.commands.shared import SHOWN_FAILURES, model_settings, reporter, storage_options
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, StorageError


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
    config = JobConfig.load(None, options.set, model_settings(options), storage_options(options)).anchored()
    return evaluate_model(options, config)


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
    from sam2_pipeline.training.show import announce, reporting
    from sam2_pipeline.training.trainer import train

    output = [] if options.output is None else [f"run.output={json.dumps(options.output)}"]
    config = TrainConfig.load(options.config, [*options.set, *output])
    if not options.quiet:
        announce(config)
    with reporting(options.quiet) as report:
        weights = train(config, report)
    if not options.quiet:
        print(f"weights: {weights}")
    return 0


def _write_json(path: str, content: dict[str, Any]) -> None:
    try:
        Path(path).write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error
