"""Scores of objects, of videos, and of a whole set, by the conventions of the SA-V and DAVIS evaluators.

An object counts from the first frame on which it is visible, in the truth or in the prediction; its score is the mean over
its frames, the score of a set the mean over its objects. Objects that are never truly visible are left aside.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from sam2_pipeline.errors import VideoError
from sam2_pipeline.evaluation.matching import Match, assign, overlaps
from sam2_pipeline.evaluation.measures import j_and_f
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.rle import Rle

FOUND = 0.5  # a masklet that overlaps no true object at least so much is spurious


@dataclass(frozen=True, slots=True)
class Partner:
    """The predicted masklet that stands for a true object. The IoUs are those of `Overlaps`, None where numbers decide."""

    predicted_id: int | None
    mean_iou: float | None = None
    visible_iou: float | None = None
    tube_iou: float | None = None


NOBODY = Partner(None)


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """One true object.

    Attributes:
        frames: how many frames count.
        j, f: means over those frames, 0..1.
        visible_at_first: whether it is visible on its first annotated frame.
        partner: what it was compared with; if nobody, all predicted masks count as empty.
    """

    object_id: int
    frames: int
    j: float
    f: float
    visible_at_first: bool
    partner: Partner

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True)
class VideoScore:
    """One video.

    Attributes:
        objects: the true objects, but those that are never truly visible on the frames that count.
        left_aside: how many those are.
        predicted: predicted masklets that are visible on those frames.
        spurious: how many of these match no true object; None where numbers decide.
    """

    video_id: str
    objects: tuple[ObjectScore, ...]
    left_aside: int
    predicted: int
    spurious: int | None = None


def score_video(
    video_id: str, predicted: Masks, true: Masks, *, match: Match = "ids", keep_first_and_last: bool | None = None
) -> VideoScore:
    """Compares the masks of one video. Frames without true masks do not matter.

    Args:
        match: ``ids``: the predicted object of the same number; otherwise the one that overlaps most, see `assign`.
        keep_first_and_last: count the first and the last true frame of an object, too; None: only where matching by overlap,
            since there no true mask was given to begin with.

    Raises:
        VideoError: a true frame has no prediction, or a mask's size differs from the true one's.
    """
    keep = match != "ids" if keep_first_and_last is None else keep_first_and_last
    counted = {number: masks if keep else _without_ends(masks) for number, masks in sorted(true.items())}
    seen = {number: masks for number, masks in counted.items() if _visible(masks)}
    frames = {frame: mask for masks in counted.values() for frame, mask in masks.items()}
    visible = {number: masks for number, masks in sorted(predicted.items()) if _visible(masks, frames)}
    if match == "ids":
        partners = {number: Partner(number) for number in seen if number in predicted}
    else:
        for number, masks in visible.items():
            _check(number, masks, frames)
        partners = _match(visible, seen, match)
    scores = []
    for number, masks in seen.items():
        partner = partners.get(number, NOBODY)
        others = None if partner.predicted_id is None else predicted[partner.predicted_id]
        if others is not None:
            _check(number, others, masks)
        first = bool(true[number][min(true[number])].area)
        scores.append(ObjectScore(number, *_score(others, masks), first, partner))
    found = sum(partner.mean_iou >= FOUND for partner in partners.values() if partner.mean_iou is not None)
    spurious = None if match == "ids" else len(visible) - found
    return VideoScore(video_id, tuple(scores), len(true) - len(seen), len(visible), spurious)


def _score(predicted: Mapping[int, Rle] | None, true: Mapping[int, Rle]) -> tuple[int, float, float]:
    """(frames that count, mean J, mean F) of one object, from the first frame on which either mask is visible."""
    pairs = [
        (Rle.empty(mask.height, mask.width) if predicted is None else predicted[frame], mask)
        for frame, mask in sorted(true.items())
    ]
    begin = next(place for place, pair in enumerate(pairs) if pair[0].area or pair[1].area)
    values = np.array([j_and_f(*pair) for pair in pairs[begin:]])
    return len(values), *values.mean(axis=0).tolist()


def _match(predicted: Masks, true: Masks, match: Match) -> dict[int, Partner]:
    found, rows, columns = overlaps(predicted, true), list(predicted), list(true)
    return {
        columns[column]: Partner(
            rows[row], *(float(iou_PG[row, column]) for iou_PG in (found.mean_PG, found.visible_PG, found.tube_PG))
        )
        for column, row in assign(found.mean_PG, match).items()
    }


def _check(number: int, predicted: Mapping[int, Rle], true: Mapping[int, Rle]) -> None:
    missing = sorted(true.keys() - predicted.keys())
    if missing:
        there = ", ".join(map(str, sorted(predicted)[:3])) + (", ..." if len(predicted) > 3 else "")
        raise VideoError(
            f"predicted object {number} has no mask on {len(missing)} of {len(true)} true frames (first: {missing[0]}), "
            f"expected one on each; it has masks on {len(predicted)} frames{f' ({there})' if there else ''}"
        )
    for frame, mask in sorted(true.items()):
        found, expected = ((one.height, one.width) for one in (predicted[frame], mask))
        if found != expected:
            sizes = f"is {found[0]}x{found[1]}, expected {expected[0]}x{expected[1]} (height x width) as the true one"
            raise VideoError(f"the mask of predicted object {number} on frame {frame} {sizes}")


def _without_ends(masks: Mapping[int, Rle]) -> dict[int, Rle]:
    return {frame: masks[frame] for frame in sorted(masks)[1:-1]}


def _visible(masks: Mapping[int, Rle], frames: Container[int] | None = None) -> bool:
    return any(mask.area for frame, mask in masks.items() if frames is None or frame in frames)
