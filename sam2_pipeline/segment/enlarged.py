"""What low-resolution masks are like at the picture's size, without enlarging them.

A pixel of an enlarged mask lies among four low-resolution logits and is a weighted mean of them. Where all four are on the
same side of a threshold, so is every pixel of that cell; only the pixels of other cells, those along outlines, are worked out.
A mask that is nearly all outline is enlarged after all.

Shapes: N masks of h x w logits, L levels, a picture of H x W pixels; C cells along outlines, y x x pixels in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2_pipeline.model.layers import resize_maps

_DOUBT = 1e-4  # logits; rounding must not carry a pixel past the corners of its cell
_CELLS_TOGETHER = 2**14
_MOST_UNCLEAR = 1 / 16  # share of cells; beyond it working out pixels one by one costs more than enlarging
_LARGE_TOGETHER = 16  # masks enlarged together, but one at a time on a CPU, whose cache holds one


@dataclass(frozen=True, slots=True)
class Enlarged:
    """Facts of masks at the picture's size.

    Attributes:
        area_LN: pixels above each level, int64.
        box_N4: pixel extremes (x0, y0, x1, y1) above the first level, inclusive; zeros for an empty mask.
    """

    area_LN: Tensor
    box_N4: Tensor


@dataclass(frozen=True, slots=True)
class _Axis:
    """How the pixels of one axis fall into cells; a cell reaches from a logit to the next one.

    Attributes:
        start, count: the first pixel of every cell, and how many it has.
        share: of every pixel, how far it is on its way to the next logit, in 0..1.
    """

    start: Tensor
    count: Tensor
    share: Tensor

    @classmethod
    def of(cls, logits: int, pixels: int, device: torch.device) -> _Axis:
        # In float32 and in this order of operations, as `interpolate` computes it.
        place = ((torch.arange(pixels, device=device) + 0.5) * (logits / pixels) - 0.5).clamp(min=0)
        cell = place.floor().long().clamp(max=logits - 1)
        count = torch.bincount(cell, minlength=logits)
        return cls(count.cumsum(0) - count, count, place - cell)

    def pixels(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(pixel numbers ``[C, k]``, whether they belong to the cell, their shares); k is the largest cell's count."""
        number = self.start[cells, None] + torch.arange(int(self.count.max()), device=cells.device)
        inside = number < (self.start + self.count)[cells, None]
        number = number.clamp(max=len(self.share) - 1)
        return number, inside, self.share[number]


def measure_enlarged(logits_NHW: Tensor, size: tuple[int, int], levels: Sequence[float]) -> Enlarged:
    """Areas above each of ``levels``, and boxes above the first, of masks enlarged (bilinearly) to ``size`` (height, width)."""
    unclear_NHW = torch.zeros_like(logits_NHW, dtype=torch.bool)
    low_NHW, high_NHW = _extremes(logits_NHW)
    for level in levels:
        unclear_NHW |= (low_NHW <= level + _DOUBT) & (high_NHW > level - _DOUBT)
    rough_N = unclear_NHW.float().mean(dim=(1, 2)) > _MOST_UNCLEAR
    smooth = (~rough_N).nonzero()[:, 0]
    area_LN = torch.zeros(len(levels), len(logits_NHW), dtype=torch.int64, device=logits_NHW.device)
    box_N4 = torch.zeros(len(logits_NHW), 4, dtype=torch.int64, device=logits_NHW.device)
    by_cells = _by_cells(logits_NHW[smooth], low_NHW[smooth], unclear_NHW[smooth], size, levels)
    area_LN[:, smooth], box_N4[smooth] = by_cells.area_LN, by_cells.box_N4
    for few in rough_N.nonzero()[:, 0].split(1 if logits_NHW.device.type == "cpu" else _LARGE_TOGETHER):
        directly = _by_enlarging(logits_NHW[few], size, levels)
        area_LN[:, few], box_N4[few] = directly.area_LN, directly.box_N4
    return Enlarged(area_LN, box_N4)


def _by_enlarging(logits_NHW: Tensor, size: tuple[int, int], levels: Sequence[float]) -> Enlarged:
    large = resize_maps(logits_NHW[:, None], size)[:, 0]
    area_LN = torch.stack([(large > level).flatten(1).sum(1, dtype=torch.int32) for level in levels]).long()
    ends = _Ends(len(large), large.device)
    for lines, name in ((large.amax(dim=1), "x"), (large.amax(dim=2), "y")):
        n, pixel = (lines > levels[0]).nonzero(as_tuple=True)
        ends.widen(name, n, pixel, pixel)
    return Enlarged(area_LN, ends.boxes(area_LN[0] > 0))


def _extremes(logits_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest of the four logits around each cell, ``[N, h, w]`` each."""
    low = high = logits_NHW
    for dim in (1, 2):
        following = torch.arange(1, low.shape[dim] + 1, device=low.device).clamp(max=low.shape[dim] - 1)
        low = torch.minimum(low, low.index_select(dim, following))
        high = torch.maximum(high, high.index_select(dim, following))
    return low, high


def _by_cells(
    logits_NHW: Tensor, low_NHW: Tensor, unclear_NHW: Tensor, size: tuple[int, int], levels: Sequence[float]
) -> Enlarged:
    N, h, w = logits_NHW.shape
    device = logits_NHW.device
    down, across = _Axis.of(h, size[0], device), _Axis.of(w, size[1], device)
    populated = (down.count[:, None] > 0) & (across.count > 0)
    unclear = unclear_NHW & populated
    within = [(low_NHW > level) & ~unclear & populated for level in levels]
    widths, heights = across.count.float(), down.count.double()
    area_LN = torch.stack([(cells.float() @ widths).double() @ heights for cells in within]).long()
    ends = _Ends(N, device)
    for cells, axis, name in ((within[0].any(dim=1), across, "x"), (within[0].any(dim=2), down, "y")):
        n, cell = cells.nonzero(as_tuple=True)
        ends.widen(name, n, axis.start[cell], axis.start[cell] + axis.count[cell] - 1)
    for n, y, x in zip(*(index.split(_CELLS_TOGETHER) for index in unclear.nonzero(as_tuple=True)), strict=True):
        rows, in_rows, share_y = down.pixels(y)
        columns, in_columns, share_x = across.pixels(x)
        share_y, share_x = share_y[:, :, None], share_x[:, None]
        below, beside = (y + 1).clamp(max=h - 1), (x + 1).clamp(max=w - 1)
        corners = [logits_NHW[n, a, b][:, None, None] for a in (y, below) for b in (x, beside)]
        upper = (1 - share_x) * corners[0] + share_x * corners[1]
        lower = (1 - share_x) * corners[2] + share_x * corners[3]
        value_Cyx = (1 - share_y) * upper + share_y * lower
        value_Cyx = torch.where(in_rows[:, :, None] & in_columns[:, None], value_Cyx, -torch.inf)
        for area_N, level in zip(area_LN, levels, strict=True):
            area_N.index_add_(0, n, (value_Cyx > level).flatten(1).sum(1, dtype=torch.int32).long())
        for seen, number, name in ((value_Cyx.amax(dim=1), columns, "x"), (value_Cyx.amax(dim=2), rows, "y")):
            cell, place = (seen > levels[0]).nonzero(as_tuple=True)
            ends.widen(name, n[cell], number[cell, place], number[cell, place])
    return Enlarged(area_LN, ends.boxes(area_LN[0] > 0))


class _Ends:
    """The smallest and largest pixel numbers of every mask on both axes."""

    def __init__(self, masks: int, device: torch.device) -> None:
        far = torch.iinfo(torch.int64).max
        self.first = {axis: torch.full((masks,), far, device=device) for axis in "xy"}
        self.last = {axis: torch.full((masks,), -1, device=device) for axis in "xy"}

    def widen(self, axis: str, masks: Tensor, first: Tensor, last: Tensor) -> None:
        self.first[axis].scatter_reduce_(0, masks, first, "amin")
        self.last[axis].scatter_reduce_(0, masks, last, "amax")

    def boxes(self, present_N: Tensor) -> Tensor:
        box_N4 = torch.stack((self.first["x"], self.first["y"], self.last["x"], self.last["y"]), dim=1)
        return torch.where(present_N[:, None], box_N4, 0)
