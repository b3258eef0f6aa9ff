"""YouTube-VIS: one JSON file; an annotation is a masklet, with a segmentation or null for every annotated frame."""

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
from sam2_pipeline.formats.json_lists import ListsWriter, Shelf
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.rle import Rle

FILE = "annotations.json"
_PICTURES = "JPEGImages"


class YtvisWriter:
    """Writes ``annotations.json``; pictures belong in ``JPEGImages/VIDEO/00000.jpg``, named by native frame numbers."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._lists = ListsWriter(("videos", "annotations"))
        self._categories = Categories()
        self._video_numbers, self._annotation_numbers = count(1), count(1)

    def add(self, video: AnnotatedVideo) -> None:
        number = next(self._video_numbers)
        names = [f"{video.video_id}/{frame:05d}.jpg" for frame in video.frames]
        times = [video.timestamp_s(frame) for frame in video.frames]
        facts = {"id": number, "length": len(names), "file_names": names, "timestamps_s": times}
        self._lists.add("videos", facts | video_facts(video))
        for masklet in video.masklets:
            category = self._categories.number(masklet)
            ids = {"id": next(self._annotation_numbers), "video_id": number, "category_id": category}
            size = {"width": video.info.width, "height": video.info.height}
            self._lists.add("annotations", ids | size | _masks(masklet) | masklet_facts(masklet))

    def finish(self) -> None:
        self._lists.finish(self.storage, FILE, head("masklets in the format of YouTube-VIS", self._categories))

    def picture_name(self, video_id: str, frame: int) -> str:
        return f"{_PICTURES}/{video_id}/{frame:05d}.jpg"

    def notes(self) -> list[str]:
        return []


class YtvisMasks(MaskSource):
    """A video is called as its ``name`` says, or as the folder of its pictures, or by its number (see `MaskSource`)."""

    automatic = False

    def __init__(self, storage: Storage, name: str) -> None:
        self.url = storage.locate(name)
        self._storage = storage
        self._beside = PurePosixPath(name).parent / _PICTURES
        owners = {"videos": lambda item: item["id"], "annotations": lambda item: item["video_id"]}
        self._shelf = Shelf(storage, name, owners | {"categories": owners["videos"]})
        self._ids = {_name(item): item["id"] for item in self._shelf.all("videos")}

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._ids))

    def load(self, video_id: str) -> AnnotatedVideo:
        (video,) = self._shelf.get("videos", self._ids[video_id])
        try:
            return self._load(video_id, video)
        except (ValueError, TypeError, KeyError) as error:
            raise VideoError(f"{self.url}: video {video_id!r}: {error}") from error

    def video_url(self, video_id: str) -> str | None:
        return (
            self._storage.locate(str(self._beside / video_id)) if any(self._storage.list(f"{self._beside}/{video_id}")) else None
        )

    def _load(self, video_id: str, video: Mapping[str, Any]) -> AnnotatedVideo:
        frames = frame_numbers(video.get("file_names") or [str(n) for n in range(video["length"])])
        info = read_info(video, frames)
        times = video.get("timestamps_s") or [frame / info.fps for frame in frames]
        masklets = []
        for place, item in enumerate(self._shelf.get("annotations", video["id"])):
            if len(item["segmentations"]) != len(frames):
                found = f"annotation {item['id']} has {len(item['segmentations'])} segmentations"
                raise VideoError(f"{self.url}: {found}, its video {len(frames)} frames")
            rles = [read_segmentation(one, info.height, info.width) for one in item["segmentations"]]
            known = [{name: item[name][n] for name in MASK_FACTS if name in item} for n in range(len(frames))]
            category = next(iter(self._shelf.get("categories", item.get("category_id"))), None)
            rows = list(zip(frames, times, rles, known))
            masklets.append(read_masklet(video_id, item, (place, item["id"]), rows, category_of(category)))
        ordered = tuple(sorted(masklets, key=lambda masklet: masklet.masklet_id))
        uri = video.get("uri") or self.video_url(video_id)
        return AnnotatedVideo(video_id, info, frames, ordered, uri, video.get("attributes") or {})


def _masks(masklet: Masklet) -> dict[str, Any]:
    rles = [frame.rle for frame in masklet.frames]
    areas = [rle.area for rle in rles]
    facts = [mask_facts(frame) for frame in masklet.frames]
    return {
        "segmentations": [_segmentation(rle) if area else None for rle, area in zip(rles, areas)],
        "areas": [area or None for area in areas],
        "bboxes": [list(rle.bbox_xywh) if area else None for rle, area in zip(rles, areas)],
        **{name: [one[name] for one in facts] for name in MASK_FACTS},
    }


def _segmentation(rle: Rle) -> dict[str, Any]:
    """Run lengths as plain numbers, as the published files have them; some readers take no others."""
    return {"size": [rle.height, rle.width], "counts": rle.runs().tolist()}


def _name(video: Mapping[str, Any]) -> str:
    files = video.get("file_names") or [""]
    return str(video.get("name") or PurePosixPath(files[0]).parent.name or video["id"])
