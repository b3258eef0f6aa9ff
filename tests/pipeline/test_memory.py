"""A long video takes no more memory than a short one, from its packets to its committed parts.

The worker holds a real model and has looked at a picture with it, but a stand-in makes the masks: an hour of video would take
a CPU days. That tracking itself keeps a bounded number of frames is tested in tests/segment.
"""

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import videos

ROOT = Path(__file__).parents[2]
WORKER = """
import re, sys
import sam2_pipeline, torch
from fakes import FakeFactory
from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.manifest import make_unit
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline.actor import Task, UnitWorker
from sam2_pipeline.pipeline.job import Job

video, output = sys.argv[1:]
model = sam2_pipeline.build_model("sam2.1_hiera_tiny", image_size=512)
with torch.inference_mode():
    model.encode_frames(torch.zeros(1, 3, 512, 512))
factory = FakeFactory()
worker = UnitWorker(factory, Job(JobConfig.load(options={"output": output}), "hash", "1.0", factory.describe()))
outcome = worker.work(Task(make_unit([VideoRef("video", video, 1000)])))
assert outcome.error is None and not outcome.failures, outcome
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads peak memory from /proc")


def _looped(source: Path, target: Path, times: int) -> Path:
    """The same packets again and again, without decoding them."""
    with av.open(str(source)) as original:
        stream = original.streams.video[0]
        packets = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in original.demux(stream) if packet.size]
        frames = len(packets)
        step = packets[1][1] - packets[0][1]
        with av.open(str(target), "w") as output:
            copy = output.add_stream_from_template(stream)
            for number in range(times * frames):
                data, _, key = packets[number % frames]
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, key
                packet.pts = packet.dts = number * step
                output.mux(packet)
    return target


def _peak_kb(video: Path, output: Path) -> int:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", WORKER, str(video), str(output)]
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def _compare(tmp_path: Path, height: int, width: int, short: int, long: int) -> None:
    """Peaks of two videos of so many seconds, at 24 frames a second."""
    options = {"preset": "ultrafast", "bf": "0"}
    source = videos.write_video(tmp_path / "s.mp4", videos.moving_shapes(48, height, width), fps=24, options=options)
    peaks = {}
    for seconds in (short, long):
        video = _looped(source, tmp_path / f"{seconds}.mp4", seconds // 2)
        peaks[seconds] = _peak_kb(video, tmp_path / f"out-{seconds}")
    print(f"peak of {short} s: {peaks[short]} kB, of {long} s: {peaks[long]} kB")
    assert peaks[long] <= 1.05 * peaks[short]


def test_ten_minutes_take_no_more_memory_than_one(tmp_path):
    _compare(tmp_path, 90, 160, 60, 600)


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_an_hour_of_720p_takes_no_more_memory_than_a_minute(tmp_path):
    _compare(tmp_path, 720, 1280, 60, 3600)
