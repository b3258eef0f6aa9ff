"""Is a masklet good enough to be used as it is? A verdict from its measures, with reasons, in place of a person's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from sam2_pipeline.masklets.rle import Rle

Verdict = Literal["accept", "refine", "reject"]
VERDICTS: tuple[Verdict, ...] = ("accept", "refine", "reject")

NEVER_VISIBLE, COVERS_FRAME = "never_visible", "covers_frame"


@dataclass(frozen=True, slots=True)
class VerdictRules:
    """What is good and what is bad. Of each pair, what is worse than the first is rejected, what is at least as good as the
    second is accepted, and what lies between is to be refined. A measure that is null says nothing.
    From where the two IoUs are accepted was chosen on synthetic clips, with the embedded model (`docs/benchmarks.md`).

    Attributes:
        cycle_iou: from the end of the masklet tracked back to its prompt: IoU with what was there to begin with.
        reprompt_iou: segmented anew on some frames, without memory, from its own centre and box: mean IoU.
        predicted_iou: the model's own estimate, mean over the visible frames.
        stability: of the masks cut at logits +1 and -1, mean over the visible frames.
        flicker: visibility changes and jumps of the area per visible frame; here less is better.
        max_coverage: of the picture; a masklet that covers more, on its visible frames in the mean, is no object.
    """

    cycle_iou: tuple[float, float] = (0.2, 0.75)
    reprompt_iou: tuple[float, float] = (0.4, 0.85)
    predicted_iou: tuple[float, float] = (0.1, 0.3)
    stability: tuple[float, float] = (0.2, 0.4)
    flicker: tuple[float, float] = (0.5, 0.2)
    max_coverage: float = 0.95


# Of every rule the measure it judges; both are names of columns or fields above.
MEASURES = {
    "cycle_iou": "cycle_iou",
    "reprompt_iou": "reprompt_iou",
    "predicted_iou": "predicted_iou_mean",
    "stability": "stability_score_mean",
    "flicker": "flicker",
}
LESS_IS_BETTER = frozenset(["flicker"])
REASONS = (NEVER_VISIBLE, COVERS_FRAME, *MEASURES)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found out about a masklet by asking the model again, and what follows.

    Attributes:
        cycle_iou, reprompt_iou: see `VerdictRules`; None where there was nothing to compare.
        verdict: accept it, have a person or a prompt refine it, or reject it.
        reasons: the rules that stand against it, of `REASONS`; empty if it is accepted.
    """

    cycle_iou: float | None
    reprompt_iou: float | None
    verdict: Verdict
    reasons: tuple[str, ...] = ()


def judge(measures: Mapping[str, Any], cycle_iou: float | None, reprompt_iou: float | None, rules: VerdictRules) -> Judgement:
    """The verdict on a masklet whose ``measures`` are named as in the masklets table. The worst measure decides; all that are
    not good are reasons, but of a rejected masklet those only for which it is rejected."""
    if not measures["visible_frame_count"]:
        return Judgement(cycle_iou, reprompt_iou, "reject", (NEVER_VISIBLE,))
    found = dict(measures) | {"cycle_iou": cycle_iou, "reprompt_iou": reprompt_iou}
    bad = [COVERS_FRAME] if measures["size_rel"] > rules.max_coverage else []
    doubtful = []
    for name, column in MEASURES.items():
        value, limits = found[column], getattr(rules, name)
        if value is None:
            continue
        sign = -1 if name in LESS_IS_BETTER else 1
        if sign * value < sign * limits[0]:
            bad.append(name)
        elif sign * value < sign * limits[1]:
            doubtful.append(name)
    if bad:
        return Judgement(cycle_iou, reprompt_iou, "reject", tuple(bad))
    return Judgement(cycle_iou, reprompt_iou, "refine" if doubtful else "accept", tuple(doubtful))


class MaskStore(Protocol):
    """The masks of one video's masklets, wherever they are kept."""

    def visible_frames(self, masklet_id: int) -> np.ndarray:
        """The annotated frames on which the masklet's mask is not empty, int64, rising."""
        ...

    def mask(self, masklet_id: int, frame_index: int) -> Rle: ...

    def measures(self, masklet_id: int) -> Mapping[str, Any]:
        """The masklet's measures under their names in the masklets table."""
        ...
