"""A run over every kind of odd and broken video: each gets its row, nobody else pays, and nothing half read passes for whole."""

from pathlib import Path

import numpy as np
import pytest
import videos
from fakes import FakeFactory

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter

FRAMES = 24
SHAPES = videos.moving_shapes(FRAMES)
LARGER = videos.moving_shapes(FRAMES, 96, 128)
TIMES = [0.04 * number + 0.013 * (number % 3) for number in range(FRAMES)]
# (name, what writes it to a path, width and height as displayed, frames)
ODD = [
    ("plain.mp4", lambda path: videos.write_video(path, SHAPES, audio_s=0.9), (64, 48), FRAMES),
    ("one-frame.mp4", lambda path: videos.write_video(path, SHAPES[:1]), (64, 48), 1),
    ("odd-size.mkv", lambda path: videos.write_video(path, videos.moving_shapes(9, 47, 33), pix_fmt="yuv444p"), (33, 47), 9),
    ("tiny.mp4", lambda path: videos.write_video(path, videos.moving_shapes(5, 16, 16)), (16, 16), 5),
    ("rotated.mp4", lambda path: videos.write_video(path, SHAPES, rotation=90), (48, 64), FRAMES),
    ("upside-down.mov", lambda path: videos.write_video(path, SHAPES, rotation=180), (64, 48), FRAMES),
    ("variable-rate.mp4", lambda path: videos.write_video(path, SHAPES, times=TIMES), (64, 48), FRAMES),
    ("ten-bit.mkv", lambda path: videos.write_video(path, SHAPES, pix_fmt="yuv420p10le"), (64, 48), FRAMES),
    ("full-colour.mp4", lambda path: videos.write_video(path, SHAPES, pix_fmt="yuv444p"), (64, 48), FRAMES),
    ("old.avi", lambda path: videos.write_video(path, SHAPES, codec="mpeg4"), (64, 48), FRAMES),
    ("in-fact-an-mkv.mp4", lambda path: videos.write_video(path, SHAPES, container="matroska"), (64, 48), FRAMES),
    ("without-times.mjpeg", lambda path: _pictures_in_a_row(path), (64, 48), FRAMES),
    ("grows.ts", lambda path: videos.write_changing_size(path, SHAPES, LARGER), (64, 48), 2 * FRAMES),
]  # fmt: skip
# (name, what writes it, what the reason says)
HOPELESS = [
    ("absent-inside.mp4", lambda path: path.write_bytes(b""), "FFmpeg cannot read it"),
    ("text.mp4", lambda path: path.write_text("this is no video\n" * 99), "FFmpeg cannot read it"),
    ("noise.mkv", lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)), "FFmpeg cannot read it"),
    ("sound.mp4", videos.write_audio_only, "no video stream"),
    ("no-frames.mp4", videos.write_without_frames, "holds no frames"),
    ("huge.mp4", lambda path: videos.write_video(path, videos.moving_shapes(2, 240, 320)), "expected at most 70000"),
]
CUTS = [0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97]


def _pictures_in_a_row(path: Path) -> Path:
    """Motion JPEG with no container, and so with no times."""
    import av

    with av.open(str(path), "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for picture in SHAPES:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuvj420p")))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of videos, and the rows of a run over it."""
    folder, output = tmp_path_factory.mktemp("corpus"), tmp_path_factory.mktemp("out") / "out"
    for name, write, *_ in ODD + HOPELESS:
        write(folder / name)
    whole = tmp_path_factory.mktemp("whole")
    sources = {
        "front": videos.write_video(whole / "front.mp4", SHAPES, muxing={"movflags": "faststart"}),
        "back": videos.write_video(whole / "back.mp4", SHAPES),
        "mkv": videos.write_video(whole / "mkv.mkv", SHAPES),
        "avi": videos.write_video(whole / "avi.avi", SHAPES, codec="mpeg4"),
    }
    for kind, source in sources.items():
        for cut in CUTS:
            videos.truncated(source, folder / f"cut-{kind}-{cut}{source.suffix}", cut)
        for seed in range(6):
            videos.flipped(source, folder / f"flipped-{kind}-{seed}{source.suffix}", 3, seed)
    options = {"input": str(folder), "output": str(output), "ray.address": "off", "limits.max_pixels": 70_000}
    summary = run_job(JobConfig.load(options=options), factory=FakeFactory(), reporter=Reporter("quiet"))
    rows = {row["video_id"]: row for row in MaskletDataset(output).videos().to_pylist()}
    assert len(rows) == len(list(folder.iterdir())) == summary.videos
    assert verify_output(Storage(output)) == []
    assert summary.exit_code == 3
    return rows


@pytest.mark.parametrize(("name", "size", "frames"), [(name, size, frames) for name, _, size, frames in ODD])
def test_odd_videos_are_done(corpus, name, size, frames):
    row = corpus[Path(name).stem]
    assert row["error_message"] is None
    assert ((row["width"], row["height"]), row["frame_count"], row["annotated_frame_count"]) == (size, frames, frames)
    assert row["duration_s"] > 0 and row["fps"] > 0 and row["codec"]


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, _, reason in HOPELESS])
def test_hopeless_ones_say_why(corpus, name, reason):
    row = corpus[Path(name).stem]
    assert (row["status"], row["error_type"], row["masklet_count"]) == ("failed", "VideoError", 0)
    assert name in row["error_message"] and reason in row["error_message"]


def test_a_damaged_video_is_whole_or_failed(corpus):
    """A cut one is never taken for a shorter one; flipped bytes may have hit nothing that is shown."""
    damaged = {name: row for name, row in corpus.items() if name.startswith(("cut-", "flipped-"))}
    assert len(damaged) == 4 * (len(CUTS) + 6)
    for name, row in damaged.items():
        if row["status"] == "ok":
            assert row["frame_count"] == row["annotated_frame_count"] == FRAMES, name
        else:
            assert row["error_type"] == "VideoError" and name in row["error_message"], row["error_message"]
    assert {row["status"] for name, row in damaged.items() if name.startswith("cut-")} == {"failed"}
