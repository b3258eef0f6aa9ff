"""The facts of ours for which other formats have no name, under the names of our columns; other readers pass them over.

COCO, YouTube-VIS and SA-V files have them beside their own, each in its own places.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.annotated import annotated_masklet
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.verdict import VERDICTS, Judgement

SCORES = ("predicted_iou", "object_score", "stability_score")
MASK_FACTS = (*SCORES, "raw_area")


def masklet_facts(masklet: Masklet) -> dict[str, Any]:
    """Of a masklet as a whole."""
    seed, prompt = masklet.seed, masklet.seed.prompt
    rest = {key: value for key, value in seed.attributes.items() if key not in ("category", "iscrowd")}
    facts: dict[str, Any] = {"masklet_id": seed.masklet_id, "masklet_type": seed.kind, "object_id": seed.object_id}
    facts |= {"shot_index": seed.shot_index, "parent_masklet_id": seed.parent_masklet_id}
    facts |= {"iscrowd": seed.attributes.get("iscrowd", 0), "attributes": rest}
    points = np.column_stack([prompt.points_xy, prompt.point_labels]).tolist() if len(prompt.points_xy) else []
    box = None if prompt.box_xyxy is None else prompt.box_xyxy.tolist()
    facts |= {"prompt_frame_index": prompt.frame_index, "prompt_points": points, "prompt_box": box}
    if (judged := masklet.judgement) is None:
        return facts
    facts |= {"cycle_iou": judged.cycle_iou, "reprompt_iou": judged.reprompt_iou}
    return facts | {"verdict": judged.verdict, "verdict_reasons": list(judged.reasons)}


def mask_facts(frame: MaskletFrame) -> dict[str, float | int | None]:
    """Of one mask; None for what nobody knows."""
    values = {name: getattr(frame, name) for name in SCORES}
    scores = {name: None if math.isnan(value) else value for name, value in values.items()}
    return scores | {"raw_area": frame.raw_area}


def read_masklet(
    video_id: str,
    facts: Mapping[str, Any],
    numbers: tuple[int, int],
    frames: Sequence[tuple[int, float, Rle, Mapping[str, Any]]],
    category: Mapping[str, Any] | None = None,
) -> Masklet:
    """A masklet from what `masklet_facts` wrote, or from another's annotation.

    Args:
        numbers: masklet id and object id where the facts have none.
        frames: (native frame number, timestamp, mask, its facts) of every annotated frame.
        category: of the file, which the facts name by its number.
    """
    masklet_id, kind = facts.get("masklet_id", numbers[0]), facts.get("masklet_type", "prompted")
    object_id = facts.get("object_id", None if kind == "auto" else numbers[1])
    plain = annotated_masklet(
        video_id, masklet_id, {frame: rle for frame, _, rle, _ in frames}, 1.0, kind=kind, object_id=object_id
    )
    known = tuple(_frame(*one) for one in frames)
    attributes = dict(facts.get("attributes") or {})
    if facts.get("iscrowd"):
        attributes["iscrowd"] = facts["iscrowd"]
    if category is not None:
        attributes["category"] = dict(category)
    shot, parent = facts.get("shot_index"), facts.get("parent_masklet_id")
    seed = replace(plain.seed, attributes=attributes, shot_index=shot, parent_masklet_id=parent)
    if facts.get("prompt_frame_index") is not None:
        seed = replace(seed, prompt=_prompt(seed.prompt.object_id, facts, known))
    return Masklet(video_id, seed, known, _judgement(facts))


def _prompt(object_id: int, facts: Mapping[str, Any], frames: Sequence[MaskletFrame]) -> Prompt:
    """Of one that was a mask only the frame is told; the mask there, or on the annotated frame nearest to it, stands for it."""
    index, points, box = facts["prompt_frame_index"], facts.get("prompt_points") or [], facts.get("prompt_box")
    if not points and box is None:
        nearest = min(frames, key=lambda frame: abs(frame.frame_index - index))
        return Prompt(object_id, nearest.frame_index, mask=nearest.rle)
    array = np.reshape(np.asarray(points, np.float32), (-1, 3))
    return Prompt(object_id, index, array[:, :2], array[:, 2], box)


def _judgement(facts: Mapping[str, Any]) -> Judgement | None:
    if facts.get("verdict") is None:
        return None
    if facts["verdict"] not in VERDICTS:
        raise ConfigError(f"a verdict is {facts['verdict']!r}, expected one of {', '.join(VERDICTS)}")
    reasons = tuple(facts.get("verdict_reasons") or ())
    return Judgement(facts.get("cycle_iou"), facts.get("reprompt_iou"), facts["verdict"], reasons)


def _frame(index: int, timestamp_s: float, rle: Rle, facts: Mapping[str, Any]) -> MaskletFrame:
    predicted_iou, object_score, stability_score = (math.nan if facts.get(name) is None else facts[name] for name in SCORES)
    return MaskletFrame(index, timestamp_s, rle, predicted_iou, object_score, stability_score, facts.get("raw_area"))
