"""The background reader: bounded, in order, and gone when it is no longer wanted."""

import gc
import subprocess
import sys
import threading
import time

import pytest

from sam2_pipeline.io.readahead import ReadAhead


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sam2-read-ahead"]


class Source:
    """Counts what it has given and notices being closed."""

    def __init__(self, count, fail_at=None):
        self.count, self.fail_at, self.given, self.closed = count, fail_at, 0, False

    def __call__(self):
        try:
            for number in range(self.count):
                if number == self.fail_at:
                    raise ValueError("broken source")
                self.given += 1
                yield number
        finally:
            self.closed = True


def test_items_in_order_then_the_end_stays_the_end():
    reader = ReadAhead(Source(50), 3)
    assert list(reader) == list(range(50))
    assert list(reader) == []
    assert not alive()


def test_never_further_ahead_than_the_depth():
    source = Source(100)
    reader = ReadAhead(source, 3)
    assert source.given == 0  # nothing happens before the first item is wanted
    for taken in range(1, 5):
        next(reader)
        time.sleep(0.02)
        assert source.given <= taken + 3 + 1  # on the belt, and in the producer's hand
    reader.close()
    assert source.closed


def test_an_error_comes_after_the_items_before_it():
    reader = ReadAhead(Source(10, fail_at=2), 4)
    assert [next(reader), next(reader)] == [0, 1]
    with pytest.raises(ValueError, match="broken source"):
        next(reader)
    assert not alive()
    assert list(reader) == []


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_forgetting_it_half_way_stops_the_thread(taken):
    source = Source(10**9)
    reader = ReadAhead(source, 2)
    for _ in range(taken):
        next(reader)
    del reader
    gc.collect()
    assert not alive()
    assert source.closed == (taken > 0)  # a source that was never begun has nothing to close


def test_closing_with_a_reason_raises_it():
    reader = ReadAhead(Source(10**9), 2)
    next(reader)
    reader.close(RuntimeError("no more of this"))
    with pytest.raises(RuntimeError, match="no more of this"):
        next(reader)


def test_the_interpreter_can_exit_in_the_middle():
    script = """
from sam2_pipeline.io.readahead import ReadAhead
def source():
    try:
        while True:
            yield 1
    finally:
        print("source closed", flush=True)
readers = [ReadAhead(source, 2) for _ in range(4)]
for reader in readers:
    next(reader)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.count("source closed"), done.stderr) == (0, 4, "")
