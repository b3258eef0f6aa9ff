"""README's Python runs as it stands, with a small model and small files in the place of large ones; its commands exist."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from golden.models import synthetic_model
from pages import ROOT, blocks, check_command, commands, small_names, small_run

import sam2_pipeline as sp
from sam2_pipeline.masklets.schema import MASKLETS

README = (ROOT / "README.md").read_text()


def test_python_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_names(tmp_path, monkeypatch, frames=32)
    small_run(tmp_path, tmp_path / "clip.mp4", tmp_path / "out")
    dataset = sp.MaskletDataset("out")
    monkeypatch.setattr(sp, "MaskletDataset", lambda url: dataset, raising=False)
    exported = SimpleNamespace(config=synthetic_model(image_size=128).config)  # making one takes a minute
    monkeypatch.setattr("sam2_pipeline.onnx.load_model", lambda folder: exported)
    names: dict = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert type(names["session"].engine).__name__ == "OnnxEngine"
    assert names["best"].shape == (400, 600) and names["masks"].shape == (1, 400, 512)
    assert names["stream"].statistics().segmented == 3
    assert names["table"].num_rows == len(names["masklet"].frames) > 0


def test_command_lines_parse() -> None:
    """Every `sam2-pipeline ...` of README is one that the command line understands."""
    found = commands(README)
    assert len(found) >= 10
    for words in found:
        check_command(words)


def test_sql_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    [query] = blocks(README, "sql")
    folder = tmp_path / "masklets" / "masklets"
    folder.mkdir(parents=True)
    pq.write_table(MASKLETS.empty_table(), folder / "unit-0-0.parquet")
    assert duckdb.sql(query).columns == ["video_id", "masklet_id", "stability_score_mean"]
