"""`demo`: a few synthetic clips and their ground truth, through the whole pipeline on local Ray, into tables that are shown.

The model is untrained unless weights are named, so the masks mean nothing: the demo shows the machinery at work.
"""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from sam2_pipeline.config import JobConfig
from sam2_pipeline.training.synthetic_files import make_dataset
from sam2_pipeline.training.synthetic_options import SceneOptions

CLIPS = 3
SCENES = SceneOptions(size=(192, 256), frames=24, fps=24, objects=(3, 4))
ANNOTATE_EVERY = 4  # frames of the ground truth; the settings' rate
# Settings under which an untrained model gives masklets, and a laptop an answer within a minute or two.
SETTINGS = {
    "model.image_size": 128,
    "generate.points_per_side": 4,
    "generate.crop_grids": [],
    "generate.pred_iou_thresh": 0.0,
    "generate.stability_score_thresh": 0.5,
    "generate.max_mask_share": 1.0,
    "generate.max_objects": 4,
    "annotate.fps": SCENES.fps / ANNOTATE_EVERY,
}


def save_untrained(path: Path, name: str) -> None:
    """Random weights, always the same, with mask logits of a usual size and objects that count as present."""
    import torch
    from safetensors.torch import save_file

    from sam2_pipeline.model.checkpoint import build_model

    torch.manual_seed(0)
    weights = build_model(name).state_dict()
    for key, tensor in weights.items():
        if "output_hypernetworks_mlps" in key and ".layers.2." in key:
            tensor *= 60
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 3
    save_file(weights, path)


def prepare(
    directory: str | None, model: str | None, checkpoint: str | None, engine: dict[str, Any] | None = None
) -> tuple[JobConfig, bool]:
    """Makes the clips (and weights, where none are named): the job to run, and whether its model is untrained.

    ``engine`` are further settings, of where and how to run.
    """
    root = Path(directory or tempfile.mkdtemp(prefix="sam2-pipeline-demo-"))
    make_dataset(root, range(CLIPS), SCENES, annotate_every=ANNOTATE_EVERY)
    given = {"input": str(root / "videos"), "output": str(root / "masklets"), **(engine or {})}
    if model or checkpoint:
        given |= {"model.name": model, "model.checkpoint": checkpoint, "annotate.fps": SCENES.fps / ANNOTATE_EVERY}
        return JobConfig.load(None, [], given, {}), False
    weights = root / "untrained.safetensors"
    save_untrained(weights, "sam2.1_hiera_tiny")
    given |= SETTINGS | {"model.name": "sam2.1_hiera_tiny", "model.checkpoint": str(weights)}
    return JobConfig.load(None, [], given, {}), True


def show(output: str) -> str:
    """The heads of the three tables, as text."""
    from sam2_pipeline.io.dataset import MaskletDataset

    dataset = MaskletDataset(output)
    videos = dataset.videos(columns=["video_id", "status", "width", "height", "frame_count", "masklet_count"])
    columns = ["video_id", "masklet_id", "masklet_type", "first_frame_index", "visible_frame_count", "size_bucket"]
    masks = dataset.masks(columns=["video_id", "masklet_id", "frame_index", "area", "predicted_iou", "object_score"])
    tables = {"videos": videos, "masklets": dataset.masklets(columns=columns), "masks": masks}
    return "\n\n".join(f"{name} ({table.num_rows} rows)\n{_head(table)}" for name, table in tables.items())


def _head(table: pa.Table, rows: int = 5) -> str:
    cells = [table.column_names, *([_cell(v) for v in row.values()] for row in table.slice(0, rows).to_pylist())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
