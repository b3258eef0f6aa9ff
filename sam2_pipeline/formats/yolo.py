"""YOLO segmentation: a text file a picture, a line an object: the class, then a polygon's points as shares of width and height.

The format has no numbers of objects, so masklets fall apart into masks; it cannot be imported.
"""

import numpy as np
import yaml

from sam2_pipeline.formats.coco_items import OBJECT
from sam2_pipeline.formats.polygons import outline_polygon
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.rle import Rle, decode

_SETTINGS = "# YOLO segmentation; made by sam2-pipeline export\ntrain: images\nval: images\n"


class YoloWriter:
    """Writes ``labels/VIDEO/00000.txt`` and ``data.yaml``; pictures belong in ``images/VIDEO/00000.jpg``."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._classes: dict[str, int] = {}  # by name; masklets of our own have one for all

    def add(self, video: AnnotatedVideo) -> None:
        for place, frame in enumerate(video.frames):
            shown = [masklet for masklet in video.masklets if masklet.frames[place].rle.area]
            lines = [_line(self._class_of(masklet), masklet.frames[place].rle) for masklet in shown]
            self.storage.write_bytes(f"labels/{video.video_id}/{frame:05d}.txt", "".join(lines).encode())

    def finish(self) -> None:
        names = yaml.safe_dump({"names": {n: name for name, n in self._classes.items()} or {0: OBJECT["name"]}}, sort_keys=False)
        self.storage.write_bytes("data.yaml", f"{_SETTINGS}{names}".encode())

    def picture_name(self, video_id: str, frame: int) -> str:
        return f"images/{video_id}/{frame:05d}.jpg"

    def notes(self) -> list[str]:
        return ["YOLO has no numbers of objects: which masks make a masklet is not in the files"]

    def _class_of(self, masklet: Masklet) -> int:
        name = masklet.seed.attributes.get("category", OBJECT)["name"]
        return self._classes.setdefault(name, len(self._classes))


def _line(number: int, rle: Rle) -> str:
    shares = outline_polygon(decode(rle)) / (rle.width, rle.height)
    return f"{number} " + " ".join(f"{value:.6g}" for value in np.clip(shares, 0, 1).ravel()) + "\n"
