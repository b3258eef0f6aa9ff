"""Progress: what is counted, how the ETA comes about, and how it is shown on a terminal, in a log, and as JSON."""

import io
import json
import os
import pty
import threading

import pytest

from sam2_pipeline.masklets.work import VideoRef, WorkUnit
from sam2_pipeline.pipeline import progress
from sam2_pipeline.pipeline.actor import Outcome, Task
from sam2_pipeline.pipeline.progress import Reporter, Tracker, format_duration, format_speed
from sam2_pipeline.pipeline.video import Failure


@pytest.fixture
def clock(monkeypatch):
    """Time that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def _tasks(**sizes) -> list[Task]:
    return [Task(WorkUnit(f"unit-{name}", (VideoRef(name, f"/{name}", size),))) for name, size in sizes.items()]


def test_the_eta_is_weighted_by_bytes(clock):
    tracker = Tracker(_tasks(small=100, large=300))
    clock[0] += 50  # starting up says nothing about speed
    tracker.frame("small", 5, 10)
    clock[0] += 10
    snapshot = tracker.snapshot()
    assert snapshot.eta_s == pytest.approx(10 * 350 / 50)
    tracker.add(Outcome("unit-small", 1))
    assert tracker.snapshot().eta_s == pytest.approx(10 * 300 / 100)
    assert (tracker.snapshot().done, tracker.snapshot().total) == (1, 2)


def test_a_finished_video_counts_before_its_unit_is_committed(clock):
    videos = tuple(VideoRef(name, f"/{name}", 100) for name in "ab")
    tracker = Tracker([Task(WorkUnit("unit", videos))])
    tracker.look(10, [("a", 10, 10)])
    tracker.look(11, [("b", 1, 10)])
    clock[0] += 11
    assert tracker.snapshot().eta_s == pytest.approx(9)
    assert tracker.snapshot().done == 0


def test_only_committed_units_count(clock):
    tracker = Tracker(_tasks(a=1, b=1), done=3, failed=1)
    tracker.add(Outcome("unit-a", error="away"))
    assert (tracker.snapshot().done, tracker.snapshot().failed, tracker.snapshot().total) == (3, 1, 5)
    tracker.add(Outcome("unit-a", 1, (Failure("a", "/a", "VideoError", "bad"),)))
    assert (tracker.snapshot().done, tracker.snapshot().failed) == (4, 2)
    tracker.add(Outcome("unit-a", 1))
    assert tracker.snapshot().done == 4  # a unit that comes back twice counts once


def test_videos_of_unknown_length_or_size_do_no_harm(clock):
    tracker = Tracker(_tasks(a=None, b=None))
    tracker.look(5, [("a", 5, None), ("unknown", 1, 1)])
    clock[0] += 2
    assert tracker.snapshot().eta_s is None
    assert "ETA not known yet" in tracker.snapshot().line()


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.6, "4 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min"), (90000, "1 d 1 h"), (0, "0 s")]
)
def test_durations_are_for_people(seconds, text):
    assert format_duration(seconds) == text


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "BAR_EVERY_S", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.05)
    stream, beats, enough = io.StringIO(), [], threading.Event()
    tracker = Tracker(_tasks(a=1))

    def beat(snapshot):
        beats.append(snapshot)
        if len(beats) == 3:
            enough.set()

    with Reporter("auto", stream).watching(tracker, lambda: None, beat):
        assert enough.wait(20)
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 2 and all(line.startswith("0/1 videos (0%)") for line in lines)


def test_quiet_says_what_matters_only():
    stream = io.StringIO()
    reporter = Reporter("quiet", stream)
    reporter.say("start", "chatter")
    reporter.say("video_failed", "failed: a", important=True)
    assert stream.getvalue() == "failed: a\n"


def test_json_lines_hold_event_and_fields():
    stream = io.StringIO()
    Reporter("json", stream).say("video_failed", "text", video_id="a")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["message"], line["video_id"]) == ("video_failed", "text", "a")
    assert line["at"].endswith("+00:00")


def test_a_terminal_gets_a_bar_and_keeps_messages(monkeypatch):
    monkeypatch.setattr(progress, "BAR_EVERY_S", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    tracker = Tracker(_tasks(a=100, b=100))
    with os.fdopen(slave, "w") as terminal:
        reporter = Reporter("auto", terminal)
        with reporter.watching(tracker, lambda: None, lambda snapshot: None):
            reporter.say("video_failed", "failed: [a]", important=True)
            tracker.add(Outcome("unit-a", 1))
            threading.Event().wait(0.3)
        terminal.flush()
        shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "failed: [a]" in shown
    assert "1/2 videos" in shown and "ETA" in shown


@pytest.mark.parametrize(
    ("frames_per_s", "said"),
    [(0.0, "0.0 frames/s"), (0.02, "50 s a frame"), (0.0951, "11 s a frame"), (0.1, "0.1 frames/s"), (43.21, "43.2 frames/s")],
)
def test_a_slow_run_is_not_said_to_stand_still(frames_per_s, said):
    assert format_speed(frames_per_s) == said
