"""What was annotated, as one file to take away."""

import json
import tempfile
from typing import Literal

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.coco import CocoWriter
from sam2_pipeline.formats.sav import SavWriter
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.prompt_parts import prompt_row
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.pipeline.runfile import RUN_FILE
from sam2_pipeline.serve.annotator import Annotator

ExportFormat = Literal["prompts", "sav", "coco"]


def export_video(annotator: Annotator, video_id: str, format: ExportFormat) -> bytes:
    """The prompts as they are now, as `sam2-pipeline run --prompts` takes them, or the masklets as they were saved.

    Raises:
        ConfigError: masklets that were never saved.
    """
    prompts = annotator.prompts(video_id)
    if format == "prompts":
        rows = [prompt_row(video_id, prompt) for prompt in prompts]
        return "".join(f"{json.dumps(_lean(row))}\n" for row in rows).encode()
    output = annotator.output
    if not output.exists(RUN_FILE) or video_id not in (dataset := MaskletDataset(output.url, output.options)).video_ids:
        raise ConfigError("nothing of this video is saved yet: save its masklets first")
    with tempfile.TemporaryDirectory(prefix="sam2-export-") as folder:
        place = Storage(folder)
        writer = SavWriter(place) if format == "sav" else CocoWriter(place)
        writer.add(dataset.video(video_id))
        writer.finish()
        [name] = [name for name, _ in place.list(recursive=True)]
        return place.read_bytes(name)


def _lean(row: dict) -> dict:
    """Without what is not given."""
    return {name: value for name, value in row.items() if value not in (None, [])}
