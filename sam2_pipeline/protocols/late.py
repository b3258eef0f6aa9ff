"""What automatic masklets make of objects that are not there at the beginning, and how often one object has two masklets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sam2_pipeline.evaluation.scores import ObjectScore
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.identity import overlaps_over_time
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.protocols.prompting import true_objects, visible_at_first

FOUND = 0.7  # mean IoU over the frames on which an object is visible
LATEST = 3  # frames by which a masklet may begin too early or too late
DUPLICATE = 0.8  # temporal IoU


@dataclass(frozen=True, slots=True)
class LateObject:
    """An object that appears after the first frame.

    Attributes:
        first: the frame on which it is visible first.
        iou: of its masklet, mean over the frames on which it is visible; 0 if it has none.
        begins: the first frame of its masklet; None if it has none.
    """

    object_id: int
    first: int
    iou: float
    begins: int | None

    @property
    def found(self) -> bool:
        return self.iou >= FOUND and self.begins is not None and abs(self.begins - self.first) <= LATEST


@dataclass(frozen=True, slots=True)
class Discovered:
    """Of one video: its late objects, its masklets, and how many of these duplicate another."""

    late: tuple[LateObject, ...]
    masklets: int
    duplicates: int


def discovered(predicted: Masks, truth: Masks, scores: Iterable[ObjectScore], min_area: float) -> Discovered:
    """``scores`` say which masklet stands for an object. Both begin when they cover the share ``min_area`` of the picture."""
    at_first, partners = visible_at_first(truth, min_area), {one.object_id: one.partner for one in scores}
    late = []
    for one in true_objects(truth, min_area):
        if one.object_id not in at_first and one.object_id in partners:
            partner = partners[one.object_id]
            begun = [] if partner.predicted_id is None else true_objects({0: predicted[partner.predicted_id]}, min_area)
            late.append(LateObject(one.object_id, one.first, partner.visible_iou or 0.0, begun[0].first if begun else None))
    return Discovered(tuple(late), *_duplicates(predicted))


def _duplicates(predicted: Masks) -> tuple[int, int]:
    """Masklets that are ever visible, and how many of them have a temporal IoU above 0.8 with one of a lower number."""
    by_frame: dict[int, dict[int, Rle]] = {}
    for number, masks in predicted.items():
        for frame, mask in masks.items():
            by_frame.setdefault(frame, {})[number] = mask
    found = overlaps_over_time(predicted, by_frame.values())
    twice = sum((found.iou_NN[n, :n] > DUPLICATE).any() for n in range(len(found.masklet_ids)))
    return int((found.frames_N > 0).sum()), int(twice)


def figures(videos: Iterable[Discovered]) -> Mapping[str, Any]:
    """Over all videos, as JSON holds it; shares are None where there is nothing to share."""
    videos = list(videos)
    late = [one for video in videos for one in video.late]
    begun = [abs(one.begins - one.first) for one in late if one.begins is not None and one.iou >= FOUND]
    masklets, duplicates = sum(video.masklets for video in videos), sum(video.duplicates for video in videos)
    return {
        "late_objects": len(late),
        "late_found": sum(one.found for one in late) / len(late) if late else None,
        f"late_recall_{FOUND}_over_visible_frames": sum(one.iou >= FOUND for one in late) / len(late) if late else None,
        "late_first_frame_error_mean": sum(begun) / len(begun) if begun else None,
        "duplicates": duplicates,
        "duplicates_share": duplicates / masklets if masklets else None,
    }
