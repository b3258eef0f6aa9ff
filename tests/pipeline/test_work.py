"""One unit of work: what is committed, what a bad video costs, what is the machine's fault."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fakes import FakeFactory, FakeGenerator, write_clip

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError, StorageError
from sam2_pipeline.io.commits import commit_unit, list_commits, uncommitted
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.manifest import make_unit
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline.actor import Task, UnitWorker
from sam2_pipeline.pipeline.attempts import NO_REASON, begin_attempt
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.lanes import Lanes, in_lanes
from sam2_pipeline.pipeline.video import Cancelled, VideoWorker
from sam2_pipeline.pipeline.watchdog import Leash, Watched
from sam2_pipeline.pipeline.work import process_work_unit


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "out")


@pytest.fixture
def unit(tmp_path):
    """Videos a, b (no video at all) and c."""
    for name in "ac":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    (tmp_path / "in" / "b.mp4").write_bytes(b"not a video" * 100)
    return make_unit(VideoRef(name, str(tmp_path / "in" / f"{name}.mp4"), 1000) for name in "abc")


def _job(storage: Storage, *overrides: str) -> Job:
    config = JobConfig.load(overrides=overrides, options={"output": storage.url})
    return Job(config, "hash", "1.0", FakeFactory().describe())


def _generator(tmp_path=None, **events: str) -> FakeGenerator:
    return FakeGenerator(events, str(tmp_path), 0.0)


def _rows(storage: Storage) -> dict[str, dict]:
    return {row["video_id"]: row for row in MaskletDataset(storage.url).videos().to_pylist()}


def _die(attempt, video_id: str) -> None:
    """Leave the marker of an attempt that ended without a word."""
    attempt.working_on(video_id).__enter__()


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_change_nothing_but_speed(storage, unit, lanes):
    process_work_unit(unit, _generator(), _job(storage, f"tracking.lanes={lanes}"), storage)
    assert [row["status"] for row in _rows(storage).values()] == ["ok", "failed", "ok"]
    assert verify_output(storage) == []


def test_lanes_really_run_at_once_and_results_keep_their_order():
    barrier = threading.Barrier(3, timeout=20)

    def work(item):
        barrier.wait()
        time.sleep(0.05 * (3 - item % 3))
        return item

    assert list(in_lanes(work, range(6), 3, cancel=lambda: None)) == list(range(6))


def test_when_one_lane_fails_the_others_are_cancelled():
    cancelled = threading.Event()

    def work(item):
        if item == 0:
            raise StorageError("full")
        assert cancelled.wait(20)

    with pytest.raises(StorageError):
        list(in_lanes(work, range(9), 2, cancel=cancelled.set))


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_order_to_stop_commits_what_is_complete(storage, unit, lanes):
    """What is left is a unit of its own, that the next worker takes up."""
    job = _job(storage, f"tracking.lanes={lanes}")
    worker = UnitWorker(FakeFactory(delay_s=0.05), job, notify=lambda video_id, *_: worker.stop() if video_id == "c" else None)
    with pytest.raises(Cancelled):
        worker.work(Task(unit))
    assert sorted(_rows(storage)) == ["a", "b"]
    assert list(storage.list("_run/attempts", recursive=True)) == []
    left = uncommitted(storage, unit)
    assert [video.video_id for video in left.videos] == ["c"] and left.unit_id != unit.unit_id

    outcome = UnitWorker(FakeFactory((("a.mp4", "raise"),)), job).work(Task(unit))
    assert (outcome.unit_id, outcome.num_videos, outcome.failures, outcome.error) == (unit.unit_id, 3, (), None)
    assert [video.video_id for video in outcome.done] == ["c"]
    assert [row["status"] for row in _rows(storage).values()] == ["ok", "failed", "ok"]
    assert uncommitted(storage, unit) is None
    assert verify_output(storage) == []


def test_a_worker_that_lost_to_half_a_unit_does_the_other_half(storage, unit, monkeypatch):
    """A racing owner commits two of three videos while this one does all of them."""
    half = make_unit(unit.videos[:2])
    rival = replace(half, unit_id=unit.unit_id)

    def commit_late(storage, commit):
        monkeypatch.setattr("sam2_pipeline.pipeline.work.commit_unit", commit_unit)
        process_work_unit(rival, _generator(), _job(storage), storage)
        return commit_unit(storage, commit)

    monkeypatch.setattr("sam2_pipeline.pipeline.work.commit_unit", commit_late)
    assert UnitWorker(FakeFactory(), _job(storage)).work(Task(unit)).error is None
    assert sorted(_rows(storage)) == ["a", "b", "c"]
    assert {problem.severity for problem in verify_output(storage)} == {"warning"}  # the loser's parts


def test_a_stopped_worker_begins_nothing(storage, unit):
    worker = UnitWorker(FakeFactory(), _job(storage))
    worker.stop()
    with pytest.raises(Cancelled):
        worker.work(Task(unit))
    assert list_commits(storage) == []
    assert list(storage.list("_run/attempts", recursive=True)) == []


def test_the_next_video_is_fetched_while_this_one_is_on_the_device(storage, unit, monkeypatch):
    """Two units at once in one worker, as Ray calls it; only one video at a time is tracked."""
    fetched, tracking, seen = set(), [], []

    def open_and_tell(url, **options):
        fetched.add(url[-5:])
        return open_video(url, **options)

    class Watching(FakeGenerator):
        def stream(self, source, prompts=None, **options):
            stream = super().stream(source, prompts, **options)
            tracking.append(source.url[-5:])
            deadline = time.monotonic() + 20
            while len(fetched) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append((list(tracking), sorted(fetched)))
            tracking.remove(source.url[-5:])
            return stream

    monkeypatch.setattr("sam2_pipeline.pipeline.video.open_video", open_and_tell)
    monkeypatch.setattr(FakeFactory, "build", lambda self, threads: (Watching({}, "", 0.0), self.describe()))
    worker = UnitWorker(FakeFactory(), _job(storage))
    tasks = [Task(make_unit([video])) for video in (unit.videos[0], unit.videos[2])]
    with ThreadPoolExecutor(2) as pool:
        assert all(outcome.error is None for outcome in pool.map(worker.work, tasks))
    assert [len(names) for names, _ in seen] == [1, 1] and seen[0][1] == ["a.mp4", "c.mp4"]


def test_a_suspect_works_alone():
    lanes, log = Lanes(2), []

    def visit(name, alone=False):
        with lanes.enter(alone=alone):
            log.append(f"+{name}")
            time.sleep(0.05)
            log.append(f"-{name}")

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(visit, number, alone=number % 3 == 1)
    for number in (1, 4, 7):
        assert log.index(f"-{number}") == log.index(f"+{number}") + 1


def test_a_cancelled_video_stops_at_its_next_frame(storage, unit):
    worker = VideoWorker("u", _generator(), _job(storage), None, {}, lambda *args: worker.cancelled.set())
    with pytest.raises(Cancelled):
        worker.process(unit.videos[0], Leash(None, Watched("a", "1", "marker")))


def test_a_bad_video_costs_its_own_row(storage, unit):
    seen = []
    result = process_work_unit(unit, _generator(), _job(storage), storage, notify=lambda *args: seen.append(args))
    rows = _rows(storage)
    assert [rows[name]["status"] for name in "abc"] == ["ok", "failed", "ok"]
    assert rows["b"]["error_type"] == "VideoError" and "b.mp4" in rows["b"]["error_message"]
    assert rows["b"]["masklet_count"] == rows["b"]["annotated_frame_count"] == 0
    ok = rows["a"]
    assert (ok["width"], ok["height"], ok["frame_count"], ok["codec"]) == (32, 24, 6, "mpeg4")
    assert (ok["masklet_count"], ok["annotated_frame_count"], ok["error_type"]) == (2, 6, None)
    assert (ok["config_hash"], ok["model"], ok["device"], ok["unit_id"]) == ("hash", "fake", "cpu", unit.unit_id)
    assert [failure.video_id for failure in result.failures] == ["b"]
    assert result.commit in list_commits(storage)
    assert verify_output(storage) == []
    assert ("a", 6, 6) in seen


def test_prompts_reach_their_videos_and_others_have_none(storage, unit):
    prompts = {"a": [Prompt(7, 0, [[3, 3]], [1])]}
    process_work_unit(unit, _generator(), _job(storage), storage, prompts=prompts)
    assert [row["object_id"] for row in MaskletDataset(storage.url).masklets("a").to_pylist()] == [7]
    row = _rows(storage)["c"]
    assert (row["status"], row["masklet_count"], row["annotated_frame_count"]) == ("ok", 0, 0)


def test_any_exception_of_one_video_is_its_own(storage, unit):
    process_work_unit(unit, _generator(a="raise"), _job(storage), storage)
    row = _rows(storage)["a"]
    assert (row["status"], row["error_type"]) == ("failed", "RuntimeError")
    assert row["error_message"] == "the stand-in was asked to fail"
    assert row["width"] == 32  # what was learnt before is kept


def test_a_full_disk_fails_the_attempt_and_leaves_no_trace(storage, unit):
    worker = UnitWorker(FakeFactory((("a", "disk-full"),)), _job(storage))
    outcome = worker.work(Task(unit))
    assert outcome.hopeless and "No space left" in outcome.error
    assert list_commits(storage) == []
    assert list(storage.list("_run/attempts", recursive=True)) == []


def test_a_committed_unit_is_not_done_again(storage, unit):
    first = process_work_unit(unit, _generator(), _job(storage), storage)
    outcome = UnitWorker(FakeFactory((("a", "raise"),)), _job(storage)).work(Task(unit))
    assert outcome.error is None and outcome.failures == ()
    assert list_commits(storage) == [first.commit]


def test_of_two_attempts_the_first_commit_stands(storage, unit):
    first = process_work_unit(unit, _generator(), _job(storage), storage)
    second = process_work_unit(unit, _generator(), _job(storage), storage)
    assert first.commit.attempt_id != second.commit.attempt_id
    assert list_commits(storage) == [first.commit]
    assert {problem.severity for problem in verify_output(storage)} == {"warning"}  # the loser's parts are orphans


def test_a_video_that_took_its_workers_down_is_given_up(storage, unit):
    for _ in range(3):
        _die(begin_attempt(storage, unit.unit_id), "c")
    process_work_unit(unit, _generator(), _job(storage), storage)
    row = _rows(storage)["c"]
    assert (row["status"], row["error_type"]) == ("failed", "WorkerDied")
    assert row["error_message"].startswith("3 attempts died")
    assert _rows(storage)["a"]["status"] == "ok"


def test_one_death_fewer_is_not_enough(storage, unit):
    for _ in range(2):
        _die(begin_attempt(storage, unit.unit_id), "c")
    process_work_unit(unit, _generator(), _job(storage), storage)
    assert _rows(storage)["c"]["status"] == "ok"


def test_limits_reach_the_decoder(storage, unit):
    process_work_unit(unit, _generator(), _job(storage, "limits.max_pixels=100"), storage)
    assert "100" in _rows(storage)["a"]["error_message"]


def test_a_worker_with_other_weights_does_not_work(storage, unit):
    job = _job(storage)
    with pytest.raises(CheckpointError, match="began with 000000000000"):
        job.on(replace(job.model, weights_sha256="1" * 64))
    outcome = UnitWorker(FakeFactory(weights="1" * 64), job).work(Task(unit))
    assert outcome.hopeless and "could not load the model" in outcome.error


def test_storage_trouble_is_not_the_videos_fault(storage, unit, monkeypatch):
    def refuse(*args):
        raise StorageError("the store is away")

    monkeypatch.setattr("sam2_pipeline.pipeline.video.open_video", lambda *args, **kwargs: refuse())
    with pytest.raises(StorageError, match="away"):
        process_work_unit(unit, _generator(), _job(storage), storage)
    assert list_commits(storage) == []


def test_attempts_are_numbered_and_counted(storage):
    first = begin_attempt(storage, "u")
    _die(first, "a")
    second = begin_attempt(storage, "u")
    assert second.deaths == {"a": [NO_REASON]} and second.marker != first.marker
    with second.working_on("b"):
        with second.working_on("c"):
            assert json.loads(storage.read_bytes(second.marker))["video_ids"] == ["b", "c"]
        assert json.loads(storage.read_bytes(second.marker))["video_ids"] == ["b"]
    with second.working_on("d"):
        assert begin_attempt(storage, "u").deaths == {"a": [NO_REASON], "d": [NO_REASON]}
    second.withdraw()
    assert begin_attempt(storage, "u").deaths == {"a": [NO_REASON]}


def test_an_attempt_that_died_between_videos_counts_against_none(storage):
    begin_attempt(storage, "u")
    assert begin_attempt(storage, "u").deaths == {}
