"""Host memory of a worker that lives for many videos."""

import ctypes
import sys

import pyarrow as pa


def give_back() -> None:
    """Hand memory that is free back to the system: allocators would keep what the longest video so far has needed."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc has it, others do not
            libc.malloc_trim(0)
