"""Videos that grow: frames at times of their own, readable whatever ends them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.live import open_stream
from sam2_pipeline.render.video import VideoWriter


def picture(brightness: int) -> np.ndarray:
    return np.full((45, 63, 3), brightness, np.uint8)


def test_frames_keep_their_times(tmp_path: Path) -> None:
    times = [0, 0.1, 0.5, 0.5, 0.4, 2]  # the fourth and fifth are late, and shown a tick after the third
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for number, time_s in enumerate(times):
            writer.write(picture(40 * number), time_s)
        with pytest.raises(ConfigError, match="expected"):
            writer.write(picture(0)[:20], 3)
    with open_stream(tmp_path / "a.mp4") as stream:
        found = list(stream)
    assert [frame.timestamp_s for frame in found] == pytest.approx([0, 0.1, 0.5, 0.5, 0.5, 2], abs=1e-4)
    assert [round(frame.image.mean() / 40) for frame in found] == [0, 1, 2, 3, 4, 5]


def test_of_a_killed_process_the_last_seconds_are_missing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    for number in range(120):
        writer.write(picture(number), number / 10)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "left.mp4")
    writer.close()
    with open_stream(tmp_path / "left.mp4") as stream:
        assert len(list(stream)) >= 60


def test_nothing_written_is_a_file_all_the_same(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10):
        pass
    assert (tmp_path / "a.mp4").exists()
    with pytest.raises(StorageError, match="cannot be written"):
        VideoWriter(tmp_path / "no" / "a.mp4", 10)
