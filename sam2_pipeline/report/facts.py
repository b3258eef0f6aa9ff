"""The figures of a dataset, gathered from its tables in one pass; they are those by which SA-V describes itself."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.verdict import VERDICTS

# Of masklets and videos only columns that are numbers or short: a hundred thousand masklets are some ten megabytes.
_VIDEOS = [
    "video_id", "status", "error_type", "error_message", "width", "height", "fps", "frame_count", "duration_s", "masklet_count",
    "annotated_frame_count", "wall_s", "model", "weights_sha256", "config_hash", "package_version", "device",
]  # fmt: skip
_MASKLETS = [
    "video_id", "masklet_id", "masklet_type", "frame_count", "visible_frame_count", "size_rel", "size_bucket",
    "visibility_changes", "predicted_iou_mean", "object_score_mean", "stability_score_mean", "stability_score_min",
    "temporal_iou_mean", "verdict", "verdict_reasons", "first_frame_index", "last_frame_index",
]  # fmt: skip
_SMALL_SHARE = 0.1  # of the picture: SA-V says how many of its masks are smaller


@dataclass(frozen=True)
class FailureKind:
    """Failures of one reason, whatever names and numbers are in their messages."""

    error_type: str
    message: str
    video_ids: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What the tables say.

    Attributes:
        videos: the videos table, failed ones too.
        masklets: the masklets table.
        masks: rows of the masks table in which the masklet is visible.
        small_masks: how many of these cover less than a tenth of the picture.
    """

    url: str
    videos: pa.Table
    masklets: pa.Table
    masks: int
    small_masks: int

    @cached_property
    def done(self) -> pa.Table:
        """The videos that were not failures."""
        return self.videos.filter(pc.field("status") == "ok")

    @property
    def hours(self) -> float:
        return (pc.sum(self.done["duration_s"]).as_py() or 0.0) / 3600

    @property
    def disappearance_rate(self) -> float | None:
        """Share of the masklets that are hidden on some frame and come back; SA-V's disappearance rate."""
        changes = self.column("visibility_changes")
        return float((changes >= 2).mean()) if len(changes) else None

    @property
    def masklet_seconds(self) -> np.ndarray:
        """Of the masklets that are ever visible: from the first to the last frame on which they are."""
        visible = self.masklets.filter(pc.field("visible_frame_count") > 0)
        places = pc.index_in(visible["video_id"], value_set=self.videos["video_id"].combine_chunks())
        fps = self.videos["fps"].take(places).to_numpy().astype(float)
        return (visible["last_frame_index"].to_numpy() - visible["first_frame_index"].to_numpy()) / fps

    def column(self, name: str) -> np.ndarray:
        """A column of the masklets that are visible on some frame, as floats without nulls."""
        visible = self.masklets.filter(pc.field("visible_frame_count") > 0)
        return visible[name].drop_null().to_numpy().astype(float)

    def share(self, name: str, value: str) -> float:
        """Share of the masklets with this value."""
        return (pc.sum(pc.equal(self.masklets[name], value)).as_py() or 0) / max(self.masklets.num_rows, 1)

    def values(self, name: str) -> list[Any]:
        """The different values of a column of the videos, without null."""
        return sorted(value for value in self.videos[name].unique().to_pylist() if value is not None)

    @cached_property
    def failures(self) -> tuple[FailureKind, ...]:
        """By reason, the most frequent first."""
        failed = self.videos.filter(pc.field("status") == "failed")
        rows = failed.select(["video_id", "error_type", "error_message"]).to_pylist()
        kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            message = (row["error_message"] or "").replace(row["video_id"], "")
            pattern = re.sub(r"\S*[/\\]\S*|\d+", "*", message)
            kinds.setdefault((row["error_type"] or "", pattern), []).append(row)
        found = [
            FailureKind(kind, group[0]["error_message"] or "", tuple(row["video_id"] for row in group))
            for (kind, _), group in kinds.items()
        ]
        return tuple(sorted(found, key=lambda one: -len(one.video_ids)))

    @cached_property
    def verdicts(self) -> dict[str, Counter[str]]:
        """Of every verdict that was given how many masklets it was given to, under "", and how often for each reason."""
        found: dict[str, Counter[str]] = {}
        for row in self.masklets.select(["verdict", "verdict_reasons"]).to_pylist():
            if row["verdict"] is not None:
                found.setdefault(row["verdict"], Counter()).update(["", *(row["verdict_reasons"] or [])])
        return {verdict: found[verdict] for verdict in VERDICTS if verdict in found}

    @property
    def kinds(self) -> Counter[str]:
        return Counter(self.masklets["masklet_type"].to_pylist())


def gather(dataset: MaskletDataset) -> Facts:
    """Reads the tables."""
    videos = dataset.videos(columns=_VIDEOS)
    masks, small = _count_masks(dataset, videos)
    return Facts(dataset.storage.url, videos, dataset.masklets(columns=_MASKLETS), masks, small)


def _count_masks(dataset: MaskletDataset, videos: pa.Table) -> tuple[int, int]:
    """(masks that are not empty, those of less than a tenth of the picture)."""
    pixels = pc.multiply(videos["width"].cast("int64"), videos["height"]).fill_null(0).to_numpy()
    total = small = 0
    visible = dataset.dataset("masks").scanner(columns=["video_id", "area"], filter=pc.field("area") > 0)
    for batch in visible.to_batches():
        places = pc.index_in(batch["video_id"], value_set=videos["video_id"].combine_chunks()).to_numpy(zero_copy_only=False)
        total += batch.num_rows
        small += int(np.count_nonzero(batch["area"].to_numpy() < _SMALL_SHARE * pixels[places]))
    return total, small
