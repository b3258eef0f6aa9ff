"""Runs on a real Ray, started here: the same results, workers that die, and a driver that is killed."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from fakes import FakeFactory, write_clip

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Ray's workers import this package and the stand-ins from where the tests do."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "b", "c", "killer"):
        write_clip(folder / f"{name}.mp4")
    return folder


def _run(inputs, output, ray, factory, *overrides):
    options = {"input": str(inputs), "output": str(output), "ray.address": ray}
    return run_job(JobConfig.load(overrides=overrides, options=options), factory=factory, reporter=Reporter("quiet"))


def _tables(output) -> dict[str, pd.DataFrame]:
    frames = {}
    for table in ("videos", "masklets", "masks"):
        frame = pd.read_parquet(f"{output}/{table}")
        keys = [key for key in ("video_id", "masklet_id", "frame_index") if key in frame]
        frames[table] = frame.sort_values(keys).drop(columns="wall_s", errors="ignore").reset_index(drop=True)
    return frames


def test_ray_gives_what_one_process_gives_though_a_worker_dies(inputs, tmp_path):
    """One worker is killed midway; its unit is done by another, and no other video suffers."""
    _run(inputs, tmp_path / "here", "off", FakeFactory())
    dying = FakeFactory((("killer", "kill-once"),), str(tmp_path))
    summary = _run(inputs, tmp_path / "ray", "local", dying, "ray.workers=2", "units.videos_per_unit=2")
    assert (summary.videos, summary.failed) == (4, 0)
    assert (tmp_path / "killed-killer").exists()
    for table, frame in _tables(tmp_path / "ray").items():
        unit = ["unit_id"] if table == "videos" else []
        pd.testing.assert_frame_equal(frame.drop(columns=unit), _tables(tmp_path / "here")[table].drop(columns=unit))
    assert verify_output(Storage(tmp_path / "ray")) == []


def test_a_video_that_kills_every_worker_costs_its_row_only(inputs, tmp_path):
    poison = FakeFactory((("killer", "kill"),), str(tmp_path))
    summary = _run(inputs, tmp_path / "out", "local", poison, "units.videos_per_unit=4", "limits.max_attempts=2")
    assert (summary.videos, summary.failed, summary.exit_code) == (4, 1, 3)
    assert summary.failures[0].video_id == "killer"
    assert summary.failures[0].error_type == "WorkerDied"
    assert verify_output(Storage(tmp_path / "out")) == []


def test_a_video_that_hangs_costs_its_row_only(inputs, tmp_path):
    hanging = FakeFactory((("killer", "hang"),), str(tmp_path))
    settings = ["units.videos_per_unit=2", "limits.max_attempts=2", "limits.timeout_s=2"]
    summary = _run(inputs, tmp_path / "out", "local", hanging, *settings)
    assert (summary.videos, summary.failed, summary.exit_code) == (4, 1, 3)
    assert (summary.failures[0].video_id, summary.failures[0].error_type) == ("killer", "TimedOut")
    assert "no new frame for 2 s" in summary.failures[0].error_message


def test_a_notice_of_termination_commits_what_is_complete(inputs, tmp_path):
    """SIGTERM to a worker that has two of its unit's four videos: they are committed, and another worker does the rest.
    Events tell of each, though the worker that left could not."""
    said = io.StringIO()

    class Terminator(Reporter):
        def __init__(self):
            super().__init__("json", said)

        def _show(self, snapshot, *, due):
            made = list(tmp_path.glob("pid-*"))
            if snapshot.frames >= 15 and len(made) == 1:
                with contextlib.suppress(ProcessLookupError):  # it has left already
                    os.kill(int(made[0].name.removeprefix("pid-")), signal.SIGTERM)

    options = {"input": str(inputs), "output": str(tmp_path / "out"), "ray.address": "local", "units.videos_per_unit": 4}
    factory = FakeFactory(folder=str(tmp_path), delay_s=0.25)
    summary = run_job(JobConfig.load(options=options), factory=factory, reporter=Terminator())
    assert (summary.videos, summary.failed) == (4, 0)
    assert len(list(tmp_path.glob("pid-*"))) == 2
    commits = list_commits(Storage(tmp_path / "out"))
    assert sum(commit.num_videos for commit in commits) == 4
    assert sorted(commit.num_videos for commit in commits) in ([1, 3], [2, 2])
    assert _videos_done(said.getvalue()) == ["a", "b", "c", "killer"]
    assert verify_output(Storage(tmp_path / "out")) == []


def _videos_done(said: str) -> list[str]:
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return sorted(event["video_id"] for event in events if event["event"] == "video_done")


DRIVER = """
import sys
from fakes import FakeFactory
from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.interrupt import interruptible
from sam2_pipeline.pipeline.progress import Reporter
options = {"input": sys.argv[1], "output": sys.argv[2], "ray.address": "local", "units.videos_per_unit": int(sys.argv[3])}
with interruptible():
    run_job(JobConfig.load(options=options), factory=FakeFactory(folder=sys.argv[4], delay_s=0.2), reporter=Reporter("json"))
"""


def test_a_killed_driver_is_resumed_by_the_next_run(inputs, tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, inputs, tmp_path / "out", "1", tmp_path])
    commits = tmp_path / "out" / "_run" / "commits"
    deadline = time.monotonic() + 120
    while not (commits.is_dir() and os.listdir(commits)):
        assert driver.poll() is None and time.monotonic() < deadline, "the driver ended before its first commit"
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    done = set(os.listdir(commits))
    assert len(done) < 4
    summary = _run(inputs, tmp_path / "out", "off", FakeFactory())
    assert (summary.videos, summary.failed) == (4, 0)
    assert verify_output(Storage(tmp_path / "out")) == []


def test_a_driver_that_is_interrupted_lets_workers_commit_what_is_complete(inputs, tmp_path):
    command = [sys.executable, "-c", DRIVER, inputs, tmp_path / "out", "4", tmp_path]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("pid-*")):
        assert driver.poll() is None and time.monotonic() < deadline, "no worker has begun"
        time.sleep(0.1)
    time.sleep(3)  # two videos of 1.2 s
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode != 0
    (commit,) = list_commits(Storage(tmp_path / "out"))
    assert 1 <= commit.num_videos <= 3
    assert _videos_done(said) == sorted(commit.video_ids)
    summary = _run(inputs, tmp_path / "out", "off", FakeFactory())
    assert (summary.videos, summary.failed) == (4, 0)
    assert verify_output(Storage(tmp_path / "out")) == []
