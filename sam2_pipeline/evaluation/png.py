"""Masks out of folders of PNG pictures.

Either a picture a frame, with the object's number as the pixel's value and 0 as background (DAVIS, MOSE: ``video/00000.png``), or
a folder an object with a picture a frame, where anything but 0 is object (SA-V: ``video/000/00000.png``).
"""

import io
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.evaluation.masks import Masks
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.rle import Rle, encode, encode_batch

Pictures = dict[int, str]  # frame number -> name of the picture


class PngMasks:
    """The video id is the folder's name relative to the root (see `MaskSource`); both forms may stand side by side."""

    automatic = False

    def __init__(self, storage: Storage, names: Iterable[str]) -> None:
        self.url = storage.url
        self._storage = storage
        self._shared: dict[str, Pictures] = {}
        self._by_object: dict[str, dict[int, Pictures]] = {}
        for name in names:
            path = PurePosixPath(name)
            video, folder = str(path.parent.parent), path.parent.name
            if not path.stem.isdecimal() or not folder:
                raise ConfigError(
                    f"{storage.locate(name)}: expected frame numbers in folders: VIDEO/00000.png, VIDEO/000/00000.png"
                )
            if folder.isdecimal() and video != ".":
                pictures = self._by_object.setdefault(video, {}).setdefault(int(folder), {})
            else:
                pictures = self._shared.setdefault(str(path.parent), {})
            other = pictures.setdefault(int(path.stem), name)
            if other != name:
                raise ConfigError(f"{self.url}: {other} and {name} are the same frame of one video")
        if both := sorted(self._shared.keys() & self._by_object.keys()):
            raise ConfigError(f"{storage.locate(both[0])} holds frames and folders of objects, expected one or the other")

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted([*self._shared, *self._by_object]))

    def read(self, video_id: str) -> Masks:
        if video_id in self._shared:
            return self._read_shared(self._shared[video_id])
        folders = self._by_object[video_id]
        return {number: {f: self._read_binary(name) for f, name in sorted(folders[number].items())} for number in sorted(folders)}

    def _read_shared(self, pictures: Pictures) -> Masks:
        objects: Masks = {}
        empty: dict[int, Rle] = {}
        for frame in sorted(pictures):
            values = self._values(pictures[frame])
            numbers = np.unique(values)
            numbers = numbers[numbers != 0]
            empty[frame] = Rle.empty(*values.shape)
            for number, rle in zip(numbers.tolist(), encode_batch(values == numbers[:, None, None])):
                objects.setdefault(number, {})[frame] = rle
        return {number: empty | objects[number] for number in sorted(objects)}

    def _read_binary(self, name: str) -> Rle:
        values = self._values(name)
        if values.any() and np.count_nonzero(values) != np.count_nonzero(values == values.max()):
            found = np.unique(values).tolist()
            raise VideoError(f"{self._storage.locate(name)} has the values {found[:5]}, expected 0 and one other, for one object")
        return encode(values != 0)

    def _values(self, name: str) -> np.ndarray:
        """Pixel values ``[H, W]``: of a palette picture the indices, not the colours."""
        try:
            with Image.open(io.BytesIO(self._storage.read_bytes(name))) as image:
                mode, values = image.mode, np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self._storage.locate(name)} is not a readable picture: {error}") from error
        if values.ndim != 2 or values.dtype.kind not in "bui":
            raise VideoError(f"{self._storage.locate(name)} is a picture of mode {mode}, expected palette or greyscale")
        return values.astype(np.uint8) if values.dtype == bool else values
