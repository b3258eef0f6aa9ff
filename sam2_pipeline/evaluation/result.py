"""What an evaluation found: scores of the whole set, and its form as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2_pipeline.evaluation.matching import Match
from sam2_pipeline.evaluation.measures import TOLERANCE
from sam2_pipeline.evaluation.scores import ObjectScore, VideoScore

RECALL_AT = (0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be scored, and why."""

    video_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a set of videos. All numbers are 0..1; None where there is no object (or, for recall, no matching).

    Attributes:
        videos: those that were scored.
        failures: those that could not be.
        left_aside: true videos that were, for want of predictions.
        without_truth: predicted videos that the truth does not have.
    """

    predictions: str
    ground_truth: str
    match: Match
    keep_first_and_last: bool
    videos: tuple[VideoScore, ...]
    failures: tuple[Failure, ...]
    left_aside: int
    without_truth: int

    @property
    def objects(self) -> tuple[ObjectScore, ...]:
        return tuple(one for video in self.videos for one in video.objects)

    @property
    def j(self) -> float | None:
        return mean(one.j for one in self.objects)

    @property
    def f(self) -> float | None:
        return mean(one.f for one in self.objects)

    @property
    def jf(self) -> float | None:
        return mean(one.jf for one in self.objects)

    @property
    def unpredicted(self) -> int:
        """True objects without any predicted masklet, which score as empty."""
        return sum(one.partner.predicted_id is None for one in self.objects)

    def recall(self, at: float, *, visible_at_first: bool = False) -> float | None:
        """Share of the true objects (of those visible on their first frame) whose masklet has a mean IoU of at least ``at``."""
        if self.match == "ids":
            return None
        return recall([one for one in self.objects if one.visible_at_first or not visible_at_first], at)

    @property
    def spurious_per_object(self) -> float | None:
        """Predicted masklets that are no true object, for every true one."""
        if self.match == "ids" or not self.objects:
            return None
        return sum(video.spurious or 0 for video in self.videos) / len(self.objects)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "predictions": self.predictions,
            "ground_truth": self.ground_truth,
            "match": self.match,
            "keep_first_and_last": self.keep_first_and_last,
            "boundary_tolerance": TOLERANCE,
            "objects": len(self.objects),
            **_jf(self.j, self.f, self.jf),
            **self._matching(),
            "unpredicted_objects": self.unpredicted,
            "objects_left_aside": sum(video.left_aside for video in self.videos),
            "videos_left_aside": self.left_aside,
            "videos_without_ground_truth": self.without_truth,
            "videos": [_video(video) for video in self.videos],
            "failures": [{"video_id": failure.video_id, "reason": failure.reason} for failure in self.failures],
        }

    def _matching(self) -> dict[str, Any]:
        if self.match == "ids":
            return {}
        return {
            **{f"recall_{at}": self.recall(at) for at in RECALL_AT},
            **{f"recall_{at}_visible_at_first": self.recall(at, visible_at_first=True) for at in RECALL_AT},
            "spurious_per_object": self.spurious_per_object,
        }


def recall(objects: Sequence[ObjectScore], at: float) -> float | None:
    return mean(float((one.partner.mean_iou or 0.0) >= at) for one in objects)


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def _video(video: VideoScore) -> dict[str, Any]:
    objects = video.objects
    return {
        "video_id": video.video_id,
        **_jf(mean(one.j for one in objects), mean(one.f for one in objects), mean(one.jf for one in objects)),
        "predicted_masklets": video.predicted,
        "spurious_masklets": video.spurious,
        "objects": [_object(one) for one in objects],
    }


def _object(one: ObjectScore) -> dict[str, Any]:
    partner = one.partner
    ids = {"object_id": one.object_id, "predicted_id": partner.predicted_id, "frames": one.frames}
    ious = {"mean_iou": partner.mean_iou, "visible_iou": partner.visible_iou, "tube_iou": partner.tube_iou}
    return {**ids, **_jf(one.j, one.f, one.jf), **ious}


def _jf(j: float | None, f: float | None, jf: float | None) -> dict[str, float | None]:
    return {"J&F": jf, "J": j, "F": f}
