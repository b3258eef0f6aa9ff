"""Masks of one video on their way to the tables, sorted on local disk so that memory stays flat however long the video is.

Masks arrive frame by frame (and backwards after refinement), tables are sorted masklet by masklet. SQLite's B-tree does
that sorting in two megabytes of memory, and refuses a second mask for the same masklet and frame.
"""

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from sam2_pipeline.errors import StorageError
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.quality import shape_of
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.schema import MASKLETS, MASKS
from sam2_pipeline.masklets.statistics import MaskletStatistics, Succession
from sam2_pipeline.masklets.verdict import Judgement

_BATCH_ROWS = 1024
_FRAME_BITS = 32  # the key is masklet_id << 32 | frame_index: a row's place in the B-tree is its place in the table

_CREATE = """CREATE TABLE masks (key INTEGER PRIMARY KEY, timestamp_s REAL, height INTEGER, width INTEGER, counts BLOB,
    area INTEGER, x REAL, y REAL, w REAL, h REAL, predicted_iou REAL, object_score REAL, stability_score REAL,
    raw_area INTEGER, num_components INTEGER, border_touch REAL)"""
_CREATE_PAIRS = "CREATE TABLE pairs (key INTEGER PRIMARY KEY, temporal_iou REAL)"
_INSERT = f"INSERT INTO masks VALUES ({', '.join('?' * 16)})"
_MEASURED = MASKS.names[MASKS.get_field_index("area") :]  # the columns that are as they are in the database


class MaskSpool:
    """Collects the masks of one video in any order and gives them back as sorted rows.

    ``directory`` is where the temporary file lives (default: the system's); it is removed by `close`, or by leaving the
    context. One thread uses a spool at a time, not necessarily the one that made it.

    Raises:
        StorageError: the directory cannot be written to, or is full.
    """

    def __init__(self, video_id: str, directory: str | os.PathLike[str] | None = None) -> None:
        self.video_id = video_id
        self.num_rows = 0
        self._statistics: dict[int, MaskletStatistics] = {}
        self._successions: dict[int, Succession] = {}
        self._compared: Any = None
        self._judgements: Mapping[int, Judgement] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        with self._reporting():
            self._directory = tempfile.TemporaryDirectory(prefix="sam2-masks-", dir=directory)
            path = os.path.join(self._directory.name, "masks.sqlite")
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "page_size=16384"):
                self._database.execute(f"PRAGMA {pragma}")  # a crash loses the file, which nobody would read anyway
            self._database.execute(_CREATE)
            self._database.execute(_CREATE_PAIRS)
            self._database.execute("BEGIN")

    def add(self, masklet_id: int, frame: MaskletFrame) -> None:
        """Takes in one mask.

        Raises:
            ValueError: there is a mask for this masklet and frame already, or masks of a masklet differ in size.
        """
        shape = shape_of(frame.rle)
        self._statistics.setdefault(masklet_id, MaskletStatistics()).add(frame, shape)
        row = (
            masklet_id << _FRAME_BITS | frame.frame_index,
            frame.timestamp_s,
            frame.rle.height,
            frame.rle.width,
            frame.rle.counts,
            shape.area,
            *frame.rle.bbox_xywh,
            frame.predicted_iou,
            frame.object_score,
            frame.stability_score,
            frame.raw_area,
            shape.num_components,
            shape.border_touch,
        )
        with self._reporting():
            self._database.execute(_INSERT, row)
        self.num_rows += 1

    def visible_frames(self, masklet_id: int) -> np.ndarray:
        """The frames on which a masklet's mask is not empty, int64, rising."""
        return self._statistics[masklet_id].visible_frames()

    def mask(self, masklet_id: int, frame_index: int) -> Rle:
        """One mask.

        Raises:
            KeyError: there is none.
        """
        query = "SELECT height, width, counts FROM masks WHERE key = ?"
        with self._reporting():
            row = self._database.execute(query, (masklet_id << _FRAME_BITS | frame_index,)).fetchone()
        if row is None:
            raise KeyError(f"{self.video_id}: masklet {masklet_id} has no mask on frame {frame_index}")
        return Rle(*row)

    def measures(self, masklet_id: int) -> dict[str, Any]:
        """What the masklets table says of a masklet, as far as its masks tell it."""
        self._compare()
        return self._statistics[masklet_id].row(self._successions[masklet_id])

    def add_judgements(self, judgements: Mapping[int, Judgement]) -> None:
        """Takes in what was judged of the masklets, by their ids."""
        self._judgements = judgements

    def sorted_batches(self) -> Iterator[pa.RecordBatch]:
        """All rows of the masks table, sorted by (masklet_id, frame_index)."""
        self._compare()
        with self._reporting():
            cursor = self._database.execute("SELECT masks.*, temporal_iou FROM masks LEFT JOIN pairs USING (key) ORDER BY key")
            while rows := cursor.fetchmany(_BATCH_ROWS):
                yield self._batch(rows)

    def visible_masks(self) -> Iterator[dict[int, Rle]]:
        """The masks that are not empty, by masklet id, of one frame after the other."""
        number = f"SELECT key & {(1 << _FRAME_BITS) - 1} AS frame, key >> {_FRAME_BITS}, height, width, counts"
        with self._reporting():
            cursor = self._database.execute(f"{number} FROM masks WHERE area > 0 ORDER BY frame")
            for _, rows in groupby(cursor, key=lambda row: row[0]):
                yield {masklet_id: Rle(*mask) for _, masklet_id, *mask in rows}

    def statistics(self) -> dict[int, dict[str, Any]]:
        """The measures of every masklet, under their column names in the masklets table."""
        return {masklet_id: one.row() for masklet_id, one in sorted(self._statistics.items())}

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """Gives masklets new numbers, in the order of the old ones; those that get none are removed."""
        new = [numbers[old] for old in sorted(numbers)]
        if sorted(set(new)) != new or any(number > old for old, number in numbers.items()):
            raise ValueError(f"new numbers {numbers}: expected the order of the old ones, and none above its old one")
        low = f"key & {(1 << _FRAME_BITS) - 1}"
        with self._reporting():
            for old in sorted(self._statistics):  # a number is never above the old one, so its place is free by now
                if old not in numbers:
                    self._database.execute("DELETE FROM masks WHERE key BETWEEN ? AND ?", _keys_of(old))
                elif numbers[old] != old:
                    self._database.execute(
                        f"UPDATE masks SET key = (? << {_FRAME_BITS}) | ({low}) WHERE key BETWEEN ? AND ?",
                        (numbers[old], *_keys_of(old)),
                    )
        self._statistics = {new: self._statistics[old] for old, new in numbers.items()}
        self._compared = None
        with self._reporting():
            [self.num_rows] = self._database.execute("SELECT count(*) FROM masks").fetchone()

    def masklet_rows(self, seeds: Iterable[MaskletSeed]) -> list[dict[str, Any]]:
        """One row of the masklets table for every seed, sorted by masklet_id.

        Raises:
            ValueError: seeds and masks do not belong together, or a masklet lacks a mask on some annotated frame.
        """
        seeds = sorted(seeds, key=lambda seed: seed.masklet_id)
        seeded, spooled = [seed.masklet_id for seed in seeds], sorted(self._statistics)
        if seeded != spooled:
            raise ValueError(f"{self.video_id}: seeds are of masklets {seeded}, masks of masklets {spooled}")
        rows = [
            _seed_columns(self.video_id, seed)
            | self.measures(seed.masklet_id)
            | _judged_columns(self._judgements.get(seed.masklet_id))
            for seed in seeds
        ]
        annotated = max((row["frame_count"] for row in rows), default=0)
        for row in rows:
            if row["frame_count"] != annotated:
                found = f"masklet {row['masklet_id']} has masks on {row['frame_count']} frames"
                raise ValueError(f"{self.video_id}: {found}, expected one on each of the {annotated} annotated frames")
        return [{name: row[name] for name in MASKLETS.names} for row in rows]

    def close(self) -> None:
        """Removes the temporary file; the spool is of no use afterwards."""
        if self._directory is not None:
            self._database.close()
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> "MaskSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"MaskSpool({self.video_id!r}, {len(self._statistics)} masklets, {self.num_rows} masks)"

    def _compare(self) -> None:
        """When all masks are there, and may have come in any order: compares each with the one before it."""
        state = self.num_rows, tuple(self._statistics)
        if self._compared == state:
            return
        self._successions = {masklet_id: Succession() for masklet_id in self._statistics}
        with self._reporting():
            self._database.execute("DELETE FROM pairs")
            for key, *rle, area in self._database.execute("SELECT key, height, width, counts, area FROM masks ORDER BY key"):
                value = self._successions[key >> _FRAME_BITS].add(Rle(*rle), area)
                self._database.execute("INSERT INTO pairs VALUES (?, ?)", (key, value))
        self._compared = state

    def _batch(self, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        key, timestamp_s, height, width, counts, *measured = zip(*rows)
        keys = np.array(key, np.int64)
        rle_type = MASKS.field("rle").type
        sizes = pa.array(list(zip(height, width)), rle_type.field("size").type)
        rle = pa.StructArray.from_arrays([sizes, pa.array([one.decode() for one in counts])], fields=list(rle_type))
        columns = [
            pa.array([self.video_id] * len(rows)),
            pa.array((keys >> _FRAME_BITS).astype(np.int32)),
            pa.array((keys & ((1 << _FRAME_BITS) - 1)).astype(np.int32)),
            pa.array(timestamp_s, pa.float64()),
            rle,
            *(pa.array(column, MASKS.field(name).type) for name, column in zip(_MEASURED, measured, strict=True)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=MASKS)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            where = self._directory.name if self._directory else "temporary directory"
            raise StorageError(f"{where}: cannot keep the masks of {self.video_id}: {error}") from error


def _keys_of(masklet_id: int) -> tuple[int, int]:
    """The lowest and the highest key of a masklet."""
    return masklet_id << _FRAME_BITS, ((masklet_id + 1) << _FRAME_BITS) - 1


def _seed_columns(video_id: str, seed: MaskletSeed) -> dict[str, Any]:
    prompt = seed.prompt
    points = np.column_stack([prompt.points_xy, prompt.point_labels]) if len(prompt.points_xy) else np.zeros((0, 3))
    return {
        "video_id": video_id,
        "masklet_id": seed.masklet_id,
        "masklet_type": seed.kind,
        "object_id": seed.object_id,
        "prompt_frame_index": prompt.frame_index,
        "prompt_points": points.tolist(),
        "prompt_box": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
        "attributes": json.dumps(dict(seed.attributes)) if seed.attributes else None,
        "shot_index": seed.shot_index,
        "parent_masklet_id": seed.parent_masklet_id,
    }


def _judged_columns(judgement: Judgement | None) -> dict[str, Any]:
    if judgement is None:
        return dict.fromkeys(["cycle_iou", "reprompt_iou", "verdict", "verdict_reasons"])
    return {
        "cycle_iou": judgement.cycle_iou,
        "reprompt_iou": judgement.reprompt_iou,
        "verdict": judgement.verdict,
        "verdict_reasons": list(judgement.reasons),
    }
