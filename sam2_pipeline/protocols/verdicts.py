"""How well verdicts on masklets tell what true masks tell: of what is accepted how much is good, and of what is good how much is
accepted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sam2_pipeline.evaluation.matching import overlaps
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.verdict import LESS_IS_BETTER, MEASURES, VERDICTS, Judgement

GOOD = 0.75  # mean IoU of a masklet that needs no correction, as in the SAM 2 paper's comparison of its annotation phases


PRECISION = 0.95  # of what is accepted, so much ought to be good

# Limits of acceptance that are tried by `best_limits`, the stricter later; finer where the measure does not depend on how well
# scores are calibrated.
_TRIED = {
    "cycle_iou": np.arange(0, 20) / 20,
    "reprompt_iou": np.arange(0, 20) / 20,
    "predicted_iou": np.arange(0, 10) / 10,
    "stability": np.arange(0, 10) / 10,
    "flicker": np.array([1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]),
}
_HALVES = ("cycle_iou", "reprompt_iou"), ("predicted_iou", "stability", "flicker")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of acceptance, by their names among the settings of judge, and what they would have given."""

    accept_from: Mapping[str, float]
    precision: float
    recall: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {limit:g}" for name, limit in self.accept_from.items())


@dataclass(frozen=True, slots=True)
class JudgedMasklet:
    """One masklet: what was judged of it, what that came from, and its true IoU, mean over the frames on which it or the true
    object is visible. A masklet without a prompt is compared with the true object that it fits best."""

    masklet_id: int
    judgement: Judgement
    measures: Mapping[str, float | None]
    iou: float

    def to_json(self) -> dict[str, Any]:
        verdict = {"verdict": self.judgement.verdict, "reasons": list(self.judgement.reasons)}
        return {"masklet_id": self.masklet_id, "iou": self.iou} | verdict | dict(self.measures)


def judged(masklets: Sequence[Masklet], truth: Masks) -> tuple[JudgedMasklet, ...]:
    """The masklets of one video that are visible on some frame, beside the truth."""
    if all(masklet.judgement is None for masklet in masklets):
        return ()
    found = []
    predicted = {one.masklet_id: {frame.frame_index: frame.rle for frame in one.frames} for one in masklets}
    iou_PG = overlaps(predicted, truth).mean_PG
    columns = {number: column for column, number in enumerate(truth)}
    for row, masklet in enumerate(masklets):
        measures, judgement = measure(masklet.frames), masklet.judgement
        if judgement is None or not measures["visible_frame_count"]:
            continue
        own = masklet.seed.object_id
        iou = iou_PG[row].max(initial=0.0) if own is None else iou_PG[row, columns[own]]
        asked = {name: getattr(judgement, name) for name in ("cycle_iou", "reprompt_iou")}
        known = {name: (measures | asked)[name] for name in (*MEASURES.values(), "size_rel")}
        found.append(JudgedMasklet(masklet.masklet_id, judgement, known, float(iou)))
    return tuple(found)


@dataclass(frozen=True)
class VerdictFigures:
    """Over many masklets. Good is a mean IoU of `GOOD` or more."""

    masklets: tuple[JudgedMasklet, ...]

    @property
    def counts(self) -> Counter[str]:
        """Masklets by their verdicts."""
        return Counter(one.judgement.verdict for one in self.masklets)

    @property
    def good(self) -> int:
        return sum(one.iou >= GOOD for one in self.masklets)

    def share_good(self, verdict: str) -> float | None:
        """Of the masklets with this verdict, how many are good; for ``accept`` that is the precision."""
        ious = [one.iou for one in self.masklets if one.judgement.verdict == verdict]
        return float(np.mean(np.array(ious) >= GOOD)) if ious else None

    @property
    def recall(self) -> float | None:
        """Of the good masklets, how many are accepted."""
        verdicts = [one.judgement.verdict for one in self.masklets if one.iou >= GOOD]
        return verdicts.count("accept") / len(verdicts) if verdicts else None

    @property
    def reasons(self) -> Counter[str]:
        """How often each rule stood against a masklet."""
        return Counter(reason for one in self.masklets for reason in one.judgement.reasons)

    def best_limits(self) -> Limits | None:
        """The limits with the highest recall among those with a precision of `PRECISION`, or else with the highest precision; of
        equals the strictest. None where no masklet is good. Chosen and measured on the same masklets, so they flatter."""
        good = np.array([one.iou >= GOOD for one in self.masklets], bool)
        if not good.any():
            return None
        (limits_A, places_A, passes_AM), (limits_B, places_B, passes_BM) = (self._combined(names) for names in _HALVES)
        accepted_AB = passes_AM @ passes_BM.T
        right_AB = (passes_AM * good) @ passes_BM.T
        precision_AB, recall_AB = right_AB / np.maximum(accepted_AB, 1), right_AB / good.sum()
        enough_AB = precision_AB >= PRECISION
        first_AB, then_AB = (np.where(enough_AB, *pair) for pair in ((recall_AB, precision_AB), (precision_AB, recall_AB)))
        ranks = (places_A[:, None] + places_B, then_AB, first_AB, enough_AB)
        best = np.lexsort([rank.ravel() for rank in ranks])[-1]  # the last key decides first
        a, b = np.unravel_index(best, accepted_AB.shape)
        return Limits(limits_A[a] | limits_B[b], float(precision_AB[a, b]), float(recall_AB[a, b]))

    def _combined(self, names: Sequence[str]) -> tuple[list[dict[str, float]], np.ndarray, np.ndarray]:
        """Every combination of the limits of these rules; how strict it is, and which masklets pass it, float32 of 0 and 1."""
        places = list(itertools.product(*(range(len(_TRIED[name])) for name in names)))
        passes = [self._passes(name) for name in names]
        combined = [np.logical_and.reduce([of[place] for of, place in zip(passes, chosen)]) for chosen in places]
        limits = [{name: float(_TRIED[name][place]) for name, place in zip(names, chosen)} for chosen in places]
        return limits, np.array([sum(chosen) for chosen in places]), np.array(combined, np.float32)

    def _passes(self, name: str) -> np.ndarray:
        """Whether each masklet reaches each limit, bool ``[limits, masklets]``; what is not known stands against nothing."""
        sign = -1 if name in LESS_IS_BETTER else 1
        values = [one.measures[MEASURES[name]] for one in self.masklets]
        return np.array([np.inf if value is None else sign * value for value in values]) >= sign * _TRIED[name][:, None]

    def to_json(self) -> dict[str, Any]:
        best = self.best_limits()
        return {
            "good_from_iou": GOOD,
            "masklets": len(self.masklets),
            "good": self.good,
            "counts": {verdict: self.counts[verdict] for verdict in VERDICTS},
            "share_good": {verdict: self.share_good(verdict) for verdict in VERDICTS},
            "precision_of_accept": self.share_good("accept"),
            "recall_of_accept": self.recall,
            "reasons": dict(self.reasons.most_common()),
            "best_limits": None if best is None else asdict(best),
        }
