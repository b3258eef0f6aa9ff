"""Folders of PNG pictures.

Either a picture a frame, with the object's number as the pixel's value and 0 as background (DAVIS, MOSE: ``video/00000.png``), or
a folder an object with a picture a frame, where anything but 0 is object (SA-V: ``video/000/00000.png``).
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.masks import USUAL_FPS, Masks, MaskSource
from sam2_pipeline.formats.palette import read_labels, save_labels
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo, annotated_masklet
from sam2_pipeline.masklets.rle import Rle, decode, encode, encode_batch
from sam2_pipeline.masklets.work import VideoInfo

Pictures = dict[int, str]  # frame number -> name of the picture

MOST_OBJECTS = 254  # of a picture: 0 is background, and 255 what DAVIS leaves undecided
_RESOLUTION = "Full-Resolution"  # DAVIS's name for pictures that were not scaled down
_FRAMES_BESIDE = {"Annotations": "JPEGImages", "Annotations_6fps": "JPEGImages_24fps"}  # DAVIS and MOSE; SA-V
_INSIDE = re.compile(r"(?:Annotations(?:_6fps)?/)?(?:(?:480p|1080p|Full-Resolution)/)?")


class PngMasks(MaskSource):
    """The video id is the folder's name relative to the root (see `MaskSource`); both forms may stand side by side.

    The root may be that of the whole dataset, which has the masks in ``Annotations`` or ``Annotations/480p``.
    """

    automatic = False

    def __init__(self, storage: Storage, names: Iterable[str]) -> None:
        names = list(names)
        inside = sorted({match[0] for match in map(_INSIDE.match, names) if match})
        if len(inside) > 1:
            raise ConfigError(f"{storage.url} holds masks in {' and '.join(inside)}, expected one folder of them; name it")
        folder = inside[0] if inside else ""
        self.url = storage.locate(folder.rstrip("/"))
        self._storage = storage
        self._shared: dict[str, Pictures] = {}
        self._by_object: dict[str, dict[int, Pictures]] = {}
        for name in names:
            path = PurePosixPath(name.removeprefix(folder))
            video, place = str(path.parent.parent), path.parent.name
            if not path.stem.isdecimal() or not place:
                raise ConfigError(
                    f"{storage.locate(name)}: expected frame numbers in folders: VIDEO/00000.png, VIDEO/000/00000.png"
                )
            if place.isdecimal() and video != ".":
                pictures = self._by_object.setdefault(video, {}).setdefault(int(place), {})
            else:
                pictures = self._shared.setdefault(str(path.parent), {})
            other = pictures.setdefault(int(path.stem), name)
            if other != name:
                raise ConfigError(f"{self.url}: {other} and {name} are the same frame of one video")
        if both := sorted(self._shared.keys() & self._by_object.keys()):
            raise ConfigError(f"{self.url}/{both[0]} holds frames and folders of objects, expected one or the other")

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted([*self._shared, *self._by_object]))

    def read(self, video_id: str) -> Masks:
        """An object that has a folder of its own has masks on the frames of that folder alone."""
        if video_id in self._shared:
            objects, empty = self._read_shared(self._shared[video_id])
            return {number: empty | masks for number, masks in objects.items()}
        folders = self._by_object[video_id]
        return {number: {f: self._read_binary(name) for f, name in sorted(folders[number].items())} for number in sorted(folders)}

    def load(self, video_id: str) -> AnnotatedVideo:
        if video_id in self._shared:
            objects, empty = self._read_shared(self._shared[video_id])
        else:
            objects = self.read(video_id)
            empty = {frame: Rle.empty(rle.height, rle.width) for masks in objects.values() for frame, rle in masks.items()}
        frames = tuple(sorted(empty))
        total = frames[-1] + 1
        size = next(iter(empty.values()))
        info = VideoInfo(size.width, size.height, USUAL_FPS, total, total / USUAL_FPS, "")
        masklets = tuple(
            annotated_masklet(video_id, place, empty | masks, info.fps, object_id=number)
            for place, (number, masks) in enumerate(objects.items())
        )
        return AnnotatedVideo(video_id, info, frames, masklets, self.video_url(video_id))

    def video_url(self, video_id: str) -> str | None:
        parts = f"{self.url}/{video_id}".split("/")
        if not set(parts) & set(_FRAMES_BESIDE):
            return None
        return "/".join(_FRAMES_BESIDE.get(part, part) for part in parts)

    def _read_shared(self, pictures: Pictures) -> tuple[Masks, dict[int, Rle]]:
        """The masks of every object where it is visible, and an empty one for every frame."""
        objects: Masks = {}
        empty: dict[int, Rle] = {}
        for frame in sorted(pictures):
            values = self._values(pictures[frame])
            numbers = np.unique(values)
            numbers = numbers[numbers != 0]
            empty[frame] = Rle.empty(*values.shape)
            for number, rle in zip(numbers.tolist(), encode_batch(values == numbers[:, None, None])):
                objects.setdefault(number, {})[frame] = rle
        return {number: objects[number] for number in sorted(objects)}, empty

    def _read_binary(self, name: str) -> Rle:
        values = self._values(name)
        if values.any() and np.count_nonzero(values) != np.count_nonzero(values == values.max()):
            found = np.unique(values).tolist()
            raise VideoError(f"{self._storage.locate(name)} has the values {found[:5]}, expected 0 and one other, for one object")
        return encode(values != 0)

    def _values(self, name: str) -> np.ndarray:
        try:
            return read_labels(io.BytesIO(self._storage.read_bytes(name)))
        except VideoError as error:
            raise VideoError(f"{self._storage.locate(name)} {error}") from error


@dataclass(slots=True)
class DavisWriter:
    """Writes ``Annotations/Full-Resolution/VIDEO/00000.png``, named by native frame numbers, and the list of videos that DAVIS's
    own tools ask for.

    A pixel's value is the object's id where every object has one from 1 to 254, otherwise the masklet's id plus 1. A pixel
    belongs to one object: small ones lie on large ones.

    Attributes:
        hidden: pixels of masks that lie under others, and so are not in the pictures.
        pixels: pixels of all masks.
    """

    storage: Storage
    hidden: int = 0
    pixels: int = 0
    _videos: list[str] = field(default_factory=list)

    def add(self, video: AnnotatedVideo) -> None:
        """Raises a `VideoError` for more objects than a picture can hold."""
        values = video.numbers()
        if any(not 1 <= value <= MOST_OBJECTS for value in values):
            values = tuple(masklet.masklet_id + 1 for masklet in video.masklets)
        if max(values, default=0) > MOST_OBJECTS:
            raise VideoError(f"it has a masklet {max(values) - 1}, and DAVIS's pictures hold numbers up to {MOST_OBJECTS}")
        for place, frame in enumerate(video.frames):
            labels = self._labels([masklet.frames[place].rle for masklet in video.masklets], values, video.info)
            file = io.BytesIO()
            save_labels(labels, file)
            self.storage.write_bytes(f"Annotations/{_RESOLUTION}/{video.video_id}/{frame:05d}.png", file.getvalue())
        self._videos.append(video.video_id)

    def finish(self) -> None:
        listing = "".join(f"{video_id}\n" for video_id in self._videos)
        self.storage.write_bytes("ImageSets/2017/val.txt", listing.encode())

    def picture_name(self, video_id: str, frame: int) -> str:
        """Where the format has the picture of a frame."""
        return f"JPEGImages/{_RESOLUTION}/{video_id}/{frame:05d}.jpg"

    def notes(self) -> list[str]:
        """What was lost."""
        share = 100 * self.hidden / max(self.pixels, 1)
        text = f"{share:.2g}% of the masks' pixels lie under other masks; DAVIS has one object a pixel, the smallest is on top"
        return [text] if self.hidden else []

    def _labels(self, masks: list[Rle], values: tuple[int, ...], info: VideoInfo) -> np.ndarray:
        labels = np.zeros((info.height, info.width), np.uint8)
        areas = [rle.area for rle in masks]
        for n in sorted(range(len(masks)), key=lambda n: -areas[n]):
            if areas[n]:
                labels[decode(masks[n])] = values[n]
        self.pixels += sum(areas)
        self.hidden += sum(areas) - int(np.count_nonzero(labels))
        return labels
