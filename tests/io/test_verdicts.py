"""Verdicts: nobody's word is lost, the latest counts, and the dataset joins them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from mask_forms import moving_discs, write_tables

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verdicts import Verdict, latest, merge_parts, read_verdicts, write_verdicts
from sam2_pipeline.io.verify import verify_output

START = datetime(2026, 1, 1, tzinfo=UTC)


def said(masklet_id, word, seconds, video_id="a", author="ann", **more):
    return Verdict(video_id, masklet_id, word, author, START + timedelta(seconds=seconds), **more)


def words(table):
    return [(row["video_id"], row["masklet_id"], row["verdict"]) for row in table.to_pylist()]


def test_the_latest_counts(storage):
    assert read_verdicts(storage).num_rows == 0
    write_verdicts(storage, [said(1, "reject", 5)])
    write_verdicts(storage, [said(1, "accept", 3), said(0, "refine", 1), said(2, "accept", 1)])
    write_verdicts(storage, [said(2, None, 2), said(1, "accept", 0, "b")])
    table = read_verdicts(storage)
    assert table.num_rows == 6 and table["made_at"].to_pylist() == sorted(table["made_at"].to_pylist())
    assert words(latest(table)) == [("a", 0, "refine"), ("a", 1, "reject"), ("b", 1, "accept")]


def test_many_writers_at_once(tmp_path):
    storage = Storage(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_verdicts(storage, [said(n, "accept", n % 3)]), range(40)))
    assert len(words(latest(read_verdicts(storage)))) == 40


def test_merging_keeps_every_word(storage):
    for n in range(6):
        write_verdicts(storage, [said(n % 2, "accept" if n % 3 else None, n, note=f"note {n}")])
    before = read_verdicts(storage)
    assert not merge_parts(storage, 7)
    assert merge_parts(storage, 6) and len(list(storage.list("verdicts"))) == 1
    assert read_verdicts(storage).equals(before)


def test_a_word_in_two_parts_is_one_word(tmp_path):
    storage, verdict = Storage(tmp_path), said(0, "accept", 0)
    write_verdicts(storage, [verdict])
    [(name, _)] = storage.list("verdicts")
    storage.write_bytes("verdicts/merged-of-a-server-that-died.parquet", storage.read_bytes(name))
    assert read_verdicts(storage).num_rows == 1


def test_what_is_not_a_verdict(tmp_path):
    with pytest.raises(ConfigError, match="expected one of accept, reject, refine"):
        said(0, "perhaps", 0)
    with pytest.raises(ConfigError, match="no name"):
        said(0, "accept", 0, author="")
    storage = Storage(tmp_path)
    storage.write_bytes("verdicts/x.parquet", b"not Parquet")
    with pytest.raises(StorageError, match=r"x\.parquet: not a part"):
        read_verdicts(storage)


def test_the_dataset_joins_them(tmp_path):
    output = write_tables(tmp_path / "out", {"a": moving_discs(), "b": moving_discs()})
    write_verdicts(Storage(output), [said(1, "accept", 1, note="good"), said(0, "reject", 2, "b"), said(7, "accept", 0)])
    dataset = MaskletDataset(output)
    rows = dataset.masklets(reviewed=True).to_pylist()
    assert [(row["video_id"], row["masklet_id"], row["review"]) for row in rows] == [
        ("a", 0, None),
        ("a", 1, "accept"),
        ("b", 0, "reject"),
        ("b", 1, None),
    ]
    assert (rows[1]["reviewed_by"], rows[1]["review_note"], rows[1]["reviewed_at"]) == (
        "ann",
        "good",
        START + timedelta(seconds=1),
    )
    accepted = dataset.masklets(columns=["masklet_id"], reviewed="accept")
    assert accepted.to_pylist() == [
        {
            "masklet_id": 1,
            "review": "accept",
            "reviewed_by": "ann",
            "reviewed_at": START + timedelta(seconds=1),
            "review_note": "good",
        }
    ]
    assert dataset.masklets("b", reviewed="accept").num_rows == 0
    assert words(dataset.verdicts("b")) == [("b", 0, "reject")] and dataset.verdicts(history=True).num_rows == 3
    with pytest.raises(ConfigError, match="reviewed is 'good'"):
        dataset.masklets(reviewed="good")
    assert verify_output(Storage(output)) == [], "verdicts are no orphans of the tables"
    assert pq.read_table(f"{output}/verdicts").num_rows == 3, "the folder reads as a table"
