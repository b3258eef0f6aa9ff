"""What the pipeline costs beside the model: time per unit, and the driver's memory. Figures mean something on a quiet machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import write_clip

ROOT = Path(__file__).parents[2]
DRIVER = """
import re, sys, time
from fakes import FakeFactory
from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline.driver import run_job

folder, output, seconds_a_frame = sys.argv[1:]
options = {"input": folder, "output": output, "ray.address": "local", "ray.workers": 2, "units.videos_per_unit": 1}
started = time.monotonic()
summary = run_job(JobConfig.load(options=options), factory=FakeFactory(delay_s=float(seconds_a_frame)))
wall_s = time.monotonic() - started
peak_kb = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print(wall_s, peak_kb / 1e3, summary.ok)
"""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.scale,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads peak memory from /proc"),
]


def _run(tmp_path: Path, videos: int, frames: int, seconds_a_frame: float) -> tuple[float, float]:
    """Wall seconds, start of Ray included, and the driver's peak megabytes, of a run over copies of one clip on two workers."""
    first = tmp_path / "in" / "00000.mp4"
    write_clip(first, frames=frames)
    for number in range(1, videos):
        os.link(first, first.with_name(f"{number:05}.mp4"))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "in"), str(tmp_path / "out"), str(seconds_a_frame)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    wall_s, peak_mb, ok = map(float, done.stdout.split())
    assert ok == videos
    print(f"{videos} videos: {wall_s:.1f} s, driver {peak_mb:.0f} MB")
    return wall_s, peak_mb


def test_a_thousand_videos_cost_five_percent_more_than_the_model(tmp_path):
    """Videos of 1.6 s, little for a model, so that the 15 s of Ray's start and end on a busy machine do not hide the rest."""
    wall_s, _ = _run(tmp_path, 1000, frames=10, seconds_a_frame=0.16)
    assert wall_s <= 1.05 * 1000 * 10 * 0.16 / 2


def test_ten_thousand_units_fit_the_driver(tmp_path):
    _, peak_mb = _run(tmp_path, 10_000, frames=1, seconds_a_frame=0.0)
    assert peak_mb < 500
