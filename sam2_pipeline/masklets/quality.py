"""What a mask's run-length code says of its quality: in how many pieces it is, whether the picture cuts it off, and how well it
agrees with the mask before it. No model is asked."""

from __future__ import annotations

from dataclasses import dataclass

from sam2_pipeline.masklets.components import Pieces
from sam2_pipeline.masklets.rle import Rle, iou

AREA_JUMP = 2.0  # from one annotated frame to the next: growing or shrinking by more than this factor is a jump


@dataclass(frozen=True, slots=True)
class Shape:
    """One mask.

    Attributes:
        area: pixels.
        num_components: connected components, by sides and corners.
        border_touch: share of the mask's outline (the sides of its pixels where it ends, around holes too) that lies on the
            border of the picture; None for an empty mask.
    """

    area: int
    num_components: int
    border_touch: float | None


def shape_of(rle: Rle) -> Shape:
    """Its area and shape, from one look at the runs."""
    pieces = Pieces.of(rle.runs(), rle.height, rle.width)
    area = int((pieces.ends - pieces.starts).sum())
    if not area:
        return Shape(0, 0, None)
    total, border = pieces.outline()
    return Shape(area, pieces.number, border / total)


def temporal_iou(before: Rle, now: Rle, areas: tuple[int, int]) -> float | None:
    """IoU of the masks of two annotated frames in a row, whose ``areas`` are known; None where both are empty."""
    if not any(areas):
        return None
    return float(iou([before], [now])[0, 0]) if all(areas) else 0.0


def is_jump(areas: tuple[int, int]) -> bool:
    """Whether a visible mask became more than twice as large as the visible one before it, or less than half as large."""
    return min(areas) > 0 and max(areas) > AREA_JUMP * min(areas)
