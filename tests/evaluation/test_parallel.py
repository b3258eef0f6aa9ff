"""Work in several processes ends when whoever asked for it does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LONG_S = 300
PROGRAM = f"""
import os, sys, time
from functools import partial
from pathlib import Path
from sam2_pipeline.evaluation.parallel import each

def wait(folder, name):
    Path(folder, f"{{os.getpid()}}.pid").touch()
    time.sleep({LONG_S})

if __name__ == "__main__":
    for _ in each(partial(wait, sys.argv[1]), ["a", "b", "c"], 2):
        raise SystemExit("none can end")
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_caller_leaves_no_process_at_work(number, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    pids = tmp_path / "pids"
    pids.mkdir()
    caller = subprocess.Popen([sys.executable, tmp_path / "program.py", pids], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(pids.iterdir())) < 2:
        assert time.monotonic() < deadline and caller.poll() is None
        time.sleep(0.05)
    workers = [int(path.stem) for path in pids.iterdir()]
    assert all(map(_alive, workers))
    caller.send_signal(number)
    assert caller.wait(20) != 0
    deadline = time.monotonic() + 20
    while any(map(_alive, workers)):
        assert time.monotonic() < deadline, "a worker outlives its caller"
        time.sleep(0.05)
