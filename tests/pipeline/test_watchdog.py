"""A video that hangs, even in native code, costs its worker and then its row, and nobody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import write_clip

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.pipeline import watchdog
from sam2_pipeline.pipeline.attempts import begin_attempt, forgive_last_attempts
from sam2_pipeline.pipeline.watchdog import Watchdog, leash

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from fakes import FakeFactory
from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.manifest import make_unit
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline.actor import Task, UnitWorker
from sam2_pipeline.pipeline.job import Job

folder, output, event, delay_s, *overrides = sys.argv[1:]
factory = FakeFactory((("b.mp4", event),) if event else (), delay_s=float(delay_s))
config = JobConfig.load(overrides=overrides, options={"output": output})
worker = UnitWorker(factory, Job(config, "hash", "1.0", factory.describe()), watched=True)
outcome = worker.work(Task(make_unit(VideoRef(name, f"{folder}/{name}.mp4", 1000) for name in "abc")))
assert outcome.error is None, outcome.error
"""


@pytest.fixture
def places(tmp_path):
    for name in "abc":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    return tmp_path / "in", Storage(tmp_path / "out")


def _work(places, event: str, *overrides: str, delay_s: float = 0.0) -> int:
    """Exit status of a process that works on the unit of videos a, b and c."""
    arguments = [str(places[0]), places[1].url, event, str(delay_s), *overrides]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.run([sys.executable, "-c", WORKER, *arguments], env=environment, timeout=120).returncode


def _rows(storage: Storage) -> dict[str, dict]:
    return {row["video_id"]: row for row in MaskletDataset(storage.url).videos().to_pylist()}


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_video_that_hangs_is_quarantined_and_no_other(places, lanes):
    settings = ["limits.timeout_s=2", "limits.max_attempts=2", f"tracking.lanes={lanes}"]
    assert [_work(places, "hang", *settings) for _ in range(3)] == [-9, -9, 0]
    rows = _rows(places[1])
    assert [rows[name]["status"] for name in "abc"] == ["ok", "failed", "ok"]
    assert rows["b"]["error_type"] == "TimedOut"
    assert (
        "2 attempts died while on this video (2 timed out: no new frame for 2 s (limits.timeout_s))" in rows["b"]["error_message"]
    )


def test_lanes_do_not_share_the_blame(places):
    """The first death is anybody's; from then on suspects work alone."""
    settings = ["limits.max_attempts=2", "tracking.lanes=3"]
    statuses = [_work(places, "kill", *settings, delay_s=0.05) for _ in range(3)]
    assert statuses == [-9, -9, 0]
    rows = _rows(places[1])
    assert [rows[name]["status"] for name in "abc"] == ["ok", "failed", "ok"]
    assert rows["b"]["error_type"] == "WorkerDied" and "2 killed or crashed without a word" in rows["b"]["error_message"]


def test_slow_is_not_hanging_but_too_slow_is(places):
    """Six frames of 0.3 s: each within its second; all within one second and six times 1 s, but not within six times 0.05 s."""
    assert _work(places, "", "limits.timeout_s=1", "limits.timeout_per_frame_s=0.05", delay_s=0.3) == -9
    storage = places[1]
    (marker,) = [name for name, _ in storage.list("_run/attempts", recursive=True)]
    left = json.loads(storage.read_bytes(marker))
    assert left["video_ids"] == ["a"]
    assert left["reasons"] == {"a": "timed out: 6 frames not done within 1 s (limits.timeout_per_frame_s)"}
    assert _work(places, "", "limits.timeout_s=1", "limits.timeout_per_frame_s=1", delay_s=0.3) == 0
    assert {row["status"] for row in _rows(storage).values()} == {"ok"}


def test_what_the_watchdog_found_is_not_forgiven(places):
    storage = places[1]
    for unit_id, reasons in (("hung", {"a": "timed out: no new frame"}), ("lost", {})):
        attempt = begin_attempt(storage, unit_id)
        content = {"attempt_id": attempt.attempt_id, "video_ids": ["a"], "reasons": reasons}
        storage.write_bytes(attempt.marker, json.dumps(content).encode())
    forgive_last_attempts(storage, ["hung", "lost"])
    assert begin_attempt(storage, "hung").deaths == {"a": ["timed out: no new frame"]}
    assert begin_attempt(storage, "lost").deaths == {}


def test_a_watchdog_that_is_killed_is_replaced(tmp_path):
    watchdog = Watchdog(Storage(tmp_path))
    with leash(watchdog, "a", begin_attempt(Storage(tmp_path), "u")) as life:
        life.allow(60, "first")
        first = watchdog._process
        first.kill()
        first.wait()
        life.allow(60, "second")
        assert watchdog._process is not first and watchdog._process.poll() is None
    watchdog._process.stdin.close()  # as the end of the worker does
    assert watchdog._process.wait(20) == 0


def test_signs_of_life_are_passed_on_once_a_second(tmp_path, monkeypatch):
    told = []
    watchdog = Watchdog(Storage(tmp_path))
    monkeypatch.setattr(watchdog, "tell", told.append)
    with leash(watchdog, "a", begin_attempt(Storage(tmp_path), "u")) as life:
        life.allow(60, "first")
        for _ in range(1000):
            life.allow(60, "next")
        life.rest()
    assert [watched.reason for watched in told] == ["timed out: first", "timed out: next", ""]
    assert told[-1].deadline is None


def test_a_watchdog_that_cannot_be_started_fails_no_video(tmp_path, monkeypatch):
    warnings: list[str] = []  # not caplog: after tests with Ray, which configures logging, it stayed empty
    monkeypatch.setattr(watchdog.logger, "warning", lambda text, *values: warnings.append(text % values))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with leash(Watchdog(Storage(tmp_path)), "a", begin_attempt(Storage(tmp_path), "u")) as life:
        life.allow(60, "first")
    assert any("cannot be started" in warning for warning in warnings)
