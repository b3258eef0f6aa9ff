"""Memories of several objects as one batch of tensors: `gather` stacks what rows with equal plans read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2_pipeline.model.memory_bank import FrameRecord, MemoryBank, ReadingPlan


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    """Memories of N rows that see equally many: M maps and P pointers each.

    Attributes:
        maps_NMTC: bfloat16.
        rows_NM: which row of the temporal encoding each map gets.
        pointers_NPD: float32.
        pointer_time_NP: age over span, in 0..1 for pointers of the past.
    """

    maps_NMTC: Tensor
    rows_NM: Tensor
    pointers_NPD: Tensor
    pointer_time_NP: Tensor


def gather(banks: Sequence[MemoryBank[Tensor]], plans: Sequence[ReadingPlan], device: torch.device) -> MemoryBatch:
    """Stacks what the banks' objects read; all plans have the same signature and at least one map."""

    def record(bank: MemoryBank[Tensor], frame: int) -> FrameRecord[Tensor]:
        found = bank.record(frame)
        assert found is not None, f"planned to read frame {frame}, which the bank does not hold"
        return found

    num_pointers = len(plans[0].pointers)
    maps = torch.stack([record(b, f).memory_TC for b, p in zip(banks, plans) for f, _ in p.maps]).to(device)  # type: ignore[misc]
    rows = torch.tensor([[row for _, row in p.maps] for p in plans], device=device)
    pointers = [record(b, f).pointer_D for b, p in zip(banks, plans) for f, _ in p.pointers]
    time = [[age / p.pointer_span for _, age in p.pointers] for p in plans]
    dim = banks[0].record(plans[0].maps[0][0]).pointer_D.shape[-1]  # type: ignore[union-attr]
    return MemoryBatch(
        maps.view(len(banks), -1, *maps.shape[1:]),
        rows,
        torch.stack(pointers).view(len(banks), num_pointers, dim) if pointers else torch.zeros(len(banks), 0, dim, device=device),
        torch.tensor(time, device=device, dtype=torch.float32).view(len(banks), num_pointers),
    )
