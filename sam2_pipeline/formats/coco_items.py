"""What COCO and YouTube-VIS share: segmentations, categories, and the facts of ours for which they have no name.

Those facts stand beside the formats' own under the names of our columns; other readers pass them over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sam2_pipeline import __version__
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.masks import USUAL_FPS
from sam2_pipeline.masklets.annotated import AnnotatedVideo, annotated_masklet
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.work import VideoInfo

OBJECT = {"name": "object", "supercategory": "object"}  # of masklets of our own, which have no class
SCORES = ("predicted_iou", "object_score", "stability_score")


class Categories:
    """The categories of masklets, numbered: as where they came from, if the number is free."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def number(self, masklet: Masklet) -> int:
        category = masklet.seed.attributes.get("category", OBJECT)
        name = category["name"]
        if name not in self._known:
            taken = {one["id"] for one in self._known.values()}
            wanted = category.get("id", 1)
            self._known[name] = {"id": wanted if wanted not in taken else max(taken) + 1} | {
                key: value for key, value in category.items() if key != "id"
            }
        return self._known[name]["id"]

    def all(self) -> list[dict[str, Any]]:
        return sorted(self._known.values(), key=lambda one: one["id"]) or [{"id": 1} | OBJECT]


def head(description: str, categories: Categories) -> dict[str, Any]:
    """How such a file begins."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    info = {"description": description, "version": f"sam2_pipeline {__version__}", "date_created": made, "year": int(made[:4])}
    return {"info": info, "licenses": [], "categories": categories.all()}


def video_facts(video: AnnotatedVideo) -> dict[str, Any]:
    info = video.info
    size = {"name": video.video_id, "width": info.width, "height": info.height}
    return (
        size
        | {name: getattr(info, name) for name in ("fps", "frame_count", "duration_s", "codec")}
        | {
            "uri": video.uri,
            "attributes": dict(video.attributes),
        }
    )


def read_info(facts: Mapping[str, Any], frames: Sequence[int]) -> VideoInfo:
    """Of a video by its facts; what they leave open follows from the frames and a rate of 24 a second."""
    fps = facts.get("fps") or USUAL_FPS
    total = facts.get("frame_count") or (frames[-1] + 1 if frames else 0)
    size = int(facts["width"]), int(facts["height"])
    return VideoInfo(*size, float(fps), int(total), float(facts.get("duration_s") or total / fps), facts.get("codec") or "")


def masklet_facts(masklet: Masklet) -> dict[str, Any]:
    """Of a masklet as a whole."""
    seed, prompt = masklet.seed, masklet.seed.prompt
    rest = {key: value for key, value in seed.attributes.items() if key not in ("category", "iscrowd")}
    facts: dict[str, Any] = {"masklet_id": seed.masklet_id, "masklet_type": seed.kind, "object_id": seed.object_id}
    facts |= {"shot_index": seed.shot_index, "parent_masklet_id": seed.parent_masklet_id}
    facts |= {"iscrowd": seed.attributes.get("iscrowd", 0), "attributes": rest}
    if prompt.mask is not None:
        return facts
    points = np.column_stack([prompt.points_xy, prompt.point_labels]).tolist() if len(prompt.points_xy) else []
    box = None if prompt.box_xyxy is None else prompt.box_xyxy.tolist()
    return facts | {"prompt_frame_index": prompt.frame_index, "prompt_points": points, "prompt_box": box}


def read_masklet(
    video_id: str,
    facts: Mapping[str, Any],
    numbers: tuple[int, int],
    frames: Sequence[tuple[int, float, Rle, Mapping[str, Any]]],
    category: Mapping[str, Any] | None,
) -> Masklet:
    """A masklet from what `masklet_facts` wrote, or from another's annotation.

    Args:
        numbers: masklet id and object id where the facts have none.
        frames: (native frame number, timestamp, mask, scores) of every annotated frame.
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
    if category is not None and category["name"] != OBJECT["name"]:
        attributes["category"] = dict(category)
    shot, parent = facts.get("shot_index"), facts.get("parent_masklet_id")
    seed = replace(plain.seed, attributes=attributes, shot_index=shot, parent_masklet_id=parent)
    if "prompt_frame_index" in facts:
        points = np.reshape(np.asarray(facts["prompt_points"], np.float32), (-1, 3))
        index, number = facts["prompt_frame_index"], seed.prompt.object_id
        prompt = Prompt(number, index, points[:, :2], points[:, 2], facts["prompt_box"])
        seed = replace(seed, prompt=prompt)
    return Masklet(video_id, seed, known)


def read_segmentation(segmentation: Any, height: int, width: int) -> Rle:
    """A mask as run lengths, compressed or not, or as polygons; None is an empty one.

    Raises:
        ConfigError: it is neither, or of another size.
    """
    if segmentation is None:
        return Rle.empty(height, width)
    if isinstance(segmentation, list):
        if not all(isinstance(polygon, list) and len(polygon) >= 6 for polygon in segmentation):
            raise ConfigError(f"a segmentation is {str(segmentation)[:60]}, expected polygons of 3 points at least")
        if not segmentation:
            return Rle.empty(height, width)
        merged = coco.merge(coco.frPyObjects(segmentation, height, width))
        return Rle(height, width, merged["counts"])
    rle = Rle.from_coco(segmentation)
    if (rle.height, rle.width) != (height, width):
        raise ConfigError(f"a segmentation is of {rle.height}x{rle.width} pixels, its picture of {height}x{width}")
    return rle


def frame_numbers(names: Sequence[str]) -> tuple[int, ...]:
    """Native frame numbers: those that the pictures are named by, if they are; else 0, 1, 2, ..."""
    stems = [PurePosixPath(name).stem for name in names]
    numbers = tuple(int(stem) for stem in stems) if all(stem.isdecimal() for stem in stems) else ()
    return numbers if numbers and sorted(set(numbers)) == list(numbers) else tuple(range(len(names)))


def score_facts(frame: MaskletFrame) -> dict[str, float | None]:
    values = {name: getattr(frame, name) for name in SCORES}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _frame(index: int, timestamp_s: float, rle: Rle, scores: Mapping[str, Any]) -> MaskletFrame:
    predicted_iou, object_score, stability_score = (_score(scores, name) for name in SCORES)
    return MaskletFrame(index, timestamp_s, rle, predicted_iou, object_score, stability_score)


def _score(scores: Mapping[str, Any], name: str) -> float:
    return math.nan if scores.get(name) is None else scores[name]
