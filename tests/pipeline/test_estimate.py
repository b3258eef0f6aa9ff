"""How long a run would take, and what it would cost."""

import json

import numpy as np
import pytest
from fakes import write_clip
from random_weights import save_random_weights

from sam2_pipeline import cli
from sam2_pipeline.config import JobConfig
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoInfo
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


INFO = VideoInfo(64, 48, 10.0, 101, 10.1, "h264")


@pytest.mark.parametrize(
    ("settings", "births", "expected"),
    [
        ([], None, (1, 100)),
        (["tracking.backward=true", "discover.every_s=2"], None, (6, 95 + 100)),  # keyframes 0, 20, ... 100; back from the last
        (["discover.every_s=3"], None, (4, 97 + 90)),
        (["discover.every_s=2", "tracking.backward=false"], None, (6, 95)),
        (["judge.enabled=true"], None, (1, 100 + 101)),
        (["discover.every_s=2", "judge.enabled=true"], None, (6, 95 + 100 + 201)),
        ([], {1: [40, 60], 2: [70]}, (1, 60 + 70)),  # forward from 40, back from 70; 60 is a correction
        (["tracking.backward=false", "judge.enabled=true"], {1: [40]}, (1, 60 + 61)),
        (["discover.every_s=2"], {1: [0]}, (1, 100)),
        ([], {}, (0, 0)),
    ],
)
def test_backward_passes_searches_and_verdicts_count(settings, births, expected):
    prompts = None
    if births is not None:
        prompts = [Prompt(object_id, at, np.ones((1, 2)), np.ones(1)) for object_id, frames in births.items() for at in frames]
    assert module.walks(JobConfig.load(overrides=settings), INFO, prompts) == expected


def test_hours_count_backward_passes(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "time_videos", lambda config, videos: [Timing(10.0, 1.0, 5, "cpu")])
    given = {"input": str(inputs), "output": str(tmp_path / "out"), "discover.every_s": 0.5}
    found = module.estimate(JobConfig.load(options=given), 1)
    assert found.worker_hours == pytest.approx(5 * (2 * 10 + 9 + 6) / 3600)  # 11 frames, 12 a second: keyframes 0 and 6


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
