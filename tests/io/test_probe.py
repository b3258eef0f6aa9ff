"""Headers, read without fetching the video."""

import fsspec
import numpy as np
import pytest
import s3fs
import videos

from sam2_pipeline.errors import VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.probe import probe_video

SHAPES = videos.moving_shapes(40)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_header_agrees_with_the_video(tmp_path, name):
    path = videos.write_video(tmp_path / name, SHAPES, rotation=90 if name == "a.mp4" else 0)
    with open_video(path, threads=1) as video:
        info = probe_video(str(path))
        assert (info.width, info.height, info.fps, info.frame_count) == (video.width, video.height, 25, 40)
        assert info.duration_s == pytest.approx(1.6) and info.codec == "h264"


def test_pictures(tmp_path):
    info = probe_video(str(videos.write_pictures(tmp_path / "frames", SHAPES[:3])))
    assert (info.width, info.height, info.frame_count) == (64, 48, 3)


def test_only_pieces_of_a_remote_file_are_read(tmp_path, s3_url, monkeypatch):
    noise = list(np.random.default_rng(0).integers(0, 256, (160, 128, 128, 3), np.uint8))
    path = videos.write_video(
        tmp_path / "a.mp4", noise, options={"preset": "ultrafast", "qp": "0"}, muxing={"movflags": "faststart"}
    )
    size = path.stat().st_size
    fs, root = fsspec.url_to_fs(s3_url)
    fs.pipe_file(f"{root}/a.mp4", path.read_bytes())
    fetched, fetch = [], s3fs.S3File._fetch_range

    def counted(self, start, end):
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", counted)
    assert probe_video(f"{s3_url}/a.mp4").frame_count == 160
    assert size > 3 << 20 and 0 < sum(fetched) < size / 2


def test_faults(tmp_path):
    (tmp_path / "text.mp4").write_text("hello " * 500)
    with pytest.raises(VideoError, match=r"text\.mp4: FFmpeg cannot read it"):
        probe_video(str(tmp_path / "text.mp4"))
    with pytest.raises(VideoError, match=r"absent\.mp4: cannot be opened: FileNotFoundError"):
        probe_video(str(tmp_path / "absent.mp4"))
    with pytest.raises(VideoError, match="holds no frames"):
        probe_video(str(videos.write_without_frames(tmp_path / "none.mp4")))
