"""`MaskletDataset`: what a run wrote, read through its commits, so that it is whole at any time, also while the run goes on."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.masklets.schema import KEYS, TABLES
from sam2_pipeline.masklets.work import VideoInfo

if TYPE_CHECKING:
    import pandas

Table = Literal["videos", "masklets", "masks"]


class MaskletDataset:
    """The three tables of an output, as of the moment of opening; `refresh` takes in what was committed since.

    Iterating gives a `Masklet` at a time, in order of video_id and masklet_id. ``url`` is a path or an fsspec URL.

    Raises:
        StorageError: the output cannot be read, or is none.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> None:
        self.storage = Storage(url, storage_options)
        self.refresh()

    def refresh(self) -> None:
        """Looks for commits anew."""
        self.commits = list_commits(self.storage)
        if not self.commits and not any(self.storage.list("_run", recursive=True)):
            raise StorageError(f"{self.storage.url}: not the output of a run: it has no _run folder with anything in it")
        self._commit_of = {video_id: commit for commit in self.commits for video_id in commit.video_ids}

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Of all videos, failed ones too; sorted."""
        return tuple(sorted(self._commit_of))

    def files(self, table: Table, video_id: str | None = None) -> list[str]:
        """URLs of the committed parts of a table, for other readers; with ``video_id`` only the part that holds it."""
        return [self.storage.locate(name) for name in self._names(table, video_id)]

    def dataset(self, table: Table, video_id: str | None = None) -> pads.Dataset:
        """A table as a pyarrow dataset, to scan without loading it whole."""
        storage, schema = self.storage, TABLES[table]
        filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(storage.fs))
        parquet = pads.ParquetFileFormat()
        fragments = [parquet.make_fragment(storage.full_path(name), filesystem) for name in self._names(table, video_id)]
        return pads.FileSystemDataset(fragments, schema, parquet, filesystem)

    def videos(
        self, video_id: str | None = None, *, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """One row per input video, failed ones too, sorted by video_id."""
        return self._read("videos", video_id, columns, filter)

    def masklets(
        self, video_id: str | None = None, *, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """One row per masklet, sorted by (video_id, masklet_id)."""
        return self._read("masklets", video_id, columns, filter)

    def masks(
        self,
        video_id: str | None = None,
        masklet_id: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> pa.Table:
        """One row per masklet and annotated frame.

        Sorted by (masklet_id, frame_index) within a video; of several videos those of one unit stand together. The whole
        table may be larger than memory: `dataset` scans it in pieces.
        """
        if masklet_id is not None:
            one = pc.field("masklet_id") == masklet_id
            filter = one if filter is None else one & filter
        return self._read("masks", video_id, columns, filter)

    def masklet(self, video_id: str, masklet_id: int) -> Masklet:
        """One masklet with all its frames.

        Raises:
            KeyError: there is none of these ids.
        """
        rows = self.masklets(video_id, filter=pc.field("masklet_id") == masklet_id).to_pylist()
        if not rows:
            raise KeyError(f"{self.storage.url} holds no masklet {masklet_id} of video {video_id!r}")
        return self._masklet(rows[0])

    def video(self, video_id: str) -> AnnotatedVideo:
        """One video with all its masklets.

        Raises:
            KeyError: there is none of this id, or the run failed on it.
        """
        rows = self.videos(video_id, filter=pc.field("status") == "ok").to_pylist()
        if not rows:
            raise KeyError(f"{self.storage.url} holds no video {video_id!r} that was done")
        masks: dict[int, list[MaskletFrame]] = {}
        for mask in self.masks(video_id).to_pylist():
            masks.setdefault(mask["masklet_id"], []).append(_mask_frame(mask))
        masklets = []
        for row in self.masklets(video_id).to_pylist():
            frames = tuple(masks[row["masklet_id"]])
            masklets.append(Masklet(video_id, _seed(row, frames), frames))
        numbers = tuple(frame.frame_index for frame in masklets[0].frames) if masklets else ()
        info = VideoInfo(**{name: rows[0][name] for name in VideoInfo.__dataclass_fields__} | {"codec": rows[0]["codec"] or ""})
        return AnnotatedVideo(video_id, info, numbers, tuple(masklets), rows[0]["uri"])

    def frames(self, video_id: str, masklet_id: int) -> Iterator[tuple[int, np.ndarray]]:
        """(frame_index, mask as bool ``[H, W]``) of one masklet, in order of frames."""
        for frame in self.masklet(video_id, masklet_id).frames:
            yield frame.frame_index, decode(frame.rle)

    def to_pandas(self, table: Table, video_id: str | None = None) -> "pandas.DataFrame":
        """A table as a pandas data frame."""
        return self._read(table, video_id, None, None).to_pandas()

    def __iter__(self) -> Iterator[Masklet]:
        for row in self.masklets().to_pylist():
            yield self._masklet(row)

    def __len__(self) -> int:
        """Number of masklets."""
        return self._rows("masklets")

    def __repr__(self) -> str:
        videos, failed = sum(c.num_videos for c in self.commits), sum(c.num_failures for c in self.commits)
        counts = f"{videos} videos ({failed} failed), {len(self)} masklets, {self._rows('masks')} masks"
        return f"MaskletDataset({self.storage.url!r}, {len(self.commits)} units: {counts})"

    def _rows(self, table: Table) -> int:
        return sum(part.rows for commit in self.commits for part in commit.parts if part.table == table)

    def _names(self, table: Table, video_id: str | None) -> list[str]:
        if table not in TABLES:
            raise ConfigError(f"there is no table {table!r}, expected one of {', '.join(TABLES)}")
        one = self._commit_of.get(video_id) if video_id is not None else None
        wanted = self.commits if video_id is None else [one] if one else []
        return [part.path for commit in wanted for part in commit.parts if part.table == table and part.rows]

    def _read(self, table: Table, video_id: str | None, columns: Sequence[str] | None, filter: pc.Expression | None) -> pa.Table:
        unknown = [name for name in columns or () if name not in TABLES[table].names]
        if unknown:
            raise ConfigError(f"{table} has no columns {unknown}, expected some of {TABLES[table].names}")
        if video_id is not None:
            one = pc.field("video_id") == video_id
            filter = one if filter is None else one & filter
        try:
            source = self.dataset(table, video_id)
            # Small tables are sorted over all units; their keys are read along and dropped afterwards.
            keys = () if table == "masks" else KEYS[table]
            read = None if columns is None else [*columns, *(key for key in keys if key not in columns)]
            found = source.to_table(columns=read, filter=filter)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.storage.url}: cannot read {table}: {error}") from error
        if keys:
            found = found.sort_by([(key, "ascending") for key in keys])
        return found if columns is None else found.select(list(columns))

    def _masklet(self, row: dict[str, Any]) -> Masklet:
        frames = tuple(_mask_frame(mask) for mask in self.masks(row["video_id"], row["masklet_id"]).to_pylist())
        return Masklet(row["video_id"], _seed(row, frames), frames)


def _mask_frame(row: dict[str, Any]) -> MaskletFrame:
    scores = (row[name] if row[name] is not None else math.nan for name in ("predicted_iou", "object_score", "stability_score"))
    return MaskletFrame(row["frame_index"], row["timestamp_s"], Rle.from_coco(row["rle"]), *scores)


def _seed(row: dict[str, Any], frames: Sequence[MaskletFrame]) -> MaskletSeed:
    """The prompt that a masklet began with. Of one that was a mask the tables keep the frame number alone; the masklet's
    own mask on the annotated frame nearest to it stands for it."""
    index, points, box = row["prompt_frame_index"], np.reshape(row["prompt_points"], (-1, 3)), row["prompt_box"]
    mask = None
    if not len(points) and box is None:
        nearest = min(frames, key=lambda frame: abs(frame.frame_index - index))
        index, mask = nearest.frame_index, nearest.rle
    object_id = row["masklet_id"] if row["object_id"] is None else row["object_id"]
    prompt = Prompt(object_id, index, points[:, :2], points[:, 2], box, mask)
    return MaskletSeed(row["masklet_id"], row["masklet_type"], prompt, row["object_id"])
