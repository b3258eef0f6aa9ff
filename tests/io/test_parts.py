"""One unit's parts: sorted, described, hashed, and in row groups that videos do not straddle."""

import errno
import hashlib
import json
import os
import tempfile

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io import parts as parts_module
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, TABLES, VIDEOS


def test_parts_are_what_they_say(storage, maker, tmp_path):
    commit, _ = maker.parts(storage, "u1", ["b", "a/x", "c!"])
    assert [part.table for part in commit.parts] == list(TABLES)
    assert [part.rows for part in commit.parts] == [3, 4, 12]
    for part in commit.parts:
        assert part.path == f"{part.table}/unit-u1-1.parquet"
        data = storage.read_bytes(part.path)
        assert len(data) == part.size_bytes == storage.size(part.path)
        assert hashlib.sha256(data).hexdigest() == part.sha256
        (tmp_path / "part.parquet").write_bytes(data)
        file = pq.ParquetFile(tmp_path / "part.parquet")
        assert file.schema_arrow.equals(TABLES[part.table])
        assert file.metadata.num_rows == part.rows
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert file.schema_arrow.metadata[b"sam2_pipeline.schema_version"] == str(SCHEMA_VERSION).encode()
        assert file.schema_arrow.metadata[b"sam2_pipeline.config_hash"] == b"abc"
        assert all(field.metadata[b"description"] for field in file.schema_arrow)


def test_rows_are_sorted_whatever_the_order_of_videos(tmp_path, maker):
    storage = Storage(tmp_path)
    _, masks = maker.parts(storage, "u", ["b", "a", "c", "d!"])
    rows = pq.read_table(tmp_path / "masks").to_pylist()
    keys = [(row["video_id"], row["masklet_id"], row["frame_index"]) for row in rows]
    assert keys == sorted(masks)
    assert all(np.array_equal(coco.decode(row["rle"]), masks[key]) for key, row in zip(keys, rows))
    assert pq.read_table(tmp_path / "videos").column("video_id").to_pylist() == ["a", "b", "c", "d"]
    masklets = pq.read_table(tmp_path / "masklets").to_pylist()
    assert [(row["video_id"], row["masklet_id"]) for row in masklets] == [(v, m) for v in "abc" for m in (0, 1)]


def test_same_rows_give_the_same_bytes(tmp_path, maker):
    first, _ = maker.parts(Storage(tmp_path / "1"), "u", ["a", "b"])
    maker.rng = np.random.default_rng(0)
    second, _ = maker.parts(Storage(tmp_path / "2"), "u", ["a", "b"])
    assert first == second


def test_row_groups(tmp_path, maker, monkeypatch):
    """Videos of 12, 12, 40, 2 rows; a group holds 24: the third alone is spread over groups."""
    monkeypatch.setattr(parts_module, "ROWS_PER_GROUP", 25)
    monkeypatch.setattr("sam2_pipeline.io.spool._BATCH_ROWS", 5)
    storage = Storage(tmp_path)
    with UnitWriter(storage, "u", "1", {}) as writer:
        for video_id, frames in (("a", 6), ("b", 6), ("c", 20), ("d", 1)):
            maker.video(writer, video_id, masklets=2, frames=frames)
        writer.finish()
    file = pq.ParquetFile(tmp_path / "masks" / "unit-u-1.parquet")
    groups = [file.read_row_group(number).column("video_id").to_pylist() for number in range(file.num_row_groups)]
    assert [(sorted(set(group)), len(group)) for group in groups] == [(["a", "b"], 24), (["c"], 25), (["c", "d"], 17)]
    assert [c.column_index for c in file.metadata.row_group(0).sorting_columns] == [0, 1, 2]


def test_row_groups_are_bounded_in_bytes(tmp_path, maker, monkeypatch):
    monkeypatch.setattr(parts_module, "BYTES_PER_GROUP", 4000)
    monkeypatch.setattr("sam2_pipeline.io.spool._BATCH_ROWS", 5)
    maker.parts(Storage(tmp_path), "u", ["a"], masklets=1, frames=100)
    metadata = pq.ParquetFile(tmp_path / "masks" / "unit-u-1.parquet").metadata
    assert metadata.num_row_groups > 3
    assert metadata.num_rows == 100


@pytest.mark.parametrize("videos", [[], ["a!"]])
def test_units_without_masks_can_be_read(tmp_path, maker, videos):
    commit, _ = maker.parts(Storage(tmp_path), "u", videos)
    assert [part.rows for part in commit.parts] == [len(videos), 0, 0]
    for table, schema in TABLES.items():
        assert list(pd.read_parquet(tmp_path / table).columns) == schema.names


def test_pandas_and_duckdb_read_the_folders(tmp_path, maker):
    storage = Storage(tmp_path)
    masks = maker.unit(storage, "u1", ["a", "b!"]) | maker.unit(storage, "u2", ["c"])
    (tmp_path / "masks" / ".unit-u3-1.parquet.123.tmp").write_bytes(b"cut short")  # an interrupted write hides
    frame = pd.read_parquet(tmp_path / "masks")
    assert len(frame) == len(masks) == 12
    row = frame.iloc[5]
    assert np.array_equal(coco.decode(row.rle), masks[row.video_id, row.masklet_id, row.frame_index])
    query = f"""SELECT m.video_id, count(*), sum(area), any_value(rle.size) FROM '{tmp_path}/masks/*.parquet' m
        JOIN '{tmp_path}/masklets/*.parquet' USING (video_id, masklet_id) GROUP BY 1 ORDER BY 1"""
    expected = [(v, 6, sum(int(m.sum()) for (w, *_), m in masks.items() if w == v), [12, 16]) for v in "ac"]
    assert duckdb.sql(query).fetchall() == expected
    assert duckdb.sql(f"SELECT status FROM '{tmp_path}/videos/*.parquet' ORDER BY video_id").fetchall() == [
        ("ok",),
        ("failed",),
        ("ok",),
    ]


def test_mistakes_are_refused(tmp_path):
    row = dict.fromkeys(VIDEOS.names) | {"video_id": "a"}
    with UnitWriter(Storage(tmp_path), "u", "1", {}) as writer, MaskSpool("a") as spool, MaskSpool("b") as other:
        with pytest.raises(ValueError, match=r"missing columns \['fps'\], unknown columns \['fbs'\]"):
            writer.add_video({name.replace("fps", "fbs"): value for name, value in row.items()}, spool, [])
        with pytest.raises(ValueError, match="masks of 'b' given for video 'a'"):
            writer.add_video(row, other, [])
        writer.add_video(row, spool, [])
        with pytest.raises(ValueError, match="each video once"):
            writer.add_video(row, spool, [])


def test_nothing_is_left_on_the_local_disk(tmp_path, maker, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    maker.parts(Storage(tmp_path / "out"), "u", ["a"])
    assert os.listdir(scratch) == []


def test_full_disks(tmp_path, maker, monkeypatch):
    """Local disk full while writing the part; storage full while uploading it."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for target in ("pyarrow.OSFile", "pyarrow.parquet.ParquetWriter", "os.fsync"):
        with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"(?i)no space left"):
            patch.setattr(target, full)
            maker.parts(Storage(tmp_path), "u", ["a"])
    assert [name for name, _ in Storage(tmp_path).list(recursive=True, hidden=True)] == []


def test_commit_is_readable_json(tmp_path, maker):
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a", "b!"])
    fields = json.loads((tmp_path / "_run" / "commits" / "unit-u1.json").read_text())
    assert (fields["num_videos"], fields["num_failures"], fields["video_ids"]) == (2, 1, ["a", "b"])
    assert fields["parts"][2]["rows"] == 6
