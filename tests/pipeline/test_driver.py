"""Whole runs in one process: what is written, resumed, refused and retried."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from fakes import FakeFactory, write_clip

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.manifest import read_manifest
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.pipeline.attempts import begin_attempt
from sam2_pipeline.pipeline.driver import RunError, run_job
from sam2_pipeline.pipeline.estimate import estimate
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.pipeline.retry import forget_failures
from sam2_pipeline.pipeline.summary import read_status


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    for name in ("a", "sub/b", "c"):
        write_clip(folder / f"{name}.mp4")
    return folder


@pytest.fixture
def output(tmp_path):
    return Storage(tmp_path / "out")


def _run(inputs, output, /, *overrides, factory=None, **options):
    given = {"input": str(inputs), "output": output.url, "ray.address": "off"} | options
    return run_job(
        JobConfig.load(overrides=overrides, options=given), factory=factory or FakeFactory(), reporter=Reporter("quiet")
    )


def test_a_retry_that_is_refused_forgets_nothing(inputs, output):
    (inputs / "b.mp4").write_bytes(b"no video")
    _run(inputs, output)
    config = JobConfig.load(options={"input": str(inputs), "output": output.url, "ray.address": "off"})
    with pytest.raises(ConfigError, match="weights"):
        run_job(config, factory=FakeFactory(weights="1" * 64), reporter=Reporter("quiet"), retry_failed=True)
    assert read_status(output, {}).failed == 1


def _tables(output) -> dict[str, pd.DataFrame]:
    return {table: pd.read_parquet(f"{output.url}/{table}") for table in ("videos", "masklets", "masks")}


def _files(output) -> dict[str, bytes]:
    return {name: output.read_bytes(name) for name, _ in output.list(recursive=True)}


def test_a_run_writes_the_three_tables_and_its_record(inputs, output):
    summary = _run(inputs, output)
    tables = _tables(output)
    assert sorted(tables["videos"].video_id) == ["a", "c", "sub/b"]
    assert (summary.videos, summary.ok, summary.failed, summary.masklets, summary.masks) == (3, 3, 0, 6, 36)
    assert summary.exit_code == 0 and summary.annotated_frames == 18
    assert len(tables["masks"]) == 36
    run = json.loads(output.read_bytes("_run/run.json"))
    assert run["config_hash"] == tables["videos"].config_hash[0] and run["input"] == str(inputs)
    assert json.loads(output.read_bytes("_run/summary.json"))["masklets"] == 6
    assert verify_output(output) == []
    assert list(output.list("_run/attempts", recursive=True)) == []


def test_a_second_run_does_nothing(inputs, output):
    _run(inputs, output)
    before = _files(output)
    summary = _run(inputs, output, factory=FakeFactory((("mp4", "raise"),)))
    assert _files(output) == before
    assert summary.failed == 0 and summary.frames_this_run == 0


def test_an_interrupted_run_resumes_and_ends_the_same(inputs, output, tmp_path, monkeypatch):
    class Interrupting(FakeFactory):
        def build(self, threads=None):
            generator, facts = super().build(threads)
            return _StopAt(generator, "c.mp4"), facts

    with pytest.raises(KeyboardInterrupt):
        _run(inputs, output, factory=Interrupting())
    done = {commit.unit_id for commit in list_commits(output)}
    assert len(done) < 3
    assert list(output.list("_run/attempts", recursive=True)) == [] or done
    _run(inputs, output)
    other = Storage(tmp_path / "other")
    _run(inputs, other)
    for table, frame in _tables(output).items():
        keys = [key for key in ("video_id", "masklet_id", "frame_index") if key in frame]
        drop = ["wall_s"] if table == "videos" else []
        mine, theirs = (f.sort_values(keys).drop(columns=drop).reset_index(drop=True) for f in (frame, _tables(other)[table]))
        pd.testing.assert_frame_equal(mine, theirs)


class _StopAt:
    def __init__(self, generator, name):
        self._generator, self._name = generator, name

    @property
    def frame_size(self):
        return self._generator.frame_size

    def stream(self, source, prompts=None, *, annotate_fps=None):
        if self._name in source.url:
            raise KeyboardInterrupt
        return self._generator.stream(source, prompts, annotate_fps=annotate_fps)


def test_an_interrupt_says_nothing_against_the_video(inputs, output):
    class Interrupting(FakeFactory):
        def build(self, threads=None):
            generator, facts = super().build(threads)
            return _StopAt(generator, "a.mp4"), facts

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            _run(inputs, output, factory=Interrupting())
    assert _run(inputs, output).failed == 0


@pytest.mark.parametrize(
    ("overrides", "factory", "message"),
    [
        (["generate.points_per_side=4"], None, "generate.points_per_side is 32 there and 4 here"),
        (["annotate.fps=6"], None, "annotate.fps is None there and 6.0 here"),
        ([], FakeFactory(weights="1" * 64), "was made with weights 000000000000 .fake., this run has 111111111111"),
    ],
)
def test_another_configuration_is_refused_and_nothing_touched(inputs, output, overrides, factory, message):
    _run(inputs, output)
    before = _files(output)
    with pytest.raises(ConfigError, match=message):
        _run(inputs, output, *overrides, factory=factory)
    assert _files(output) == before


def test_another_input_is_refused(inputs, output):
    _run(inputs, output)
    with pytest.raises(ConfigError, match="choose another output"):
        _run(inputs / "sub", output)


def test_a_folder_with_other_files_is_refused(inputs, output):
    output.write_bytes("videos/holiday.mp4", b"precious")
    with pytest.raises(ConfigError, match=r"holiday\.mp4 was not written by a run"):
        _run(inputs, output)
    assert output.read_bytes("videos/holiday.mp4") == b"precious"


def test_a_missing_input_writes_nothing(tmp_path, output):
    with pytest.raises(ConfigError, match="absent"):
        _run(tmp_path / "absent", output)
    assert not output.exists("_run/run.json") and list(output.list()) == []


def test_settings_of_speed_may_change_between_runs(inputs, output):
    _run(inputs, output, max_videos=1)
    assert _run(inputs, output, "tracking.row_batch=2", "units.videos_per_unit=5").videos == 3


def test_videos_that_are_added_later_are_taken_up(inputs, output):
    _run(inputs, output)
    write_clip(inputs / "d.mp4")
    assert _run(inputs, output, factory=FakeFactory((("a.mp4", "raise"),))).ok == 4
    assert len(read_manifest(output)) == 4


def test_failed_videos_are_listed_and_retried(inputs, output):
    (inputs / "b.mp4").write_bytes(b"no video")
    first = _run(inputs, output, "units.videos_per_unit=2")
    assert (first.exit_code, first.failed) == (3, 1)
    assert [failure.video_id for failure in first.failures] == ["b"]
    write_clip(inputs / "b.mp4")
    kept = {name: data for name, data in _files(output).items() if name.startswith("masks/")}
    assert forget_failures(output) == ["b"]
    assert read_status(output, {}).left == 1
    second = _run(inputs, output, "units.videos_per_unit=2", factory=FakeFactory((("a.mp4", "raise"), ("c.mp4", "raise"))))
    assert (second.exit_code, second.videos, second.failed) == (0, 4, 0)
    assert kept.items() <= _files(output).items()
    assert sorted(_tables(output)["videos"].video_id) == ["a", "b", "c", "sub/b"]
    assert verify_output(output) == []


def test_a_video_that_fails_again_can_be_retried_again(inputs, output):
    (inputs / "b.mp4").write_bytes(b"no video")
    for _ in range(3):
        assert _run(inputs, output).failed == 1
        assert forget_failures(output) == ["b"]
    assert _run(inputs, output).failed == 1
    assert verify_output(output) == []


def test_retry_forgives_the_deaths_of_workers(inputs, output):
    _run(inputs, output, max_videos=1)
    assert forget_failures(output) == []
    unit = read_manifest(output)[0]
    output.delete([f"_run/commits/unit-{unit.unit_id}.json"])
    for _ in range(3):
        begin_attempt(output, unit.unit_id).working_on("a").__enter__()
    assert _run(inputs, output, max_videos=1).failures[0].error_type == "WorkerDied"
    assert forget_failures(output) == ["a"]
    assert _run(inputs, output, max_videos=1).failed == 0


def test_a_hopeless_error_ends_the_run_which_can_be_resumed(inputs, output):
    with pytest.raises(RunError, match="No space left"):
        _run(inputs, output, factory=FakeFactory((("c.mp4", "disk-full"),)))
    assert _run(inputs, output).ok == 3


def test_status_and_plan_from_the_store(inputs, output):
    config = JobConfig.load(options={"input": str(inputs), "output": output.url})
    before = estimate(config)
    assert (before.videos, before.to_do, before.units, before.unreadable) == (3, 3, 3, 0)
    assert before.hours * 3600 == pytest.approx(1.5)
    assert list(output.list(recursive=True)) == []
    _run(inputs, output, max_videos=2)
    _run(inputs, output)
    status = read_status(output, {})
    assert (status.videos, status.done, status.left, status.running) == (3, 3, 0, False)
    assert estimate(config).to_do == 0


def _prompts_file(tmp_path, *lines):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return {"prompts.file": str(file)}


GOOD = {"video_id": "a", "object_id": 7, "frame_index": 2, "points": [[3, 3]], "labels": [1]}


def test_prompts_are_tracked(inputs, output, tmp_path):
    summary = _run(inputs, output, **_prompts_file(tmp_path, GOOD, GOOD | {"object_id": 8, "frame_index": 0}))
    assert summary.masklets == 2 and summary.ok == 3
    masklets = _tables(output)["masklets"]
    assert sorted(masklets.object_id) == [7, 8] and set(masklets.video_id) == {"a"}


@pytest.mark.parametrize(
    "bad",
    [
        {"video_id": "nowhere"},
        {"frame_index": 6},
        {"points": [[32, 3]]},
        {"labels": [2]},
        {"points": [], "labels": []},
    ],
)
def test_a_faulty_prompt_is_named_or_skipped(inputs, output, tmp_path, bad):
    prompts = _prompts_file(tmp_path, GOOD, GOOD | {"object_id": 9} | bad)
    with pytest.raises(ConfigError, match="line 2"):
        _run(inputs, output, **prompts)
    assert list(output.list(recursive=True)) == []
    assert _run(inputs, output, "prompts.on_error=skip", **prompts).masklets == 1


def test_prompts_of_an_unreadable_video_cost_its_row_only(inputs, output, tmp_path):
    (inputs / "bad.mp4").write_bytes(b"no video")
    summary = _run(inputs, output, **_prompts_file(tmp_path, GOOD, GOOD | {"video_id": "bad"}))
    assert (summary.failed, summary.masklets) == (1, 1)


def test_other_prompts_are_another_configuration(inputs, output, tmp_path):
    _run(inputs, output, **_prompts_file(tmp_path, GOOD))
    with pytest.raises(ConfigError, match="another prompts file"):
        _run(inputs, output, **_prompts_file(tmp_path, GOOD | {"object_id": 8}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray.workers": 2}, "without Ray there is one"),
        ({"input": ""}, "needs an INPUT and an OUTPUT"),
        ({"ray.address": "127.0.0.1:9"}, "--ray 127.0.0.1:9: no Ray answers there"),
        ({"output": "memory://x", "ray.address": "local"}, "memory:// exists in one process only"),
    ],
)
def test_impossible_engines_are_refused(inputs, output, options, message):
    with pytest.raises(ConfigError, match=message):
        _run(inputs, output, **options)


def test_credentials_are_written_nowhere(inputs, output):
    config = JobConfig.load(options={"input": str(inputs), "output": output.url, "ray.address": "off"})
    run_job(replace(config, storage_options={"secret": "hunter2"}), factory=FakeFactory(), reporter=Reporter("quiet"))
    assert not any(b"hunter2" in data for data in _files(output).values())
