"""A training run as its user sees it: a bar on a terminal, else a line for every line of the log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sam2_pipeline.model.config import EMBEDDED
from sam2_pipeline.training.saving import CHECKPOINT
from sam2_pipeline.training.settings import PRETRAINED, TrainConfig
from sam2_pipeline.training.trainer import Progress as Step

_LARGE = 1e-4  # a rate at which AdamW's steps are no fine-tuning of the official models


def announce(config: TrainConfig) -> None:
    """What is going to be trained: a run from random weights that was meant to be from others shows it here, not days later."""
    model, data = config.model, config.data
    saved = Path(config.run.output).expanduser() / CHECKPOINT
    origin = {PRETRAINED: "its pretrained weights", None: "random weights"}.get(model.checkpoint, model.checkpoint)
    begins = f"continued from {saved}" if saved.exists() else f"from {origin}"
    frozen = f", {', '.join(model.freeze)} frozen" if model.freeze else ""
    source = "synthetic scenes" if data.root is None else f"{data.kind} in {data.root}"
    print(f"{model.name} {begins}{frozen}, on {source}", file=sys.stderr, flush=True)
    if model.checkpoint == PRETRAINED and model.name != EMBEDDED.name and config.optim.lr > _LARGE:
        print(
            f"optim.lr is {config.optim.lr}: Meta fine-tuned these weights with 5e-6, and steps so large soon undo them",
            file=sys.stderr,
        )


@contextmanager
def reporting(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Something for `train` to report to."""
    console = Console(stderr=True)
    if quiet:
        yield lambda step: None
    elif console.is_terminal:
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=None)

            def advance(step: Step) -> None:
                bar.update(task, completed=step.step, total=step.steps)
                if step.values:
                    bar.update(task, description=_said(step.values))

            yield advance
    else:
        yield _print_line


def _print_line(step: Step) -> None:
    if step.values:
        print(f"{step.step}/{step.steps} steps, {_said(step.values)}", file=sys.stderr, flush=True)


def _said(values: dict[str, float]) -> str:
    return f"loss {values['total']:.3f}, mean IoU {values['overlap']:.3f}, {values['skipped']:.0f} clips skipped"
