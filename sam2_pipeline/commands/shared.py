"""What several verbs do alike."""

import argparse
from typing import Any

from sam2_pipeline.config import JobConfig, parse_storage_option
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.settings import put

SHOWN_FAILURES = 20


def reporter(options: argparse.Namespace) -> Reporter:
    if getattr(options, "json_logs", False):
        return Reporter("json")
    return Reporter("quiet" if getattr(options, "quiet", False) else "auto")


def model_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the options about the model say of the configuration."""
    return {
        "model.name": options.model,
        "model.checkpoint": options.checkpoint,
        "model.image_size": options.image_size,
        "model.device": options.device,
        "model.dtype": options.dtype,
    }


def open_storage(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from sam2_pipeline.io.storage import Storage

    given = JobConfig(storage_options=storage_options(options)).storage_options_for(options.output)
    return Storage(options.output, given), given


def storage_options(options: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in options.storage_option:
        put(values, *parse_storage_option(text))
    return values


def list_failures(failures: Any) -> None:
    for failure in failures[:SHOWN_FAILURES]:
        print(f"  failed: {failure.video_id}: {failure.error_type}: {failure.error_message}")
    if len(failures) > SHOWN_FAILURES:
        print(f"  ... and {len(failures) - SHOWN_FAILURES} more; see the videos table")


def format_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"
