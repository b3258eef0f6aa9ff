"""Prompts from true masks, as the reference's evaluation makes them: nothing is left to chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode

Kind = Literal["mask", "box", "clicks"]


@dataclass(frozen=True, slots=True)
class TrueObject:
    """An object to be prompted: its number, and its true masks from the frame ``first`` on, on which it is visible."""

    object_id: int
    masks: Mapping[int, Rle]

    @property
    def first(self) -> int:
        return min(self.masks)


def true_objects(masks: Masks, min_area: float) -> list[TrueObject]:
    """The objects that at some time cover the share ``min_area`` of the picture, from the first such frame on."""
    found = []
    for object_id, of_frame in sorted(masks.items()):
        frames = sorted(of_frame)
        enough = [frame for frame in frames if _is_visible(of_frame[frame], min_area)]
        if enough:
            found.append(TrueObject(object_id, {frame: of_frame[frame] for frame in frames if frame >= enough[0]}))
    return found


def visible_at_first(masks: Masks, min_area: float) -> frozenset[int]:
    """The objects that cover the share ``min_area`` of the video's first true frame."""
    first = min((frame for of_frame in masks.values() for frame in of_frame), default=0)
    return frozenset(n for n, of_frame in masks.items() if first in of_frame and _is_visible(of_frame[first], min_area))


def prompt_whole(one: TrueObject, kind: Literal["mask", "box"]) -> Prompt:
    """The object's mask on its first frame, or the box around it (its outermost pixels)."""
    mask = one.masks[one.first]
    if kind == "mask":
        return Prompt(one.object_id, one.first, mask=mask)
    x, y, width, height = mask.bbox_xywh
    # A box must have an extent, which a line of pixels has not.
    return Prompt(one.object_id, one.first, box_xyxy=np.array([x, y, x + max(width - 1, 1), y + max(height - 1, 1)]))


def next_click(object_id: int, frame: int, predicted: Rle, true: Rle) -> Prompt | None:
    """A click at the centre of the error: where a pixel is farthest from those that are right.

    It says object where the mask lacks something, background where it has too much. On an empty mask it falls in the middle
    of the object. None where the mask is right.
    """
    p, t = decode(predicted), decode(true)
    missing, excess = centre(t & ~p), centre(p & ~t)
    if missing is None and excess is None:
        return None
    label = int(excess is None or (missing is not None and missing[2] > excess[2]))
    x, y, _ = (missing if label else excess) or (0, 0, 0.0)
    return Prompt(object_id, frame, np.array([[x, y]]), np.array([label]))


def _is_visible(mask: Rle, min_area: float) -> bool:
    return mask.area > 0 and mask.area >= min_area * mask.height * mask.width
