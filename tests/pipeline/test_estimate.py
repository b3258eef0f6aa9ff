"""How long a run would take, and what it would cost."""

import json

import pytest
from fakes import write_clip
from random_weights import save_random_weights

from sam2_pipeline import cli
from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline import estimate as module
from sam2_pipeline.pipeline.timing import Timing


@pytest.fixture
def inputs(tmp_path):
    for number in range(4):
        write_clip(tmp_path / "in" / f"{number}.mp4", frames=11)
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    return tmp_path / "in"


def test_hours_are_those_of_all_videos(inputs, tmp_path, monkeypatch):
    asked = []

    def timed(config, videos):
        asked.extend(videos)
        return [Timing(10.0, 1.0, 5, "cuda:0 X"), Timing(20.0, 3.0, 15, "cuda:0 X")]

    monkeypatch.setattr(module, "time_videos", timed)
    found = module.estimate(JobConfig.load(options={"input": str(inputs), "output": str(tmp_path / "out")}), 2)
    assert [video.video_id for video, prompts in asked] == ["0", "2"] and {prompts for _, prompts in asked} == {None}
    assert (found.timed, found.device) == (2, "cuda:0 X")
    assert found.worker_hours == pytest.approx(5 * (15 + 10 * 2.5) / 3600)


def test_cost_from_a_real_model(inputs, tmp_path, capsys):
    weights = str(save_random_weights(tmp_path / "w.safetensors"))
    settings = ["generate.points_per_side=1", "generate.crop_grids=[]", "generate.pred_iou_thresh=-1"]
    settings += ["generate.stability_score_thresh=0", "generate.max_objects=1"]
    arguments = ["plan", str(inputs), str(tmp_path / "out"), "--model", "sam2_pipeline_small", "--checkpoint", weights]
    arguments += [part for setting in settings for part in ("--set", setting)]
    assert cli.main([*arguments, "--probe", "1", "--gpu-hour-price", "3600", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["timed"], found["device"], found["to_do"]) == (1, "cpu", 5)
    assert found["worker_hours"] > 0 and found["cost"] == pytest.approx(3600 * found["worker_hours"])
    assert not (tmp_path / "out").exists()


def test_a_model_without_weights(inputs, tmp_path, capsys):
    places = [str(inputs), str(tmp_path / "out"), "--model", "sam2_pipeline_small", "--checkpoint", str(tmp_path / "none.pt")]
    assert cli.main(["plan", *places]) == 0
    assert "gpu-hours  not known: " in capsys.readouterr().out
    assert cli.main(["plan", *places, "--gpu-hour-price", "1"]) == 2
    assert cli.main(["plan", *places, "--gpu-hour-price", "1", "--probe", "0"]) == 2
