"""README's Python runs as it stands, with a small model and small files in the place of large ones; its commands exist."""

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden.models import synthetic_model
from golden.synthetic_inputs import synthetic_frame
from PIL import Image
from videos import write_video

import sam2_pipeline as sp
from sam2_pipeline.cli import build_parser
from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline.driver import run_job

README = (Path(__file__).parent.parent / "README.md").read_text()
EASY = sp.GenerateOptions(points_per_side=2, crop_grids=(), pred_iou_thresh=0.0, stability_score_thresh=0.0, max_objects=2)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with README's files, where README's names mean small things."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_frame(0, 400, 600)).save("truck.jpg")
    frames = [np.asarray(Image.fromarray(synthetic_frame(t, 90, 120, seed=2)).resize((512, 400))) for t in range(32)]
    write_video(tmp_path / "clip.mp4", frames)
    camera = write_video(tmp_path / "camera.mp4", frames[:3])
    monkeypatch.setattr(sp, "open_stream", lambda url, open=sp.open_stream: open(camera), raising=False)
    model = synthetic_model(image_size=128)
    real = sp.load_model
    monkeypatch.setattr(sp, "load_model", lambda name, **given: real(name, **given) if given else model, raising=False)
    monkeypatch.setattr(sp, "MaskletGenerator", partial(sp.MaskletGenerator, generate=EASY), raising=False)
    return tmp_path


def test_python_blocks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    weights = place / "weights.pt"
    torch.save({"model": synthetic_model(image_size=128).state_dict()}, weights)
    settings = ["generate.points_per_side=2", "generate.crop_grids=[]", "generate.pred_iou_thresh=0", "generate.max_objects=1",
                "generate.stability_score_thresh=0", "model.image_size=128", "annotate.fps=2"]  # fmt: skip
    given = {"input": "clip.mp4", "output": "out", "model.checkpoint": str(weights), "ray.address": "off"}
    assert run_job(JobConfig.load(None, settings, given, {})).exit_code == 0
    dataset = sp.MaskletDataset("out")
    monkeypatch.setattr(sp, "MaskletDataset", lambda url: dataset, raising=False)
    exported = SimpleNamespace(config=synthetic_model(image_size=128).config)  # making one takes a minute
    monkeypatch.setattr("sam2_pipeline.onnx.load_model", lambda folder: exported)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert type(names["session"].engine).__name__ == "OnnxEngine"
    assert names["best"].shape == (400, 600) and names["masks"].shape == (1, 400, 512)
    assert names["stream"].statistics().segmented == 3
    assert names["table"].num_rows == len(names["masklet"].frames) > 0


def test_command_lines_parse() -> None:
    """Every `sam2-pipeline ...` of README is one that the command line understands."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [line.split("#")[0].split("sam2-pipeline ", 1)[1] for line in text.splitlines() if "sam2-pipeline " in line]
    assert len(lines) >= 4
    for line in lines:
        assert build_parser().parse_args(line.split()).verb


def test_sql_block(place: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    from sam2_pipeline.masklets.schema import MASKLETS

    [query] = blocks("sql")
    folder = place / "masklets" / "masklets"
    folder.mkdir(parents=True)
    import pyarrow.parquet as pq

    pq.write_table(MASKLETS.empty_table(), folder / "unit-0-0.parquet")
    assert duckdb.sql(query).columns == ["video_id", "masklet_id", "stability_score_mean"]
