"""`examine`: is this machine fit to run? Each check says what it found and, where that is bad, what would mend it."""

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from sam2_pipeline.errors import PipelineError

Verdict = Literal["ok", "warn", "bad"]
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
GB = 1e9


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: ``bad`` means that runs will fail, ``warn`` that some may be slow or fail."""

    subject: str
    verdict: Verdict
    finding: str


def examine(output: str | None = None, storage_options: Mapping[str, Any] | None = None) -> list[Check]:
    """Every check, in order; ``output`` adds one that results can be written there. Nothing stays behind."""
    checks: list[tuple[str, Callable[[], tuple[Verdict, str]]]] = [
        ("python", _python),
        ("processor", _processor),
        ("device", _device),
        ("C compiler", _native),
        ("ray", _ray),
        ("video decoders", _decoders),
        ("run-length masks", _masks),
        ("temporary space", _temporary_space),
        ("shared memory", _shared_memory),
        ("open files", _open_files),
        ("object stores", _object_stores),
    ]
    if output:
        checks.append(("output", lambda: _output(output, dict(storage_options or {}))))
    return [_check(subject, function) for subject, function in checks]


def _check(subject: str, function: Callable[[], tuple[Verdict, str]]) -> Check:
    try:
        return Check(subject, *function())
    except PipelineError as error:
        return Check(subject, "bad", str(error))
    except Exception as error:  # a broken installation can fail in any way
        return Check(subject, "bad", f"{type(error).__name__}: {error}")


def _python() -> tuple[Verdict, str]:
    return "ok", f"Python {platform.python_version()}, {platform.platform()}"


def _processor() -> tuple[Verdict, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    verdict: Verdict = "warn" if memory < 8 else "ok"
    return verdict, f"{cores} cores, {memory:.0f} GB of memory" + ("; 8 GB or more are advised" if memory < 8 else "")


def _device() -> tuple[Verdict, str]:
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory / GB
        torch.ones(8, device="cuda").sum().item()
        return "ok", f"{version}, {len(names)} x {names[0]} ({memory:.0f} GB)"
    if torch.backends.mps.is_available():
        return "ok", f"{version}, Apple GPU (MPS)"
    return "warn", f"{version}, no GPU: runs use the CPU, which is many times slower"


def _native() -> tuple[Verdict, str]:
    from sam2_pipeline.model.native.library import native

    if native().library is None:
        return "warn", f"memory attention runs in its plain form ({native().reason}); on a CPU that is up to three times slower"
    return "ok", "memory attention is compiled for this processor"


def _ray() -> tuple[Verdict, str]:
    import ray.data  # noqa: F401  the part that runs need

    return "ok", f"Ray {metadata.version('ray')}"


def _decoders() -> tuple[Verdict, str]:
    import av

    missing = []
    for name in DECODERS:
        try:
            av.Codec(name, "r")
        except ValueError:
            missing.append(name)
    if missing:
        return "warn", f"PyAV {av.__version__} cannot decode {', '.join(missing)}"
    return "ok", f"PyAV {av.__version__}: {', '.join(DECODERS)}"


def _masks() -> tuple[Verdict, str]:
    import numpy as np

    from sam2_pipeline.masklets import rle

    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:6] = True
    if not np.array_equal(rle.decode(rle.encode(mask)), mask):
        return "bad", "pycocotools gives back another mask than it was given; reinstall it"
    return "ok", f"pycocotools {metadata.version('pycocotools')}"


def _temporary_space() -> tuple[Verdict, str]:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / GB
    verdict: Verdict = "bad" if free < 1 else "warn" if free < 10 else "ok"
    return verdict, f"{free:.0f} GB free in {folder}" + ("; set TMPDIR to a larger disk" if free < 10 else "")


def _shared_memory() -> tuple[Verdict, str]:
    if not os.path.isdir("/dev/shm"):
        return "ok", "none, Ray uses files"
    free = shutil.disk_usage("/dev/shm").free / GB
    return ("warn" if free < 0.1 else "ok"), f"{free:.1f} GB free in /dev/shm"


def _open_files() -> tuple[Verdict, str]:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < 4096:
        return "warn", f"at most {limit}; Ray wants 4096 or more (ulimit -n 65536)"
    return "ok", "unlimited" if limit < 0 else f"at most {limit}"


def _object_stores() -> tuple[Verdict, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "the default endpoint")
    return "ok", f"s3fs {metadata.version('s3fs')}, {endpoint}"


def _output(url: str, storage_options: dict[str, Any]) -> tuple[Verdict, str]:
    from sam2_pipeline.io.storage import Storage

    storage = Storage(url, storage_options)
    storage.check_exclusive()
    return "ok", f"{storage.url} can be written to, and keeps two writers apart"
