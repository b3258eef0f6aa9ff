"""`demo`: a few synthetic clips with known ground truth, the whole pipeline on local Ray, then tables, scores and pictures."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from sam2_pipeline.config import JobConfig
from sam2_pipeline.evaluation.evaluate import evaluate
from sam2_pipeline.evaluation.result import Evaluation
from sam2_pipeline.evaluation.scores import FOUND
from sam2_pipeline.formats.sources import open_masks
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.render.compare import draw_both
from sam2_pipeline.render.layout import beside, fit, sheet
from sam2_pipeline.render.overlay import write
from sam2_pipeline.render.video import write_video
from sam2_pipeline.report.facts import gather
from sam2_pipeline.report.page import Shown, page
from sam2_pipeline.training.synthetic import SceneOptions
from sam2_pipeline.training.synthetic.files import make_dataset

CLIPS = 3  # of the first seeds, which no training uses
SCENES = SceneOptions(size=(288, 384), frames=24, fps=24, objects=(3, 4))
# Enough for a few objects on small pictures; a small model often finds an object by several of its parts, and follows the whole.
SEARCH = {"generate.points_per_side": 16, "generate.crop_grids": [], "identity.apply": "always"}
CAPTIONS = ("masklets", "truth (white: missed)")
_SHOWN_FRAMES = 4  # of a clip on the sheet
_SHEET_WIDTH = 320  # pixels of a picture there


@dataclass(frozen=True)
class Demo:
    """Where everything goes, and the job to run."""

    root: Path
    config: JobConfig


@dataclass(frozen=True)
class Pictures:
    """What to look at: a video and a sheet of frames, masklets beside the truth, and the report."""

    video: Path
    sheet: Path
    report: Path


def prepare(directory: str | None, model: str | None, checkpoint: str | None, engine: dict[str, Any] | None = None) -> Demo:
    """Makes the clips. ``engine`` are further settings, of where and how to run."""
    root = Path(directory or tempfile.mkdtemp(prefix="sam2-pipeline-demo-"))
    make_dataset(root, range(CLIPS), SCENES)
    given = {"input": str(root / "videos"), "output": str(root / "masklets"), **(engine or {})}
    given |= {"model.name": model, "model.checkpoint": checkpoint, **SEARCH}
    return Demo(root, JobConfig.load(None, [], given, {}))


def score(demo: Demo) -> Evaluation:
    """Masklets against the true masks, each object with the masklet that overlaps it most."""
    return evaluate(open_masks(demo.config.output), open_masks(demo.root / "videos"), match="hungarian")


def draw(demo: Demo, scores: Evaluation) -> Pictures:
    """Writes the pictures."""
    pictures = Pictures(demo.root / "overlay.mp4", demo.root / "overlay.png", demo.root / "report.html")
    rows: list[list[np.ndarray]] = []

    def frames() -> Iterator[np.ndarray]:
        for clip in scores.videos:
            found_of = {
                one.object_id: one.partner.predicted_id
                for one in clip.objects
                if one.partner.predicted_id is not None and (one.partner.mean_iou or 0) >= FOUND
            }
            both = list(_drawn(demo, clip.video_id, found_of))
            chosen = np.linspace(0, len(both) - 1, _SHOWN_FRAMES).round().astype(int)
            for side, caption in enumerate(CAPTIONS):
                first, *rest = (fit(both[t][side], _SHEET_WIDTH) for t in chosen)
                rows.append([write(first, caption, (4, 3)), *rest])
            yield from (beside(pair, CAPTIONS) for pair in both)

    write_video(pictures.video, frames(), SCENES.fps / 2)
    Image.fromarray(sheet(rows)).save(pictures.sheet)
    dataset = MaskletDataset(demo.config.output)
    pictures.report.write_text(page(dataset, gather(dataset), Shown()))
    return pictures


def _drawn(demo: Demo, video_id: str, found_of: dict[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    masklets = open_masks(demo.config.output).read(video_id)
    truth = open_masks(demo.root / "videos").read(video_id)
    with open_video(demo.root / "videos" / f"{video_id}.mp4") as video:
        for frame in video:
            found, true = ({n: masks[frame.index] for n, masks in side.items()} for side in (masklets, truth))
            yield draw_both(frame.image, found, true, found_of)


def show(output: str) -> str:
    """The heads of the three tables, as text."""
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
