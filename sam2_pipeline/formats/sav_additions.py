"""What SA-V's JSON has no name for, in lists of its own manner: ``masklet_verdict`` has an item a masklet, ``mask_raw_area`` such
a list for every annotated frame. Readers of SA-V pass them over, and what would say nothing new is not written.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.facts import MASK_FACTS, mask_facts, masklet_facts
from sam2_pipeline.masklets.annotated import AnnotatedVideo, annotated_masklet
from sam2_pipeline.masklets.masklet import Masklet

_PROMPT = ("prompt_frame_index", "prompt_points", "prompt_box")
_NAMES = {  # of the facts: masklet_id is taken, by the numbers of prompted objects
    "masklet_id": "masklet_number",
    "parent_masklet_id": "masklet_parent_number",
    **{name: f"masklet_{name}" for name in ("object_id", "shot_index", "attributes", *_PROMPT)},
    **{name: f"masklet_{name}" for name in ("cycle_iou", "reprompt_iou", "verdict", "verdict_reasons")},
}
_TIMES, _FPS, _CODEC, _ATTRIBUTES = "masklet_timestamp_s", "video_fps", "video_codec", "video_attributes"


def write_additions(video: AnnotatedVideo, fps: float, has_stability: bool, known: Iterable[str]) -> dict[str, Any]:
    """Further items of a file.

    Args:
        fps: what the file makes readers believe otherwise.
        has_stability: whether it holds stability scores already.
        known: attributes of videos and masklets that it holds already.
    """
    known, info = set(known), video.info
    rest = {key: value for key, value in video.attributes.items() if key not in known}
    found: dict[str, Any] = {_FPS: info.fps} if info.fps != fps else {}
    found |= {name: value for name, value in ((_CODEC, info.codec), (_ATTRIBUTES, rest)) if value}
    times = [video.timestamp_s(frame) for frame in video.frames]
    if times != [frame / info.fps for frame in video.frames]:
        found[_TIMES] = times
    rows = [_additions(masklet, number, known) for masklet, number in zip(video.masklets, video.numbers())]
    for name, key in _NAMES.items():
        if any(name in row for row in rows):
            found[key] = [row.get(name) for row in rows]
    masks = [[mask_facts(masklet.frames[place]) for masklet in video.masklets] for place in range(len(video.frames))]
    for name in MASK_FACTS:
        if any(one[name] is not None for row in masks for one in row) and not (has_stability and name == "stability_score"):
            found[f"mask_{name}"] = [[one[name] for one in row] for row in masks]
    return found


def _additions(masklet: Masklet, number: int, known: set[str]) -> dict[str, Any]:
    """Facts that a reader would not guess from the file."""
    object_id = None if masklet.kind == "auto" else number
    masks = {frame.frame_index: frame.rle for frame in masklet.frames}
    guessed = annotated_masklet(masklet.video_id, number, masks, 1.0, kind=masklet.kind, object_id=object_id)
    attributes = {key: value for key, value in masklet.seed.attributes.items() if key not in known}
    usual, facts = masklet_facts(guessed), masklet_facts(masklet) | {"attributes": attributes}
    changed = {name for name in _NAMES if facts.get(name) != usual.get(name)}
    wanted = changed.union(_PROMPT if changed.intersection(_PROMPT) else ())
    return {name: facts[name] for name in _NAMES if name in wanted}


def read_masklet_additions(content: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The facts of masklet ``n``, those that the file has."""
    number = len(content["masklet"][0])
    facts = {name: _list(content[key], key, number)[n] for name, key in _NAMES.items() if key in content}
    return {name: value for name, value in facts.items() if value is not None}


def read_mask_additions(content: Mapping[str, Any], place: int, n: int) -> dict[str, Any]:
    """The facts of the mask of masklet ``n`` on annotated frame ``place``, those that the file has."""
    masks, keys = content["masklet"], {name: f"mask_{name}" for name in MASK_FACTS}
    rows = {name: (key, _list(content[key], key, len(masks))[place]) for name, key in keys.items() if key in content}
    return {name: _list(row, key, len(masks[place]))[n] for name, (key, row) in rows.items()}


def read_video_additions(content: Mapping[str, Any]) -> tuple[float | None, str, dict[str, Any], Sequence[float] | None]:
    """Frames a second, codec, attributes, and times of the annotated frames, as far as the file has them."""
    times = _list(content[_TIMES], _TIMES, len(content["masklet"])) if _TIMES in content else None
    return content.get(_FPS), content.get(_CODEC) or "", dict(content.get(_ATTRIBUTES) or {}), times


def _list(values: Any, key: str, length: int) -> list[Any]:
    if not isinstance(values, list) or len(values) != length:
        raise ConfigError(f"{key} is {str(values)[:60]}, expected a list of {length}")
    return values
