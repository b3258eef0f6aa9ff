"""`demo`: the whole of it, on fewer and smaller clips."""

import json
import re

import av
import pytest
from PIL import Image
from random_weights import save_random_weights

from sam2_pipeline import cli, demo
from sam2_pipeline.training.synthetic import SceneOptions


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(demo, "CLIPS", 2)
    monkeypatch.setattr(demo, "SCENES", SceneOptions(size=(96, 128), frames=5, objects=(2, 2), late=0))


def test_tables_scores_and_pictures(tmp_path, capsys):
    assert cli.main(["demo", str(tmp_path), "--ray", "off"]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^{table} \(\d+ rows\)$", said, re.MULTILINE) for table in ("videos", "masklets", "masks"))
    assert re.search(r"all +\d+ +\d+\.\d", said) and "recall of objects visible at the start" in said
    assert f"{tmp_path}/overlay.mp4 and {tmp_path}/overlay.png" in said
    assert f"report: {tmp_path}/report.html" in said and "masklets of 2 videos" in (tmp_path / "report.html").read_text()
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 2 * 5 and frames[0].shape == (96, 2 * 128 + 4, 3)
    with Image.open(tmp_path / "overlay.png") as sheet:
        assert sheet.size == (4 * 320 + 3 * 4, 2 * 2 * 240 + 3 * 4)


def test_with_weights_of_ones_own_and_again(tmp_path, capsys):
    weights = save_random_weights(tmp_path / "w.safetensors")
    arguments = ["demo", str(tmp_path / "demo"), "--ray", "off", "--checkpoint", str(weights), "--model", "sam2_pipeline_small"]
    assert cli.main([*arguments, "--json-logs"]) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in (said.out + said.err).splitlines()]
    [scores] = [line for line in lines if line["event"] == "scores"]
    assert 0 <= scores["recall"] <= 1 and scores["video"].endswith("overlay.mp4")
    assert cli.main(arguments) == 0
    assert "untrained" not in capsys.readouterr().out
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
