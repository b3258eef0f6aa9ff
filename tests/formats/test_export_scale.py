"""A hundred thousand masklets take no more memory to export than ten thousand. With numbers: ``pytest -m scale -rP``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mask_forms import SIZE, disc

from sam2_pipeline.formats.exporting import FORMATS
from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.schema import VIDEOS
from sam2_pipeline.masklets.work import Commit

ROOT = Path(__file__).parents[2]
EXPORT = """
import re, sys, time
from sam2_pipeline.formats.exporting import export
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage

tables, destination, format = sys.argv[1:]
started = time.process_time()
done = export(MaskletDataset(tables), Storage(destination), format)
peak_kb = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print(done.masklets, peak_kb / 1e3, time.process_time() - started)
"""
VIDEOS_A_UNIT, MASKLETS_A_VIDEO, FRAMES = 50, 50, 2

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads peak memory from /proc"),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Outputs of 10,000 and of 100,000 masklets, by their numbers."""
    folder = tmp_path_factory.mktemp("tables")
    return {count: write(folder / str(count), count) for count in (10_000, 100_000)}


def write(folder: Path, masklets: int) -> Path:
    storage, rles = Storage(folder), [disc(12, 4 + n % 24, 4) for n in range(24)]
    for unit in range(masklets // (VIDEOS_A_UNIT * MASKLETS_A_VIDEO)):
        ids = tuple(f"{unit:04}-{n:02}" for n in range(VIDEOS_A_UNIT))
        facts = {"status": "ok", "width": SIZE[1], "height": SIZE[0], "fps": 24.0, "frame_count": 5, "duration_s": 5 / 24}
        with UnitWriter(storage, f"u{unit}", "1", {}) as writer:
            for video_id in ids:
                with MaskSpool(video_id) as spool:
                    for n in range(MASKLETS_A_VIDEO):
                        for t in range(FRAMES):
                            spool.add(n, MaskletFrame(4 * t, t / 6, rles[(n + t) % 24], 0.9, 1.0, 0.9))
                    seeds = [MaskletSeed(n, "auto", Prompt(n, 0, [[9, 9]], [1])) for n in range(MASKLETS_A_VIDEO)]
                    counts = {"masklet_count": MASKLETS_A_VIDEO, "annotated_frame_count": FRAMES}
                    writer.add_video(dict.fromkeys(VIDEOS.names) | {"video_id": video_id} | facts | counts, spool, seeds)
            commit_unit(storage, Commit(f"u{unit}", "1", writer.finish(), ids, len(ids), 0))
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_memory_is_flat(format, tables, tmp_path):
    peaks = {}
    for count, folder in tables.items():
        command = [sys.executable, "-c", EXPORT, str(folder), str(tmp_path / str(count)), format]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        written, peaks[count], seconds = map(float, done.stdout.split())
        assert written == count
        print(f"{format}: {count:,} masklets, peak {peaks[count]:.0f} MB, {seconds:.0f} s of CPU time")
    assert peaks[100_000] < 1.1 * peaks[10_000]
