"""Cleaning masks as the SAM 2 data engine did: scattered pixels removed, small holes filled, at the full size (paper, D.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sam2_pipeline.masklets.components import Pieces
from sam2_pipeline.masklets.masklet import FrameMasks
from sam2_pipeline.masklets.rle import Rle, merge


@dataclass(frozen=True, slots=True)
class CleanRules:
    """What is too small. The data engine took 200 for both; 0 leaves masks as they are.

    Attributes:
        min_component_area: connected components of fewer pixels are removed, but the largest stays if all are smaller.
        max_hole_area: connected components of the background of fewer pixels are filled, also at the picture's border.
    """

    min_component_area: int = 0
    max_hole_area: int = 0

    @property
    def off(self) -> bool:
        return self.min_component_area <= 1 and self.max_hole_area <= 1


def clean(rle: Rle, rules: CleanRules) -> Rle:
    """The mask without its small components, then without small holes; pixels are connected by sides and corners."""
    kept = remove_small_components(rle, rules.min_component_area)
    filling = small_holes(kept, rules.max_hole_area)
    return kept if filling is None else merge([kept, filling])


def clean_frame(frame: FrameMasks, rules: CleanRules, *, disjoint: bool = False) -> FrameMasks:
    """All masks of a frame cleaned, with their areas before noted as ``raw_area``.

    ``disjoint``: no two masks share a pixel, and none shall; holes give way to what is in them, and of two masks that could
    take a pixel the smaller does.
    """
    if rules.off:
        return frame
    kept = {number: remove_small_components(mask.rle, rules.min_component_area) for number, mask in frame.masks.items()}
    taken = merge(list(kept.values())) if disjoint and kept else None
    for number in sorted(kept, key=lambda number: (kept[number].area, number)):
        filling = small_holes(kept[number], rules.max_hole_area)
        if filling is not None and taken is not None:
            filling = merge([filling, _complement(taken)], intersect=True)
            taken = merge([taken, filling])
        if filling is not None:
            kept[number] = merge([kept[number], filling])
    masks = {n: replace(mask, rle=kept[n], raw_area=mask.rle.area) for n, mask in frame.masks.items()}
    return FrameMasks(frame.frame_index, frame.timestamp_s, masks)


def remove_small_components(rle: Rle, min_area: int) -> Rle:
    """The mask without components of fewer pixels than ``min_area``; the first of the largest stays whatever its size."""
    if min_area <= 1:
        return rle
    pieces = Pieces.of(rle.runs(), rle.height, rle.width)
    areas = pieces.areas
    keep = areas >= min_area
    if keep.all():
        return rle
    keep[areas.argmax()] = True
    return Rle.from_runs(rle.height, rle.width, pieces.select(keep).runs())


def small_holes(rle: Rle, max_area: int) -> Rle | None:
    """The components of the background of fewer pixels than ``max_area``; None if there are none, or the mask is empty."""
    if max_area <= 1 or not rle.area:
        return None
    pieces = Pieces.of(rle.runs(), rle.height, rle.width, background=True)
    small = pieces.areas < max_area
    return Rle.from_runs(rle.height, rle.width, pieces.select(small).runs()) if small.any() else None


def _complement(rle: Rle) -> Rle:
    runs = rle.runs()
    return Rle.from_runs(rle.height, rle.width, runs[1:] if runs[0] == 0 else np.concatenate([[0], runs]))
