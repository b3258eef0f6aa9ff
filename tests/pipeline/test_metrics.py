"""What is counted, and that the dashboard shows what is counted."""

import json
import re
from pathlib import Path

from fakes import FakeFactory, write_clip

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.manifest import make_unit
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline.actor import Task, UnitWorker
from sam2_pipeline.pipeline.job import Job
from sam2_pipeline.pipeline.metrics import METRICS, Meter, RayMeter

DASHBOARD = Path(__file__).parents[2] / "configs" / "grafana_dashboard.json"


class Recorder(Meter):
    def __init__(self):
        self.sums: dict[tuple, float] = {}

    def add(self, name, value=1.0, **tags):
        assert METRICS[name].kind == "counter" and set(tags) == set(METRICS[name].tags)
        key = (name, *tags.values())
        self.sums[key] = self.sums.get(key, 0.0) + value


def _job(tmp_path) -> Job:
    return Job(JobConfig.load(options={"output": str(tmp_path / "out")}), "hash", "1.0", FakeFactory().describe())


def test_a_worker_counts_what_it_commits(tmp_path):
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", frames=5)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    meter = Recorder()
    worker = UnitWorker(FakeFactory(delay_s=0.01), _job(tmp_path), meter=meter)
    task = Task(make_unit([VideoRef(name, str(tmp_path / f"{name}.mp4")) for name in "abc"]))
    assert worker.work(task).error is None
    seconds = {key[1]: meter.sums.pop(key) for key in list(meter.sums) if key[0] == "sam2_stage_seconds_total"}
    assert meter.sums == {
        ("sam2_videos_total", "ok"): 2,
        ("sam2_videos_total", "failed"): 1,
        ("sam2_failures_total", "VideoError"): 1,
        ("sam2_masklets_total",): 4,
        ("sam2_frames_total",): 10,
    }
    assert set(seconds) == {"fetch", "wait", "track", "write"}
    assert 0.1 <= seconds["track"] < 60 and seconds["write"] > 0
    worker.work(task)
    assert meter.sums["sam2_videos_total", "ok"] == 2  # committed before: nothing is counted twice


def test_ray_takes_every_metric(tmp_path):
    meter = RayMeter(str(tmp_path))
    for name, metric in METRICS.items():
        (meter.add if metric.kind == "counter" else meter.set)(name, 1.0, **dict.fromkeys(metric.tags, "x"))
    meter.add("sam2_masklets_total", 0)  # which Ray itself would refuse


def test_the_dashboard_shows_every_metric_and_no_other():
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    assert {name for query in queries for name in re.findall(r"ray_(sam2_\w+)", query)} == set(METRICS)
    labels = {name for query in queries for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(", ")}
    assert labels <= {tag for metric in METRICS.values() for tag in metric.tags} | {"NodeAddress"}  # which Ray adds
