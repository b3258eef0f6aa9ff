"""Compiles `read_maps.c` for this machine's processor, once, and loads it.

The compiled file lives in the cache, under a name that changes with the source, the compiler and the processor.
``$SAM2_PIPELINE_NATIVE=0`` leaves it alone.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from sam2_pipeline.model.download import cache_directory

SOURCE = Path(__file__).with_name("read_maps.c")
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-std=gnu11")
_TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Native:
    """The loaded library, or None and the reason why there is none.

    ``parallel`` is the address of ``GOMP_parallel`` in the OpenMP that PyTorch uses, if it is found: threads of our own would
    find the processors taken, since those of OpenMP go on spinning for a while when their work is done.
    """

    library: ctypes.CDLL | None
    reason: str = ""
    parallel: int | None = None


@cache
def native() -> Native:
    """The library, compiled if the cache does not have it. Asked once per process; why there is none is logged."""
    if os.environ.get("SAM2_PIPELINE_NATIVE", "1") == "0":
        return Native(None, "switched off by SAM2_PIPELINE_NATIVE=0")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return _without("no C compiler was found")
    try:
        return Native(_load(_compiled(compiler)), parallel=_parallel())
    except subprocess.CalledProcessError as error:
        return _without(f"{compiler} failed: {error.stderr.decode(errors='replace').strip()[:200]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _without(str(error))


def _without(reason: str) -> Native:
    logger.info("memory attention runs in its plain form, up to three times slower on this CPU: %s", reason)
    return Native(None, reason)


def _compiled(compiler: str) -> Path:
    """The compiled library's file; written whole or not at all, so that processes may compile side by side."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=_TIMEOUT_S).stdout
    key = hashlib.sha256(SOURCE.read_bytes() + version + " ".join((*_FLAGS, _processor())).encode()).hexdigest()[:16]
    target = cache_directory() / "native" / f"read_maps-{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            command = [compiler, *_FLAGS, "-o", str(made), str(SOURCE)]
            subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)
            os.replace(made, target)
    return target


def _processor() -> str:
    """What ``-march=native`` depends on: a cache may be shared by machines that are not alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return " ".join((platform.system(), platform.machine(), platform.processor(), *sorted(set(told))))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.scratch_floats.argtypes, library.scratch_floats.restype = [integer] * 4, long
    library.read_maps.argtypes = [pointer, long, long, long, *[integer] * 5, *[pointer] * 12, integer, pointer]
    library.read_maps.restype = None
    return library


def _parallel() -> int | None:
    """Where `Native.parallel` is. LLVM's and Intel's OpenMP have this function of GCC's, too."""
    beside_torch = sorted(str(path) for path in (Path(torch.__file__).parent / "lib").glob("lib*omp*"))
    for name in (*beside_torch, "libgomp.so.1", "libiomp5.so", "libomp.so.5", "libomp.so"):
        try:
            loaded = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)  # only what is in use already
            return ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
