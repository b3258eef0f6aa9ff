"""The content of SA-V's JSON files, to and from annotated videos.

``masklet`` holds, for every annotated frame, the masks of all objects. The files do not number their frames; videos of 24 frames
a second are annotated at 6, from the first on. Where frames are not evenly apart we add ``masklet_frame_index``, their numbers.
Masklets that began with a prompt are called manual there. What else we know of masklets is in lists of our own (`sav_additions`).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.facts import read_masklet
from sam2_pipeline.formats.masks import USUAL_FPS
from sam2_pipeline.formats.sav_additions import (
    read_mask_additions,
    read_masklet_additions,
    read_video_additions,
    write_additions,
)
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Kind, Masklet
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.work import VideoInfo

SavKind = Literal["manual", "auto"]

ANNOTATED_FPS = 6
# What only SA-V says, and what it says of videos and masklets that know no better.
_OF_VIDEO: dict[str, Any] = {"video_environment": "", "video_split": ""}
_EDITED = "masklet_edited_frame_count"
_KIND_OF: dict[str, Kind] = {"auto": "auto", "manual": "prompted"}


def read_annotation(content: Any, video_id: str) -> AnnotatedVideo:
    """The video that the content of a file is about.

    Raises:
        ConfigError: it is no such annotation.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("masklet"), list):
        raise ConfigError("not an SA-V annotation: it has no list named masklet")
    masks = content["masklet"]
    ids = [int(number) for number in content.get("masklet_id", range(len(masks[0]) if masks else 0))]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"masklet_id is {ids}, expected different numbers")
    rles = [_read_frame(place, row, ids) for place, row in enumerate(masks)]
    frames = _frame_numbers(content)
    fps, codec, added, times = read_video_additions(content)
    info = _info(content, frames, rles, fps, codec)
    masklets = []
    for n, number in enumerate(ids if frames else []):
        stability = _stability_scores(content, n, len(frames))
        rows = []
        for place, frame in enumerate(frames):
            facts = stability[place] | read_mask_additions(content, place, n)
            rows.append((frame, times[place] if times else frame / info.fps, rles[place][n], facts))
        masklets.append(read_masklet(video_id, _masklet_facts(content, n), (number, number), rows))
    attributes = {key: content[key] for key in _OF_VIDEO if content.get(key)} | added
    ordered = tuple(sorted(masklets, key=lambda masklet: masklet.masklet_id))
    return AnnotatedVideo(video_id, info, frames, ordered, attributes=attributes)


def write_annotation(video: AnnotatedVideo) -> dict[str, Any]:
    """The content of a file; the measures are computed from the masks."""
    masklets, frames, info = video.masklets, video.frames, video.info
    rows = [measure(masklet.frames) for masklet in masklets]
    types = [sav_kind(masklet) for masklet in masklets]
    stability = [[_number(masklet.frames[place].stability_score) for masklet in masklets] for place in range(len(frames))]
    scored = "auto" in types and any(score is not None for row in stability for score in row)
    content = {
        "video_id": video.video_id,
        "video_duration": float(info.duration_s),
        "video_frame_count": float(info.frame_count),
        "video_height": float(info.height),
        "video_width": float(info.width),
        "video_resolution": float(info.height * info.width),
        **{key: video.attributes.get(key, usual) for key, usual in _OF_VIDEO.items()},
        "masklet": [[masklet.frames[place].rle.to_coco() for masklet in masklets] for place in range(len(frames))],
        "masklet_id": list(video.numbers()),
        "masklet_size_rel": [row["size_rel"] for row in rows],
        "masklet_size_abs": [row["size_abs"] for row in rows],
        "masklet_size_bucket": [row["size_bucket"] for row in rows],
        "masklet_visibility_changes": [row["visibility_changes"] for row in rows],
        # Counted in annotated frames, as SA-V counts; null for what is never visible.
        "masklet_first_appeared_frame": [
            None if row["first_frame_index"] is None else frames.index(row["first_frame_index"]) for row in rows
        ],
        "masklet_frame_count": [len(frames)] * len(masklets),
        _EDITED: [one.seed.attributes.get(_EDITED, 0 if kind == "auto" else 1) for one, kind in zip(masklets, types)],
        "masklet_type": types,
        "masklet_stability_score": stability if scored else [None] * len(masklets),
        "masklet_num": len(masklets),
    }
    if frames and tuple(range(0, len(frames) * (step := _step_or_0(content)), step or 1)) != frames:
        content["masklet_frame_index"] = list(frames)
    fps = _usual_fps(info.frame_count, info.duration_s)
    return content | write_additions(video, fps, scored, known=(*_OF_VIDEO, _EDITED))


def frame_step(content: Mapping[str, Any]) -> int:
    """Native frames from one annotated frame to the next, from the numbers of both.

    Several steps may fit a short video; then it is the one nearest to 6 annotations a second (24 frames a second where
    the file has no duration).

    Raises:
        ConfigError: no step fits the two numbers.
    """
    annotated = len(content["masklet"])
    total = int(content.get("video_frame_count") or annotated)
    duration = float(content.get("video_duration") or 0)
    usual = (total / duration if duration else USUAL_FPS) / ANNOTATED_FPS
    fitting = [step for step in range(1, total + 1) if -(-total // step) == annotated]
    if annotated and not fitting:
        raise ConfigError(f"{annotated} annotated frames of {total} (video_frame_count) are no even choice, expected every n-th")
    return min(fitting, key=lambda step: abs(step - usual), default=1)


def _step_or_0(content: Mapping[str, Any]) -> int:
    try:
        return frame_step(content)
    except ConfigError:
        return 0


def _frame_numbers(content: Mapping[str, Any]) -> tuple[int, ...]:
    annotated, stated = len(content["masklet"]), content.get("masklet_frame_index")
    if stated is None:
        step = frame_step(content)
        return tuple(range(0, annotated * step, step))
    numbers = tuple(int(number) for number in stated)
    if len(numbers) != annotated or any(a >= b for a, b in pairwise(numbers)) or min(numbers, default=0) < 0:
        raise ConfigError(f"masklet_frame_index is {stated}, expected {annotated} rising numbers")
    return numbers


def _read_frame(place: int, masks: Any, ids: list[int]) -> list[Rle]:
    if not isinstance(masks, list) or len(masks) != len(ids):
        found = len(masks) if isinstance(masks, list) else masks
        raise ConfigError(f"annotated frame {place} has {found} masks, expected {len(ids)} (masklet_id)")
    for number, mask in zip(ids, masks):
        if not isinstance(mask, Mapping):
            raise ConfigError(f"the mask of object {number} on annotated frame {place} is {mask!r}, expected an RLE")
    return [Rle.from_coco(mask) for mask in masks]


def _info(content: Mapping[str, Any], frames: tuple[int, ...], rles: list[list[Rle]], fps: float | None, codec: str) -> VideoInfo:
    first = next((rle for row in rles for rle in row), None)
    height = int(content.get("video_height") or (first.height if first else 0))
    width = int(content.get("video_width") or (first.width if first else 0))
    total = int(content.get("video_frame_count") or (frames[-1] + 1 if frames else 0))
    duration = float(content.get("video_duration") or total / USUAL_FPS)
    return VideoInfo(width, height, fps or _usual_fps(total, duration), total, duration, codec)


def _usual_fps(total: int, duration: float) -> float:
    return total / duration if duration else USUAL_FPS


def _masklet_facts(content: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Of masklet ``n``, under the names of our columns."""
    facts = {"masklet_type": _KIND_OF.get(_item(content.get("masklet_type"), n), "prompted")} | read_masklet_additions(content, n)
    edited = _item(content.get(_EDITED), n)
    attributes = ({} if edited is None else {_EDITED: edited}) | facts.get("attributes", {})
    return facts | {"attributes": attributes}


def _stability_scores(content: Mapping[str, Any], n: int, frames: int) -> list[dict[str, Any]]:
    """Of masklet ``n`` on every frame; none where the file has none (then it has one null a masklet)."""
    scores = content.get("masklet_stability_score") or []
    if len(scores) != frames or not all(isinstance(row, list) for row in scores):
        return [{}] * frames
    return [{"stability_score": row[n]} for row in scores]


def sav_kind(masklet: Masklet) -> SavKind:
    return "auto" if masklet.kind == "auto" else "manual"


def _item(values: Any, n: int) -> Any:
    return values[n] if isinstance(values, list) and n < len(values) else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
