"""Which masklets to look at: the best, the worst, and those about which the scores contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from sam2_pipeline.report.facts import Facts

_SCORES = ("predicted_iou_mean", "stability_score_mean", "stability_score_min")


@dataclass(frozen=True, slots=True)
class Pick:
    """A masklet, in words why it was picked, and what was judged of it, if anything was."""

    video_id: str
    masklet_id: int
    caption: str
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    title: str
    hint: str
    picks: tuple[Pick, ...]


def choose(facts: Facts, most: int) -> list[Sheet]:
    """Sheets of up to ``most`` masklets each. Without scores (imports have none) there is one, of masklets from everywhere."""
    visible = facts.masklets.filter(pc.field("visible_frame_count") > 0)
    scored = visible.filter(pc.and_(*(pc.is_valid(visible[name]) for name in _SCORES[:2])))
    rows = np.arange(scored.num_rows)
    if not len(rows):
        places = np.linspace(0, max(visible.num_rows - 1, 0), min(most, visible.num_rows)).round().astype(int)
        picks = tuple(_pick(row) for row in visible.take(places).to_pylist())
        return [Sheet("Some masklets", "from all over the dataset; nothing scored them", picks)] if picks else []
    iou, stability, lowest = (scored[name].to_numpy() for name in _SCORES)
    quality, doubt = iou * stability, iou - lowest
    count = min(most, max(len(rows) // 3, 1))
    order = np.argsort(-quality, kind="stable")
    best, worst = order[:count], order[count:][::-1][:count]
    left = np.setdiff1d(rows, np.concatenate([best, worst]))
    doubtful = left[np.argsort(-doubt[left], kind="stable")[:count]]
    texts = [
        ("Best", "the highest product of predicted IoU and stability", best),
        ("Most doubtful", "sure on the whole, and yet on some frame the mask hangs on the threshold", doubtful),
        ("Worst", "the lowest product of predicted IoU and stability", worst),
    ]
    return [
        Sheet(title, hint, tuple(_pick(row) for row in scored.take(places).to_pylist()))
        for title, hint, places in texts
        if len(places)
    ]


def _pick(row: dict[str, object]) -> Pick:
    names = ("predicted IoU", "stability", "at worst")
    scores = [f"{name} {row[key]:.2f}" for name, key in zip(names, _SCORES) if row[key] is not None]
    seen = f"visible on {row['visible_frame_count']} of {row['frame_count']} frames"
    reasons = row["verdict_reasons"] or ()
    verdict = None if row["verdict"] is None else str(row["verdict"])
    judged = [f"{verdict}{_because(reasons)}"] if verdict else []  # type: ignore[arg-type]
    return Pick(str(row["video_id"]), int(str(row["masklet_id"])), ", ".join([*judged, *scores, seen]), verdict)


def _because(reasons: Sequence[str]) -> str:
    return f" ({', '.join(reasons)})" if reasons else ""
