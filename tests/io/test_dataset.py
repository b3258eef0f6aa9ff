"""The dataset gives back exactly what was committed, and nothing else, at any time."""

import hashlib
from dataclasses import replace

import duckdb
import numpy as np
import polars
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mask_forms import disc, write_tables
from pycocotools import mask as coco
from videos import write_video

from sam2_pipeline.errors import ConfigError, StorageError, VideoError
from sam2_pipeline.io.commits import commit_name, commit_unit, read_commit
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode, encode
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, TABLES, VIDEOS, schema_of
from sam2_pipeline.masklets.work import Commit


def test_reads_through_commits(storage, maker):
    masks = maker.unit(storage, "u1", ["b", "d!"]) | maker.unit(storage, "u2", ["a"])
    maker.parts(storage, "u2", ["a"], attempt_id="loser")
    maker.parts(storage, "u3", ["c"])

    dataset = MaskletDataset(storage.url)
    assert dataset.videos().column("video_id").to_pylist() == ["a", "b", "d"]
    assert dataset.videos().schema.equals(TABLES["videos"])
    assert [(r["video_id"], r["masklet_id"]) for r in dataset.masklets().to_pylist()] == [(v, m) for v in "ab" for m in (0, 1)]
    found = {(r["video_id"], r["masklet_id"], r["frame_index"]): coco.decode(r["rle"]) for r in dataset.masks().to_pylist()}
    assert found.keys() == masks.keys()
    assert all(np.array_equal(found[key], mask) for key, mask in masks.items())
    assert repr(dataset) == f"MaskletDataset({storage.url!r}, 2 units: 3 videos (1 failed), 4 masklets, 12 masks)"
    assert len(dataset) == 4


def test_grows_with_the_run(tmp_path, maker):
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a"])
    dataset = MaskletDataset(tmp_path)
    maker.unit(storage, "u2", ["b"])
    assert len(dataset) == dataset.masklets().num_rows == 2
    dataset.refresh()
    assert len(dataset) == dataset.masklets().num_rows == 4


def test_selections(tmp_path, maker):
    storage = Storage(tmp_path)
    masks = maker.unit(storage, "u1", ["a", "b"]) | maker.unit(storage, "u2", ["c"])
    dataset = MaskletDataset(tmp_path)
    assert [row["frame_index"] for row in dataset.masks("b", 1).to_pylist()] == [0, 4, 8]
    assert set(dataset.masks("b").column("video_id").to_pylist()) == {"b"}
    assert dataset.masks("nowhere").num_rows == 0
    assert dataset.masks("nowhere").schema.equals(TABLES["masks"])
    assert dataset.masks(masklet_id=0).num_rows == 9
    large = dataset.masks("c", columns=["area"], filter=pc.field("area") > 95)
    assert sorted(large.column("area").to_pylist()) == sorted(
        int(m.sum()) for k, m in masks.items() if k[0] == "c" and m.sum() > 95
    )
    assert dataset.videos(columns=["status"]).column_names == ["status"]
    assert dataset.masklets("a", columns=["size_abs", "video_id"]).column_names == ["size_abs", "video_id"]
    assert dataset.to_pandas("masklets", "a").masklet_id.tolist() == [0, 1]

    assert dataset.files("masks", "c") == [f"{tmp_path}/masks/unit-u2-1.parquet"]
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet({dataset.files('masks')})").fetchall() == [(18,)]
    batches = dataset.dataset("masks").scanner(columns=["area"], batch_size=5).to_batches()
    assert sum(batch.num_rows for batch in batches) == 18

    with pytest.raises(ConfigError, match=r"masks has no columns \['aera'\]"):
        dataset.masks(columns=["aera"])
    with pytest.raises(ConfigError, match="no table 'mask'"):
        dataset.files("mask")


def test_one_video_reads_one_part(tmp_path, maker):
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a"])
    maker.unit(storage, "u2", ["b"])
    (tmp_path / "masks" / "unit-u2-1.parquet").unlink()
    dataset = MaskletDataset(tmp_path)
    assert dataset.masks("a").num_rows == 6
    with pytest.raises(StorageError, match="cannot read masks"):
        dataset.masks()


def test_masklets_come_back_as_they_went_in(tmp_path, maker):
    storage = Storage(tmp_path)
    masks = maker.unit(storage, "u1", ["b"]) | maker.unit(storage, "u2", ["a"], masklets=3)
    dataset = MaskletDataset(tmp_path)
    masklets = list(dataset)
    assert [(m.video_id, m.masklet_id) for m in masklets] == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]
    for masklet in masklets:
        assert masklet.seed.object_id is None
        assert masklet.seed.prompt.points_xy.tolist() == [[1, 2]]
        assert (masklet.frames[1].timestamp_s, masklet.frames[1].stability_score) == (4 / 24, 0.25)
        for frame in masklet.frames:
            assert np.array_equal(decode(frame.rle), masks[masklet.video_id, masklet.masklet_id, frame.frame_index])
    frames = dict(dataset.frames("a", 2))
    assert list(frames) == [0, 4, 8]
    assert frames[4].dtype == bool
    assert np.array_equal(frames[4], masks["a", 2, 4])
    with pytest.raises(KeyError, match="no masklet 7 of video 'a'"):
        dataset.masklet("a", 7)


def test_prompted_seeds_come_back(tmp_path, maker):
    storage = Storage(tmp_path)
    mask = maker.mask()
    prompts = [Prompt(70, 5, box_xyxy=[1, 2, 3, 4]), Prompt(71, 5, mask=encode(mask))]
    with UnitWriter(storage, "u", "1", {}) as writer, MaskSpool("v") as spool:
        for number in range(2):
            for index in (0, 4):
                spool.add(number, MaskletFrame(index, 0.0, encode(mask), 0.0, 0.0, 0.0))
        seeds = [MaskletSeed(number, "prompted", prompt, prompt.object_id) for number, prompt in enumerate(prompts)]
        writer.add_video(dict.fromkeys(VIDEOS.names) | {"video_id": "v"}, spool, seeds)
        commit_unit(storage, Commit("u", "1", writer.finish(), ("v",), 1, 0))
    boxed, masked = MaskletDataset(tmp_path)
    assert (boxed.kind, boxed.seed.object_id, boxed.seed.prompt.frame_index) == ("prompted", 70, 5)
    assert boxed.seed.prompt.box_xyxy.tolist() == [1, 2, 3, 4]
    assert (masked.seed.prompt.object_id, masked.seed.prompt.frame_index) == (71, 4)
    assert masked.seed.prompt.mask == encode(mask)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_outputs_of_older_versions(tmp_path, maker, version):
    """What was written before there were some columns reads as null in them, and is still as its commit says."""
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a"])
    maker.unit(storage, "u2", ["b"])
    commit = read_commit(storage, commit_name("u1"))
    parts = []
    for part in commit.parts:
        path = tmp_path / part.path
        old = schema_of(part.table, version)
        pq.write_table(pq.read_table(path).select(old.names).replace_schema_metadata(old.metadata), path)
        parts.append(replace(part, size_bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    (tmp_path / commit_name("u1")).unlink()
    assert commit_unit(storage, replace(commit, parts=tuple(parts)))
    assert verify_output(storage) == []
    dataset = MaskletDataset(tmp_path)
    assert dataset.masklets().schema.equals(TABLES["masklets"]) and dataset.masklets().num_rows == 4
    seeds = [masklet.seed for masklet in dataset]
    assert [(seed.attributes, seed.shot_index, seed.parent_masklet_id) for seed in seeds] == [({}, None, None)] * 4
    assert [masklet.judgement for masklet in dataset] == [None] * 4
    assert dataset.masks("a")["num_components"].null_count == dataset.masks("a").num_rows
    assert dataset.masks("b")["num_components"].null_count == 0
    assert dataset.sql("SELECT count(*) FROM masklets WHERE attributes IS NULL").fetchall() == [(4,)]


def test_masks_as_arrays(tmp_path, maker):
    masks = maker.unit(Storage(tmp_path), "u1", ["a"])
    dataset = MaskletDataset(tmp_path)
    found = dataset.masks("a", 1, decode=True)
    assert found.dtype == bool and found.shape == (3, *maker.SIZE)
    assert np.array_equal(found, [masks["a", 1, frame] for frame in (0, 4, 8)])
    late = dataset.masks("a", 1, filter=pc.field("frame_index") > 3, decode=True)
    assert np.array_equal(late, found[1:])
    with pytest.raises(ConfigError, match="decoded of one masklet"):
        dataset.masks("a", decode=True)
    with pytest.raises(KeyError, match="no such mask of masklet 7 of video 'a'"):
        dataset.masks("a", 7, decode=True)


def test_other_libraries(storage, maker):
    maker.unit(storage, "u1", ["a", "b"])
    maker.unit(storage, "u2", ["c"], masklets=3)
    dataset = MaskletDataset(storage.url)
    query = "SELECT video_id, count(*) AS n FROM masklets JOIN masks USING (video_id, masklet_id) GROUP BY 1 ORDER BY 1"
    assert dataset.sql(query).fetchall() == [("a", 6), ("b", 6), ("c", 9)]
    assert dataset.sql("SELECT status, count(*) FROM videos GROUP BY 1").fetchall() == [("ok", 3)]
    with pytest.raises(ConfigError, match="the query failed"):
        dataset.sql("SELECT nothing FROM masklets")
    lazy = dataset.scan_polars("masks").filter(polars.col("frame_index") == 4).group_by("video_id").len().sort("video_id")
    assert lazy.collect().rows() == [("a", 2), ("b", 2), ("c", 3)]
    one = dataset.to_pandas("masklets", columns=["masklet_id"], filter=pc.field("video_id") == "c")
    assert one.columns.tolist() == ["masklet_id"] and one.masklet_id.tolist() == [0, 1, 2]


def test_filters_reach_the_files(tmp_path, maker):
    """Of a part with several row groups only that with the video is read."""
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a"])
    dataset = MaskletDataset(tmp_path)
    (tmp_path / "masks" / "unit-u1-1.parquet").rename(tmp_path / "whole")
    table = pq.read_table(tmp_path / "whole")
    pq.write_table(table, tmp_path / "masks" / "unit-u1-1.parquet", row_group_size=2)
    path = tmp_path / "masks" / "unit-u1-1.parquet"
    last = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    for place in range(last.dictionary_page_offset, last.dictionary_page_offset + last.total_compressed_size):
        data[place] = 0xFF  # whoever reads the last group fails
    path.write_bytes(data)
    assert dataset.masks(columns=["frame_index"], filter=pc.field("masklet_id") == 0).num_rows == 3
    assert dataset.sql("SELECT count(frame_index) FROM masks WHERE masklet_id = 0").fetchall() == [(3,)]
    lazy = dataset.scan_polars("masks").filter(polars.col("masklet_id") == 0)
    assert lazy.select("frame_index").collect()["frame_index"].to_list() == [0, 4, 8]
    with pytest.raises(StorageError, match="cannot read masks"):
        dataset.masks(columns=["video_id"])


def write_moving(folder):
    """A video whose frame t is grey of 8 t, and tables with a masklet on its annotated frames."""
    write_video(folder / "v.mp4", [np.full((24, 32, 3), 8 * t, np.uint8) for t in range(24)])
    late = {f: disc(8, 8 + f / 4, 5 if f >= 12 else 0) for f in range(0, 24, 4)}
    objects = {1: {f: disc(16, 24 - f / 4, 6) for f in range(0, 24, 4)}, 2: late}
    facts = {"uri": str(folder / "v.mp4"), "annotated_frame_count": 6}
    return MaskletDataset(write_tables(folder / "out", {"v": objects}, "auto", facts=facts, failed=["w"])), objects


def test_frames_beside_masks(tmp_path):
    dataset, objects = write_moving(tmp_path)
    shown = list(dataset.annotated_frames("v"))
    assert [one.frame.index for one in shown] == [0, 4, 8, 12, 16, 20]
    for one in shown:
        assert abs(one.frame.image.mean() - 8 * one.frame.index) < 4
        assert one.masklet_ids == (0, 1)  # the tables' helper numbers objects backwards
        assert np.array_equal(one.masks_NHW, [decode(objects[number][one.frame.index]) for number in (2, 1)])
    (small,) = dataset.annotated_frames("v", [1], frame_indices=[8], size=(12, 16))
    assert small.frame.image.shape == (12, 16, 3) and small.masks_NHW.shape == (1, 12, 16)
    assert np.array_equal(small.masks_NHW[0], decode(objects[1][8])[1::2, 1::2])
    with dataset.open_video("v") as video:
        assert video.num_frames == 24
    with pytest.raises(KeyError, match="holds no video 'x'"):
        dataset.open_video("x")
    with pytest.raises(VideoError, match="nothing says where video 'w' is"):
        dataset.open_video("w")
    write_video(tmp_path / "v.mp4", [np.zeros((24, 32, 3), np.uint8)] * 20)
    seen = []
    with pytest.raises(VideoError, match="has no frame 20, which is annotated"):
        for one in dataset.annotated_frames("v"):
            seen.append(one.frame.index)
    assert seen == [0, 4, 8, 12, 16], "frames are decoded as they are asked for: those before it came"


def test_outputs_without_results(tmp_path, maker):
    with pytest.raises(StorageError, match="not the output of a run"):
        MaskletDataset(tmp_path)
    Storage(tmp_path).write_bytes("_run/run.json", b"{}")
    dataset = MaskletDataset(tmp_path)
    assert [dataset.videos().num_rows, dataset.masklets().num_rows, dataset.masks().num_rows, len(list(dataset))] == [0] * 4
    maker.unit(Storage(tmp_path), "u", ["a!"])
    dataset.refresh()
    assert (dataset.videos().num_rows, dataset.masks().num_rows) == (1, 0)


def test_truncated_part(tmp_path, maker):
    maker.unit(Storage(tmp_path), "u", ["a"])
    path = tmp_path / "masks" / "unit-u-1.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match="cannot read masks"):
        MaskletDataset(tmp_path).masks()
