"""COCO: one JSON file; an annotation is a mask on a picture.

What makes masklets of masks is said as in TAO: ``videos``, pictures with ``video_id`` and ``frame_index``, ``tracks``, and
annotations with ``track_id``. COCO has no empty masks: where a masklet has no annotation, it is not visible; what is known of its
empty masks is in its track, ``hidden_masks``.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import PurePosixPath
from typing import Any

from sam2_pipeline.errors import VideoError
from sam2_pipeline.formats.coco_items import (
    Categories,
    category_of,
    frame_numbers,
    head,
    read_info,
    read_segmentation,
    video_facts,
)
from sam2_pipeline.formats.facts import MASK_FACTS, mask_facts, masklet_facts, read_masklet
from sam2_pipeline.formats.json_lists import Item, ListsWriter, Shelf
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.rle import Rle

FILE = "annotations.json"
_PICTURES = "images"


class CocoWriter:
    """Writes ``annotations.json``; pictures belong in ``images/VIDEO/00000.jpg``, named by native frame numbers."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._lists = ListsWriter(("videos", "tracks", "images", "annotations"))
        self._categories = Categories()
        self._numbers = {name: count(1) for name in ("videos", "tracks", "images", "annotations")}

    def add(self, video: AnnotatedVideo) -> None:
        number = self._add("videos", video_facts(video))
        belongs = [{"video_id": number, "category_id": self._categories.number(masklet)} for masklet in video.masklets]
        facts_of = [ids | masklet_facts(one) | _hidden_facts(one) for ids, one in zip(belongs, video.masklets)]
        tracks = [self._add("tracks", facts) for facts in facts_of]
        size = {"width": video.info.width, "height": video.info.height}
        for place, frame in enumerate(video.frames):
            name = f"{video.video_id}/{frame:05d}.jpg"
            facts = {"file_name": name, "video_id": number, "frame_index": frame, "timestamp_s": video.timestamp_s(frame)}
            image = self._add("images", facts | size)
            for track, ids, masklet in zip(tracks, belongs, video.masklets):
                mask = masklet.frames[place]
                if area := mask.rle.area:
                    shape = {"segmentation": mask.rle.to_coco(), "area": area, "bbox": list(mask.rle.bbox_xywh)}
                    places = {"image_id": image, "track_id": track, "iscrowd": masklet.seed.attributes.get("iscrowd", 0)}
                    self._add("annotations", places | ids | shape | mask_facts(mask))

    def finish(self) -> None:
        description = "masklets in the format of COCO, with tracks as in TAO"
        self._lists.finish(self.storage, FILE, head(description, self._categories))

    def picture_name(self, video_id: str, frame: int) -> str:
        return f"{_PICTURES}/{video_id}/{frame:05d}.jpg"

    def notes(self) -> list[str]:
        return []

    def _add(self, name: str, item: Item) -> int:
        number = next(self._numbers[name])
        self._lists.add(name, {"id": number} | item)
        return number


class CocoMasks(MaskSource):
    """Without ``videos`` in the file every picture is a video of one frame, called as its file (see `MaskSource`)."""

    automatic = False

    def __init__(self, storage: Storage, name: str) -> None:
        self.url = storage.locate(name)
        self._storage = storage
        self._beside = PurePosixPath(name).parent / _PICTURES
        owners = {
            "videos": lambda item: item["id"],
            "tracks": lambda item: item["video_id"],
            "images": lambda item: item.get("video_id", item["id"]),
            "annotations": lambda item: item["image_id"],
            "categories": lambda item: item["id"],
        }
        self._shelf = Shelf(storage, name, owners)
        self._ids = {str(item.get("name") or item["id"]): item["id"] for item in self._shelf.all("videos")}
        if not self._ids:
            self._ids = {str(PurePosixPath(item["file_name"]).with_suffix("")): item["id"] for item in self._shelf.all("images")}

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._ids))

    def load(self, video_id: str) -> AnnotatedVideo:
        try:
            return self._load(video_id, self._ids[video_id])
        except (ValueError, TypeError, KeyError) as error:
            raise VideoError(f"{self.url}: video {video_id!r}: {error!r}") from error

    def video_url(self, video_id: str) -> str | None:
        return (
            self._storage.locate(str(self._beside / video_id)) if any(self._storage.list(f"{self._beside}/{video_id}")) else None
        )

    def _load(self, video_id: str, number: int) -> AnnotatedVideo:
        images = self._shelf.get("images", number)
        if not images:
            raise VideoError(f"{self.url}: video {video_id!r} has no images")
        images.sort(key=lambda image: (image.get("frame_index", 0), image["file_name"]))
        videos = self._shelf.get("videos", number)
        facts = videos[0] if videos else images[0]
        frames = _frames(images) if videos else (0,)
        info = read_info({"width": images[0]["width"], "height": images[0]["height"]} | facts, frames)
        times = [image.get("timestamp_s", frame / info.fps) for frame, image in zip(frames, images)]
        tracks: dict[Any, Item] = {track["id"]: track for track in self._shelf.get("tracks", number)}
        masks: dict[Any, dict[int, Item]] = {track: {} for track in tracks}
        for frame, image in zip(frames, images):
            for item in self._shelf.get("annotations", image["id"]):
                track = item.get("track_id", item.get("instance_id", f"annotation {item['id']}"))
                if masks.setdefault(track, {}).setdefault(frame, item) is not item:
                    raise VideoError(f"{self.url}: track {track} has two masks on image {image['id']}")
        masklets = []
        for place, (track, found) in enumerate(masks.items()):
            facts_of = tracks[track] if track in tracks else _facts(next(iter(found.values())))
            numbers = (place, track if isinstance(track, int) else facts_of["id"])
            hidden = {item["frame_index"]: item for item in facts_of.get("hidden_masks", [])}
            rows = [
                (frame, at, *_mask(found.get(frame), hidden.get(frame, {}), info.height, info.width))
                for frame, at in zip(frames, times)
            ]
            category = next(iter(self._shelf.get("categories", facts_of.get("category_id"))), None)
            masklets.append(read_masklet(video_id, facts_of, numbers, rows, category_of(category)))
        ordered = tuple(sorted(masklets, key=lambda masklet: masklet.masklet_id))
        uri = facts.get("uri") or self.video_url(video_id)
        return AnnotatedVideo(video_id, info, frames, ordered, uri, facts.get("attributes") or {})


def _frames(images: list[Item]) -> tuple[int, ...]:
    given = tuple(image["frame_index"] for image in images if "frame_index" in image)
    return given if len(given) == len(images) else frame_numbers([image["file_name"] for image in images])


def _facts(item: Item) -> Item:
    """What one annotation says of the masklet that it begins."""
    return {key: item[key] for key in ("id", "category_id", "iscrowd") if key in item}


def _hidden_facts(masklet: Masklet) -> Item:
    """What is known of the masks that are empty, if anything."""
    facts = [{"frame_index": mask.frame_index} | mask_facts(mask) for mask in masklet.frames if not mask.rle.area]
    return {"hidden_masks": facts} if any(one[name] is not None for one in facts for name in MASK_FACTS) else {}


def _mask(item: Item | None, hidden: Item, height: int, width: int) -> tuple[Rle, Mapping[str, Any]]:
    """A mask and its facts."""
    if item is None:
        return Rle.empty(height, width), hidden
    return read_segmentation(item["segmentation"], height, width), item
