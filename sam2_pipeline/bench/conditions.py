"""Under which conditions contestants run: the device, the precision, and what follows from them for clocks, memory and gates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from sam2_pipeline.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CPU = torch.device("cpu")
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Conditions:
    """The same for everyone who takes turns. ``dtype`` bfloat16 is autocast, the weights staying in float32."""

    device: torch.device = _CPU
    dtype: torch.dtype = torch.float32

    @classmethod
    def chosen(cls, device: str, dtype: str | None) -> Conditions:
        """Of the command line; without a dtype, what `load_model` would compute in there.

        Raises:
            ConfigError: a device that is neither the CPU nor CUDA, or CUDA that is not there.
        """
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise ConfigError(f"device is {device!r}, expected cpu, cuda or cuda:N")
        if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {device!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
            )
        return cls(torch.device(device), DTYPES[dtype or ("bfloat16" if kind == "cuda" else "float32")])

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def exact(self) -> bool:
        return self.dtype == torch.float32

    @property
    def same_mask(self) -> float:
        """Mean IoU of a frame's masks from which two implementations count as one. With random weights bfloat16 alone takes each
        to 0.98 of its own float32, so that two of them may be twice as far apart."""
        return 0.999 if self.exact else 0.95

    @property
    def same_proposal(self) -> float:
        """The same of automatic masks. They are few with random weights: bfloat16 was seen to take one to 0.94 of itself."""
        return 0.999 if self.exact else 0.9

    @property
    def same_embedding(self) -> float:
        """Relative difference below which two image encoders count as one."""
        return 1e-4 if self.exact else 0.05

    @property
    def same_count(self) -> float:
        """Share by which numbers of automatic masks may differ: rounding decides about those whose score is at the threshold."""
        return 0.0 if self.exact else 0.1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, everyone computes so. One autocast context around all of it, as in the reference's notebooks, keeps the
        weights that it cast; float32 is float32, without TF32."""
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = before and not self.exact
        try:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=not self.exact):
                yield
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def wait(self) -> None:
        """Until the device has done all that it was told: only then is a clock read."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def peak_memory(self) -> PeakMemory:
        """Of the device from now on."""
        return CudaPeak(self.device) if self.on_cuda else ResidentPeak()


class PeakMemory(Protocol):
    """The largest use of memory since it was made."""

    def extra_mib(self) -> float:
        """Beyond what was in use then; NaN where the system does not tell."""
        ...


class ResidentPeak:
    """Of this process."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
            self.before = self._read("VmRSS")
        except OSError:
            self.before = math.nan

    def extra_mib(self) -> float:
        return math.nan if math.isnan(self.before) else self._read("VmHWM") - self.before

    @staticmethod
    def _read(field: str) -> float:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024


class CudaPeak:
    """Of PyTorch's tensors on a CUDA device, not of what it holds back for later."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        torch.cuda.reset_peak_memory_stats(device)
        self.before = torch.cuda.memory_allocated(device)

    def extra_mib(self) -> float:
        return (torch.cuda.max_memory_allocated(self.device) - self.before) / _MIB
