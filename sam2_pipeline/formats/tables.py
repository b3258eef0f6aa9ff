"""Masklets out of the tables of a run."""

from functools import cached_property
from typing import Any

from sam2_pipeline.errors import VideoError
from sam2_pipeline.formats.masks import Masks, MaskSource
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.rle import Rle


class TableMasks(MaskSource):
    """Object ids are the prompts', where every masklet has one; otherwise masklet ids (see `MaskSource`)."""

    def __init__(self, storage: Storage) -> None:
        self.url = storage.url
        self._dataset = MaskletDataset(storage.url, storage.options)
        types = self._dataset.masklets(columns=["masklet_type"]).column("masklet_type")
        self.automatic = "auto" in types.unique().to_pylist()

    @cached_property
    def _videos(self) -> dict[str, dict[str, Any]]:
        columns = ["video_id", "uri", "status", "error_type", "error_message"]
        return {row["video_id"]: row for row in self._dataset.videos(columns=columns).to_pylist()}

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._videos))

    def load(self, video_id: str) -> AnnotatedVideo:
        self._check(video_id)
        return self._dataset.video(video_id)

    def read(self, video_id: str) -> Masks:
        self._check(video_id)
        id_column = "masklet_id" if self.automatic else "object_id"
        rows = self._dataset.masklets(video_id, columns=["masklet_id", "object_id"]).to_pylist()
        object_of = {row["masklet_id"]: row[id_column] for row in rows}
        if len(set(object_of.values())) < len(object_of):
            raise VideoError(f"{self.url}: objects have several masklets: {sorted(object_of.values())}, expected one each")
        objects: Masks = {number: {} for number in object_of.values()}
        for row in self._dataset.masks(video_id, columns=["masklet_id", "frame_index", "rle"]).to_pylist():
            objects[object_of[row["masklet_id"]]][row["frame_index"]] = Rle.from_coco(row["rle"])
        return objects

    def video_url(self, video_id: str) -> str:
        return self._videos[video_id]["uri"]

    def _check(self, video_id: str) -> None:
        row = self._videos[video_id]
        if row["status"] == "failed":
            raise VideoError(f"{self.url}: the run failed on it: {row['error_type']}: {row['error_message']}")
