"""How many frames videos have, by their headers, or by their bytes where there are many."""

import pytest
from fakes import FakeFactory, write_clip
from videos import moving_shapes, write_pictures, write_video

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.manifest import read_manifest
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline import prepare as module
from sam2_pipeline.pipeline import probing
from sam2_pipeline.pipeline.probing import predict_frames, probe_lengths, spread, with_predictions
from sam2_pipeline.pipeline.progress import Reporter


def test_headers_of_all_kinds_are_read_and_what_is_no_video_is_left_out(tmp_path):
    write_clip(tmp_path / "short.mp4", frames=3)
    write_video(tmp_path / "long.mkv", moving_shapes(30))
    write_pictures(tmp_path / "pictures", moving_shapes(5))
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    videos = [*list_videos(tmp_path), VideoRef("ftp", "ftp://host/a.mp4", 5), VideoRef("absent", "/absent.mp4", 7)]
    assert probe_lengths(JobConfig(), videos) == {"short": 3, "long": 30, "pictures": 5}
    predicted = {video.video_id: video.frames for video in predict_frames(JobConfig(), videos)}
    assert (predicted["short"], predicted["long"], predicted["pictures"]) == (3, 30, 5)
    assert predicted["broken"] > 0 and predicted["absent"] > 0


def test_what_takes_too_long_is_left_out(tmp_path):
    write_clip(tmp_path / "a.mp4")
    videos = list(list_videos(tmp_path))
    assert probe_lengths(JobConfig(), videos, patience_s=0.01) == {}
    assert with_predictions(videos, {}) == videos and videos[0].frames is None


def test_a_sample_is_spread_over_all_sizes_and_calibrates_bytes(monkeypatch):
    """Kinds of files differ in how many frames a byte holds."""
    videos = [VideoRef(f"m{n}", f"/m{n}.mp4", 100 * n) for n in range(1, 51)] + [
        VideoRef(f"y{n}", f"/y{n}.y4m", 1000 * n) for n in range(1, 51)
    ]
    sample = spread(videos, 10)
    assert len({video.video_id for video in sample}) == 10
    assert min(videos, key=lambda v: v.size_bytes) in sample and max(videos, key=lambda v: v.size_bytes) in sample
    truth = {video.video_id: video.size_bytes // (10 if video.uri.endswith("mp4") else 500) for video in videos}
    frames = {video.video_id: truth[video.video_id] for video in sample}
    others = [VideoRef("x", "/x.webm", 1000), VideoRef("unknown", "/unknown.mp4")]
    predicted = {video.video_id: video.frames for video in with_predictions([*videos, *others], frames)}
    assert {name: predicted[name] for name in truth} == pytest.approx(truth, abs=1)
    assert predicted["x"] == round(1000 * sum(frames.values()) / sum(video.size_bytes for video in sample))
    assert predicted["unknown"] == round(sum(frames.values()) / 10)


def test_a_plan_for_several_workers_begins_with_the_longest(tmp_path, monkeypatch):
    """Not with the largest: here the video of the fewest frames has the most bytes."""
    (tmp_path / "in").mkdir()
    for name, frames, side in (("a", 40, 32), ("b", 2, 256), ("c", 20, 32)):
        write_video(
            tmp_path / "in" / f"{name}.mp4", moving_shapes(frames, side, side), options={"qp": "0"} if name == "b" else None
        )
    with open(tmp_path / "in" / "b.mp4", "ab") as file:
        file.write(bytes(1 << 20))
    config = JobConfig.load(options={"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "ray.address": "local"})
    prepared = module.prepare(config, FakeFactory(), Reporter("quiet"))
    assert [(v.video_id, v.frames) for task in prepared.tasks for v in task.unit.videos] == [("a", 40), ("c", 20), ("b", 2)]
    module.freeze(prepared)
    assert {v.video_id: v.frames for unit in read_manifest(Storage(config.output)) for v in unit.videos} == {
        "a": 40,
        "b": 2,
        "c": 20,
    }
    monkeypatch.setattr(probing, "probe_length", None)
    monkeypatch.setattr(probing.subprocess, "run", None)  # a resumed run finds the figures in the manifest
    again = module.prepare(config, FakeFactory(), Reporter("quiet"))
    assert [task.unit for task in again.tasks] == [task.unit for task in prepared.tasks]
