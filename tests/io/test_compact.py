"""Merging parts: the same rows in fewer files, for readers at any moment, and whatever interrupts it."""

import json
import threading
import time
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io import compact as module
from sam2_pipeline.io import lease
from sam2_pipeline.io.commits import commit_name, find_orphans, list_commits, without_replaced
from sam2_pipeline.io.compact import compact, plan_merges, settle
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.schema import KEYS, MASKS, TABLES
from sam2_pipeline.masklets.work import Commit, Part

UNITS = {"u3": ["b", "e"], "u1": ["a", "f!"], "u2": ["c"], "u4": ["d", "g"], "u5": ["h!"]}


@pytest.fixture
def output(storage, maker):
    for unit_id, videos in UNITS.items():
        maker.unit(storage, unit_id, videos)
    return storage


def rows(storage):
    """Every table, in the order of its keys."""
    dataset = MaskletDataset(storage.url)
    return {
        table: getattr(dataset, table)().sort_by([(key, "ascending") for key in KEYS[table]]).replace_schema_metadata(None)
        for table in TABLES
    }


def test_the_same_rows_in_one_file_a_table(output):
    before = rows(output)
    done = compact(output)
    assert (done.commits_before, done.commits_after, done.files_removed) == (5, 1, 20)
    assert rows(output) == before
    assert verify_output(output) == [] and find_orphans(output) == []
    (commit,) = list_commits(output)
    assert (commit.num_videos, commit.num_failures, commit.replaces) == (8, 2, ())
    assert [len(list(output.list(table))) for table in TABLES] == [1, 1, 1]
    assert compact(output).commits_after == 1 and rows(output) == before  # there is nothing more to merge


def test_merged_parts_are_as_a_worker_would_have_written_them(tmp_path, maker, monkeypatch):
    monkeypatch.setattr("sam2_pipeline.io.parts.ROWS_PER_GROUP", 8)
    storage = Storage(tmp_path)
    for unit_id, videos in UNITS.items():
        maker.unit(storage, unit_id, videos)
    compact(storage)
    (path,) = (tmp_path / "masks").iterdir()
    with pq.ParquetFile(path) as parquet:
        groups = [parquet.read_row_group(number, columns=["video_id"])["video_id"].unique().to_pylist() for number in range(6)]
        assert groups == [["a"], ["b"], ["c"], ["d"], ["e"], ["g"]]  # a reader of one video reads one
        assert parquet.schema_arrow.metadata[b"sam2_pipeline.config_hash"] == b"abc"
        assert parquet.schema_arrow.equals(MASKS)
    assert len(pd.read_parquet(tmp_path / "masks")) == 36  # a folder as it stands


def test_sizes_are_between_half_and_twice_the_target():
    def commit(name, size):
        return Commit(name, "1", (Part("masks", name, 1, size, ""), Part("videos", name, 1, 1, "")), (name,), 1, 0)

    commits = [commit(f"v{number}", size) for number, size in enumerate([30, 40, 45, 200, 10, 49, 49, 60, 5])]
    groups = plan_merges(reversed(commits), 100)
    assert [[commit.unit_id for commit in group] for group in groups] == [["v0", "v1", "v2"], ["v4", "v5", "v6", "v8"]]
    assert plan_merges(commits[:1], 100) == []


@pytest.mark.parametrize("moment", ["merged", "committed", "deleting", "sweeping"])
def test_interrupted_anywhere_every_row_is_there_once(output, monkeypatch, moment):
    before = rows(output)

    class Stop(BaseException):
        pass

    def stop(*arguments, **options):
        raise Stop

    if moment == "merged":
        monkeypatch.setattr(module, "commit_unit", stop)
    elif moment == "committed":
        monkeypatch.setattr(module.time, "sleep", stop)
    elif moment == "sweeping":
        monkeypatch.setattr(module, "sweep_orphans", stop)
    else:
        removed = []

        def delete(self, names, whole=Storage.delete):
            for name in names:
                whole(self, [name])
                removed.append(name)
                if len(removed) == 2:
                    raise Stop

        monkeypatch.setattr(Storage, "delete", delete)
    with pytest.raises(Stop):
        compact(output)
    monkeypatch.undo()
    storage = Storage(output.url)
    assert rows(storage) == before
    assert [problem for problem in verify_output(storage) if problem.severity == "error"] == []
    compact(storage)
    assert rows(storage) == before and verify_output(storage) == [] and len(list_commits(storage)) == 1


def test_readers_who_began_before_are_unharmed(output):
    before = rows(output)
    dataset = MaskletDataset(output.url)
    masklets = iter(dataset)
    first = next(masklets)
    compact(output)
    assert [first.video_id, *(masklet.video_id for masklet in masklets)] == sorted("aabbccddeegg")
    assert dataset.masks("e").num_rows == 6
    assert len(dataset.commits) == 1
    assert dataset.videos().replace_schema_metadata(None) == before["videos"]


def test_readers_in_the_middle_of_it_see_every_row_once(tmp_path, maker):
    storage = Storage(tmp_path)
    for number in range(24):
        maker.unit(storage, f"u{number:02}", [f"v{number:02}"])
    counts, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            masks = MaskletDataset(tmp_path).masks(columns=["video_id", "masklet_id", "frame_index"])
            keys = set(zip(*(column.to_pylist() for column in masks.columns)))
            counts.add((masks.num_rows, len(keys)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        size = max(part.size_bytes for commit in list_commits(storage) for part in commit.parts)
        for factor in (2, 4, 8, 100):
            compact(storage, target_bytes=factor * size)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert counts == {(144, 144)}
    assert len(list_commits(storage)) == 1


def test_damaged_parts_are_not_merged(output, tmp_path):
    part = next(part for commit in list_commits(output) for part in commit.parts if part.table == "masks" and part.rows)
    output.write_bytes(part.path, output.read_bytes(part.path)[:-1] + b"x")
    with pytest.raises(StorageError, match="is not what was committed"):
        compact(output)
    assert len(list_commits(output)) == 5


def test_a_merged_part_that_is_swept_meanwhile_loses_nothing(output):
    before = rows(output)
    merge = module._merge(output, list_commits(output))
    output.delete([merge.parts[2].path])
    with pytest.raises(StorageError, match="compact while no run is at work"):
        settle(output)
    assert rows(output) == before
    compact(output)
    assert rows(output) == before and verify_output(output) == []


def test_of_two_at_once_one_gives_way(output, monkeypatch):
    """The second begins between the first's merge and its commit, and would choose other merges."""
    before, commit = rows(output), module.commit_unit
    refused = []

    def second_begins(storage, made):
        with pytest.raises(ConfigError, match=r"another compact is at work there \(.+:\d+\)") as error:
            compact(Storage(output.url), target_bytes=1)
        refused.append(error)
        return commit(storage, made)

    monkeypatch.setattr(module, "commit_unit", second_begins)
    assert compact(output).commits_after == 1 and len(refused) == 1
    assert rows(output) == before and verify_output(output) == []
    assert list(output.list("_run/compact")) == []


def test_one_that_was_killed_stands_in_nobodys_way(output, monkeypatch):
    before = rows(output)
    output.write_bytes("_run/compact/dead.json", json.dumps({"who": "gone:1", "at": time.time()}).encode())
    with pytest.raises(ConfigError, match="gone:1"):
        compact(output)
    output.write_bytes("_run/compact/dead.json", json.dumps({"who": "gone:1", "at": time.time() - 61}).encode())
    compact(output)
    assert rows(output) == before and len(list_commits(output)) == 1 and list(output.list("_run/compact")) == []


def test_one_that_gave_no_sign_of_life_commits_nothing(output, monkeypatch):
    """Another may have begun meanwhile."""
    before = rows(output)
    monkeypatch.setattr(lease, "SILENT_AFTER_S", 0.0)
    with pytest.raises(StorageError, match="no sign of life"):
        compact(output)
    assert rows(output) == before and len(list_commits(output)) == 5
    monkeypatch.undo()
    compact(output)
    assert rows(output) == before and verify_output(output) == []


def test_a_lease_is_renewed_and_then_gone(output, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.01)
    with lease.leased(output, "compact") as held:
        (name, _), *_ = output.list("_run/compact")
        first = output.read_bytes(name)
        deadline = time.monotonic() + 20
        while output.read_bytes(name) == first:
            assert time.monotonic() < deadline
        held.check()
    assert list(output.list("_run/compact")) == []


def test_parts_of_version_1_get_the_columns_that_came_since(tmp_path, maker):
    storage = Storage(tmp_path)
    for unit_id in ("u1", "u2"):
        maker.unit(storage, unit_id, [unit_id])
    name = next(part.path for part in list_commits(storage)[0].parts if part.table == "masklets")
    table = pq.read_table(tmp_path / name).drop_columns("attributes")
    pq.write_table(table, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    commit = list_commits(storage)[0]
    old = next(part for part in commit.parts if part.table == "masklets")
    new = replace(old, size_bytes=len(data), sha256=module.hashlib.sha256(data).hexdigest())
    parts = tuple(new if part is old else part for part in commit.parts)
    storage.write_bytes(commit_name("u1"), module.encode_commit(replace(commit, parts=parts)))
    compact(storage)
    merged = MaskletDataset(tmp_path).masklets()
    assert merged["attributes"].null_count == merged.num_rows == 4
    assert pc.all(pc.is_valid(merged["masklet_type"])).as_py() and isinstance(merged, pa.Table)


def test_replaced_commits_do_not_count():
    merge = Commit("m", "1", (), ("a", "b"), 2, 0, ("u1", "u2"))
    others = [Commit(name, "1", (), (), 0, 0) for name in ("u1", "u2", "u3")]
    assert [commit.unit_id for commit in without_replaced([*others, merge])] == ["u3", "m"]
