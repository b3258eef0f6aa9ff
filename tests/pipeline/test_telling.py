"""Every video is told of once, also where its worker could not say so."""

import io
import json

from fakes import FakeFactory, write_clip

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.manifest import make_unit, read_manifest
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import WorkUnit
from sam2_pipeline.pipeline.actor import Outcome, Task
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.pipeline.telling import Teller


def _teller(output: Storage, units: list[WorkUnit]) -> tuple[Teller, io.StringIO]:
    said = io.StringIO()
    return Teller(Reporter("json", said), output, [Task(unit) for unit in units]), said


def _told(said: io.StringIO) -> dict[str, dict]:
    events = [json.loads(line) for line in said.getvalue().splitlines()]
    by_video = {event["video_id"]: event for event in events}
    assert len(by_video) == len(events)
    return by_video


def test_what_the_store_says_is_what_the_workers_say(tmp_path):
    for name in "abc":
        write_clip(tmp_path / "in" / f"{name}.mp4")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    output, first = Storage(tmp_path / "out"), io.StringIO()
    options = {"input": str(tmp_path / "in"), "output": output.url, "ray.address": "off", "units.videos_per_unit": 2}
    run_job(JobConfig.load(options=options), factory=FakeFactory(), reporter=Reporter("json", first))
    units = read_manifest(output)
    never = make_unit(units[0].videos[:1])  # was not committed, so nothing is said of it

    teller, said = _teller(output, [*units, never])
    teller.rest()
    reported = [json.loads(line) for line in first.getvalue().splitlines() if "video_" in line]
    told = _told(said)
    assert {event["video_id"]: event | {"at": ""} for event in reported} == {name: one | {"at": ""} for name, one in told.items()}
    assert sorted(told) == ["a", "b", "broken", "c"] and told["broken"]["event"] == "video_failed"
    teller.rest()
    assert len(_told(said)) == 4

    teller, said = _teller(output, units)
    teller.unit(Outcome(units[0].unit_id, 2))  # by a worker that found it committed
    assert sorted(_told(said)) == sorted(video.video_id for video in units[0].videos)
