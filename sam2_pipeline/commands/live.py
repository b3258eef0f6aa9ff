"""What `live` does."""

import argparse

from sam2_pipeline.commands.shared import model_settings
from sam2_pipeline.config import JobConfig

INTERRUPTED = 130
VIEW_PORT = 8766


def live(options: argparse.Namespace) -> int:
    from sam2_pipeline.live.command import run

    try:
        run(options, JobConfig.load(None, options.set, model_settings(options)))
    except KeyboardInterrupt:  # the usual end of a stream that has none; there is nothing to resume
        return INTERRUPTED
    return 0


def point(text: str) -> tuple[str, tuple[float, ...]]:
    """``x,y`` of ``--point``."""
    return "point", _numbers(text, "x,y")


def box(text: str) -> tuple[str, tuple[float, ...]]:
    """``x0,y0,x1,y1`` of ``--box``."""
    return "box", _numbers(text, "x0,y0,x1,y1")


def _numbers(text: str, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(form.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not {form} in pixels")
    return numbers
