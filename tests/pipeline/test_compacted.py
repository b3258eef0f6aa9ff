"""An output whose parts were merged is resumed, retried, and told of like any other."""

import pandas as pd
import pytest
from fakes import FakeFactory, write_clip

from sam2_pipeline import cli
from sam2_pipeline.config import JobConfig
from sam2_pipeline.io import compact as module
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.compact import compact
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter, Snapshot
from sam2_pipeline.pipeline.summary import read_status, write_progress


@pytest.fixture
def inputs(tmp_path):
    for name in ("a", "sub/b", "c"):
        write_clip(tmp_path / "in" / f"{name}.mp4")
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    return tmp_path / "in"


@pytest.fixture
def output(inputs, tmp_path):
    """Four units of one video, one of which failed."""
    output = Storage(tmp_path / "out")
    assert _run(inputs, output).failed == 1
    return output


def _run(inputs, output, events=(), **options):
    config = JobConfig.load(options={"input": str(inputs), "output": output.url, "ray.address": "off"})
    return run_job(config, factory=FakeFactory(events), reporter=Reporter("quiet"), **options)


NOTHING_AGAIN = tuple((name, "raise") for name in ("a.mp4", "b.mp4", "c.mp4"))


def test_a_run_goes_on_where_it_was(inputs, output):
    compact(output)
    status = read_status(output, {})
    assert (status.videos, status.done, status.left, status.failed) == (4, 4, 0, 1)
    write_clip(inputs / "d.mp4")
    summary = _run(inputs, output, NOTHING_AGAIN)
    assert (summary.videos, summary.ok, summary.failed) == (5, 4, 1)
    assert len(list_commits(output)) == 2 and verify_output(output) == []
    compact(output)
    assert len(list_commits(output)) == 1 and verify_output(output) == []
    assert len(pd.read_parquet(f"{output.url}/masks")) == 4 * 12


@pytest.mark.parametrize("merged", [["a", "bad", "c", "sub/b"], ["bad", "bad2"]])
def test_failed_videos_are_retried(inputs, output, merged):
    if "bad2" in merged:  # a merged commit of failures alone
        (inputs / "bad2.mp4").write_bytes(b"no video")
        _run(inputs, output)
    bad = [commit for commit in list_commits(output) if set(commit.video_ids) <= set(merged)]
    module._merge(output, bad)
    module.settle(output)
    for name in inputs.glob("bad*"):
        write_clip(name)
    summary = _run(inputs, output, NOTHING_AGAIN, retry_failed=True)
    assert summary.failed == 0 and summary.ok == summary.videos
    assert verify_output(output) == []


def test_a_run_ends_what_an_interrupted_compact_began(inputs, output):
    module._merge(output, list_commits(output))
    write_clip(inputs / "bad.mp4")
    summary = _run(inputs, output, NOTHING_AGAIN, retry_failed=True)
    assert (summary.videos, summary.failed) == (4, 0)
    assert verify_output(output) == [] and len(list_commits(output)) == 2
    assert len(pd.read_parquet(f"{output.url}/masks")) == 4 * 12


def test_the_verb(output, inputs, capsys):
    assert cli.main(["compact", output.url, "--grace", "0"]) == 0
    assert "4 commits became 1" in capsys.readouterr().out
    assert cli.main(["verify", output.url]) == 0
    assert cli.main(["compact", output.url, "--target-mb", "0"]) == 2


def test_not_while_a_run_is_at_work(output, inputs, capsys):
    output.delete([f"_run/commits/unit-{list_commits(output)[0].unit_id}.json"])
    write_progress(output, Snapshot(3, 0, 4, 10, 5.0, 2.0, 1.0))
    assert cli.main(["compact", output.url]) == 2
    assert "a run is at work there" in capsys.readouterr().err
    assert len(list_commits(output)) == 3 and read_status(output, {}).running
