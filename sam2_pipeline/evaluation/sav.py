"""Masks out of SA-V's JSON files: ``sav_000001_manual.json`` and ``sav_000001_auto.json``.

``masklet`` holds, for every annotated frame, the masks of all objects. The files do not number their frames; videos of 24 frames
a second are annotated at 6, from the first on.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.evaluation.masks import Masks
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.rle import Rle

ANNOTATED_FPS = 6
_NAME = re.compile(r"(?P<video>.+?)(_(?P<kind>manual|auto))?\.json", re.IGNORECASE)


class SavMasks:
    """The video id is the file's name relative to the folder, less ``_manual.json`` or ``_auto.json`` (see `MaskSource`).

    Files without either ending count only where no file has one. ``kind`` chooses where there are both.
    """

    def __init__(self, storage: Storage, names: Iterable[str], kind: str | None = None) -> None:
        self.url = storage.url
        self._storage = storage
        found = [match for match in map(_NAME.fullmatch, names) if match]
        kinds = {match["kind"].lower() for match in found if match["kind"]}
        if kind is not None and kind not in kinds:
            raise ConfigError(f"{self.url} holds no {kind} masklets, expected files that end in _{kind}.json")
        if len(kinds) == 2 and kind is None:
            raise ConfigError(
                f"{self.url} holds manual and automatic masklets, expected one kind (for ground truth, choose with --sav)"
            )
        chosen = kind or (kinds.pop() if kinds else None)
        self._names = {match["video"]: match[0] for match in found if (match["kind"] or "").lower() == (chosen or "")}
        self.automatic = chosen == "auto"
        if len(found) == 1:
            self.url = storage.locate(found[0][0])

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._names))

    def read(self, video_id: str) -> Masks:
        name = self._names[video_id]
        try:
            return parse(json.loads(self._storage.read_bytes(name)))
        except (ValueError, TypeError) as error:  # ConfigErrors of masks are ValueErrors, too
            raise VideoError(f"{self._storage.locate(name)}: {error}") from error


def parse(annotation: Any) -> Masks:
    """Object id -> native frame number -> mask, of the content of a file.

    Raises:
        ConfigError: it is no such annotation.
    """
    if not isinstance(annotation, Mapping) or not isinstance(annotation.get("masklet"), list):
        raise ConfigError("not an SA-V annotation: it has no list named masklet")
    frames = annotation["masklet"]
    number = len(frames[0]) if frames else 0
    ids = [int(object_id) for object_id in annotation.get("masklet_id", range(number))]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"masklet_id is {ids}, expected different numbers")
    step = frame_step(annotation)
    objects: Masks = {object_id: {} for object_id in ids}
    for place, masks in enumerate(frames):
        if len(masks) != len(ids):
            raise ConfigError(f"annotated frame {place} has {len(masks)} masks, expected {len(ids)} (masklet_id)")
        for object_id, mask in zip(ids, masks):
            if not isinstance(mask, Mapping):
                raise ConfigError(f"the mask of object {object_id} on annotated frame {place} is {mask!r}, expected an RLE")
            objects[object_id][place * step] = Rle.from_coco(mask)
    return objects


def frame_step(annotation: Mapping[str, Any]) -> int:
    """Native frames from one annotated frame to the next, from the numbers of both.

    Several steps may fit a short video; then it is the one nearest to 6 annotations a second (24 frames a second where
    the file has no duration).

    Raises:
        ConfigError: no step fits the two numbers.
    """
    annotated = len(annotation["masklet"])
    total = int(annotation.get("video_frame_count") or annotated)
    duration = float(annotation.get("video_duration") or 0)
    usual = (total / duration if duration else 24) / ANNOTATED_FPS
    fitting = [step for step in range(1, total + 1) if -(-total // step) == annotated]
    if annotated and not fitting:
        raise ConfigError(f"{annotated} annotated frames of {total} (video_frame_count) are no even choice, expected every n-th")
    return min(fitting, key=lambda step: abs(step - usual), default=1)
