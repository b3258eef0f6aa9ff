"""`sam2-pipeline live`: masks as JSON lines, overlay videos, ends of all kinds, complaints."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from random_weights import save_random_weights
from videos import moving_shapes, write_video

from sam2_pipeline import VideoSegmenter, cli, load_model, open_video
from sam2_pipeline.live.show import Ticker
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, encode
from sam2_pipeline.segment.latency import LatencyMeter, LiveStatistics

EVERYTHING = (
    "points_per_side=2", "crop_grids=[]", "pred_iou_thresh=0", "stability_score_thresh=0", "max_mask_share=1", "box_nms_thresh=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", moving_shapes(16), fps=10))


@pytest.fixture
def live(weights: str, capsys: pytest.CaptureFixture[str]):
    """Runs the verb with the small model; gives status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        model = ("--model", "sam2_pipeline_small", "--checkpoint", weights, "--image-size", "128", "--device", "cpu")
        try:
            status = cli.main(["live", *arguments, *model])
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_masks_and_overlay_of_a_file(live, clip: str, weights: str, tmp_path: Path) -> None:
    overlay, masks = tmp_path / "overlay.mp4", tmp_path / "masks.jsonl"
    (tmp_path / "prompts.jsonl").write_text(
        '{"video_id": "any", "object_id": 7, "frame_index": 4, "points": [[20, 20]], "labels": [1]}\n'
    )
    marks = ("--point", "10,30", "--box", "30,5,60,40", "--prompts", str(tmp_path / "prompts.jsonl"))
    status, out, err = live(clip, *marks, "--output", str(overlay), "--masks", str(masks))
    assert status == 0 and out == ""
    assert "the stream ended: 16 of 16 frames segmented, 0 dropped" in err and "p99" in err
    lines = [json.loads(line) for line in masks.read_text().splitlines()]
    assert [line["frame_index"] for line in lines] == list(range(16))
    assert [line["timestamp_s"] for line in lines] == pytest.approx(np.arange(16) / 10)
    prompts = [
        Prompt(1, 0, np.array([[10, 30]]), np.array([1])),
        Prompt(2, 0, box_xyxy=np.array([30, 5, 60, 40])),
        Prompt(7, 4, np.array([[20, 20]]), np.array([1])),
    ]
    model = load_model("sam2_pipeline_small", checkpoint=weights, image_size=128, device="cpu")
    with open_video(clip) as video:
        pictures = [frame.image for frame in video]
        for line, result in zip(lines, VideoSegmenter(model).track(pictures, prompts), strict=True):
            assert [one["object_id"] for one in line["objects"]] == list(result.object_ids)
            for one, mask in zip(line["objects"], result.masks().numpy(), strict=True):
                assert Rle.from_coco(one["rle"]) == encode(mask)
                assert one["area"] == mask.sum()
    with open_video(overlay) as drawn:
        assert [frame.timestamp_s for frame in drawn] == pytest.approx(np.arange(16) / 10, abs=1e-4)
        assert np.abs(drawn[15].image.astype(int) - pictures[15]).mean() > 3


def test_automatic_objects_on_standard_output(live, clip: str) -> None:
    settings = [text for one in EVERYTHING for text in ("--set", f"generate.{one}")]
    status, out, err = live(clip, "--auto", "--masks", "-", "--quiet", "--max-frames", "2", *settings)
    assert status == 0 and err == ""
    first, second = (json.loads(line) for line in out.splitlines())
    assert len(first["objects"]) > 1
    assert [one["object_id"] for one in second["objects"]] == [one["object_id"] for one in first["objects"]]


def test_ctrl_c_leaves_whole_files(weights: str, tmp_path: Path) -> None:
    """Also for a stream that would go on for minutes."""
    clip = write_video(tmp_path / "long.mp4", moving_shapes(400), fps=4)
    overlay, masks = tmp_path / "overlay.mp4", tmp_path / "masks.jsonl"
    command = ["live", str(clip), "--realtime", "--point", "10,30", "--output", str(overlay), "--masks", str(masks)]
    command += ["--model", "sam2_pipeline_small", "--checkpoint", weights, "--image-size", "128", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sam2_pipeline", *command], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        deadline = time.monotonic() + 120
        while not masks.exists() or masks.read_text().count("\n") < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.startswith("interrupted: ") and said.count("\n") == 1
    lines = [json.loads(line) for line in masks.read_text().splitlines()]
    with open_video(overlay) as drawn:
        assert len(lines) - 1 <= drawn.num_frames <= len(lines)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ((), 2, "nothing to track: expected --point, --box, --prompts or --auto"),
        (("--point", "10"), 2, "'10' is not x,y in pixels"),
        (("--box", "1,2,3,x"), 2, "'1,2,3,x' is not x0,y0,x1,y1 in pixels"),
        (("--box", "30,5,10,40"), 2, "expected x0 < x1"),
        (("--point", "1000,30"), 2, "outside the 64x48 picture"),
        (("--point", "nan,30"), 2, "NaN"),
        (("--auto", "--queue", "0"), 2, "queue_frames is 0, expected at least 1"),
        (("--auto", "--max-frames", "0"), 2, "--max-frames is 0, expected at least 1"),
        (("--auto", "--reconnect", "5"), 2, "only a network stream can be opened again"),
        (("--auto", "--output", "overlay.avi"), 2, "expected a name that ends in .mp4"),
        (("--auto", "--source-option", "framerate"), 2, "expected key=value"),
        (("--prompts", "none.csv"), 2, "cannot read prompts"),
        (("--point", "10,30", "--output", "no/such/folder/a.mp4"), 1, "a.mp4: cannot be written: No such file or directory"),
        (("--point", "10,30", "--masks", "no/such/folder/a.jsonl"), 1, "a.jsonl: cannot be written: No such file or directory"),
    ],
)
def test_complaints(live, clip: str, arguments: tuple[str, ...], status: int, complaint: str) -> None:
    found, out, err = live(clip, *arguments)
    assert found == status and out == ""
    assert complaint in err and err.count("\n") == 1


def test_prompts_that_do_not_fit_are_named_by_their_lines(live, clip: str, tmp_path: Path) -> None:
    table = tmp_path / "prompts.jsonl"
    table.write_text(
        '{"video_id": "a", "object_id": 1, "frame_index": 0, "points": [[10, 10]], "labels": [1]}\n'
        '{"video_id": "a", "object_id": 2, "frame_index": 0, "points": [[99, 10]], "labels": [1]}\n'
    )
    status, _, err = live(clip, "--prompts", str(table))
    assert status == 2 and "line 2: point (99, 10) is outside the picture" in err and "line 1" not in err


def test_sources_that_cannot_be_opened(live, tmp_path: Path) -> None:
    for source, status, complaint in (
        (str(tmp_path / "none.mp4"), 1, "there is no such file"),
        ("rtsp://127.0.0.1:9/1", 1, "cannot be opened: Connection refused"),
        ("s3://bucket/a.mp4", 2, "s3 is no kind of stream"),
    ):
        found, _, err = live(source, "--point", "1,1")
        assert found == status and complaint in err and err.count("\n") == 1


def test_the_ticker(capsys: pytest.CaptureFixture[str]) -> None:
    found = LiveStatistics(12, 9, 3, 0, 0.01, 0.05, 0.06, 8.0)
    Ticker(quiet=False).show(found, 0.02)
    line = capsys.readouterr().err
    assert line.startswith("9 frames  ") and line.endswith("latency 20 ms (p99 50)  3 dropped\n")
    quiet = Ticker(quiet=True)
    quiet.end(found, "done")
    assert not quiet.due() and capsys.readouterr().err == ""


def test_quantiles_are_true_to_a_percent() -> None:
    meter = LatencyMeter()
    assert meter.quantile(0.99) == 0
    latencies = np.random.default_rng(0).lognormal(-3, 1, 5000)
    for latency in latencies:
        meter.add(latency)
    for share in (0.1, 0.5, 0.99):
        assert meter.quantile(share) == pytest.approx(np.quantile(latencies, share, method="inverted_cdf"), rel=0.0102)
    assert meter.quantile(1) == pytest.approx(latencies.max(), rel=0.0102) and meter.longest_s == latencies.max()
    for extreme in (0.0, 1e9):
        meter.add(extreme)
    assert meter.quantile(1) > 9e3
