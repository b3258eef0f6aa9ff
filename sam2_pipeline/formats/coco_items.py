"""What COCO and YouTube-VIS share: segmentations, categories, and what they say of videos."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from pycocotools import mask as coco

from sam2_pipeline import __version__
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.masks import USUAL_FPS
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.work import VideoInfo

OBJECT = {"name": "object", "supercategory": "object"}  # of masklets of our own, which have no class


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


def category_of(item: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A category of a file, if it says more than that this is an object."""
    return None if item is None or item["name"] == OBJECT["name"] else item


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
