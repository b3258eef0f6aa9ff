"""Whatever can befall an output is found and named, and a sound one passes."""

import hashlib
import json
import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.schema import VERSION_KEY

COMMIT = "_run/commits/unit-u1.json"


@pytest.fixture
def output(tmp_path, maker):
    """Two units: videos a and b (failed), and c."""
    storage = Storage(tmp_path)
    maker.unit(storage, "u1", ["a", "b!"])
    maker.unit(storage, "u2", ["c"])
    return tmp_path


def found(output):
    return [str(problem) for problem in verify_output(Storage(output))]


def edit_commit(output, change):
    fields = json.loads((output / COMMIT).read_text())
    change(fields)
    (output / COMMIT).write_text(json.dumps(fields))


def rewrite(output, table, change):
    """Puts another table in the place of a part of u1, with a commit that says so."""
    path = output / table / "unit-u1-1.parquet"
    changed = change(pq.read_table(path))
    pq.write_table(changed, path)
    data = path.read_bytes()

    def restate(fields):
        part = next(part for part in fields["parts"] if part["table"] == table)
        part |= {"rows": changed.num_rows, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    edit_commit(output, restate)


def test_sound_outputs_pass(storage, maker):
    maker.unit(storage, "u1", ["a", "b!"])
    maker.unit(storage, "u2", [])
    assert verify_output(storage) == []


def test_rewritten_as_it_was_passes(output):
    rewrite(output, "masks", lambda table: table)
    assert found(output) == []


def test_missing_part(output):
    (output / "masks" / "unit-u1-1.parquet").unlink()
    assert found(output) == ["error: masks/unit-u1-1.parquet: missing"]


def test_truncated_part(output):
    path = output / "masks" / "unit-u1-1.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    (problem,) = found(output)
    assert f"has {path.stat().st_size} bytes, its commit says {path.stat().st_size + 9}" in problem


def test_altered_part(output):
    path = output / "masklets" / "unit-u2-1.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    (problem,) = found(output)
    assert problem.startswith("error: masklets/unit-u2-1.parquet: has SHA-256")


def test_part_that_is_not_parquet(output):
    rewrite(output, "masks", lambda table: table)
    path = output / "masks" / "unit-u1-1.parquet"
    path.write_bytes(b"not parquet at all")
    digest = hashlib.sha256(b"not parquet at all").hexdigest()
    edit_commit(output, lambda fields: fields["parts"][2].update(size_bytes=18, sha256=digest))
    (problem,) = found(output)
    assert "not readable as Parquet" in problem


def test_row_count_of_the_commit(output):
    edit_commit(output, lambda fields: fields["parts"][2].update(rows=7))
    assert found(output) == ["error: masks/unit-u1-1.parquet: has 6 rows, its commit says 7"]


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("masks", lambda t: t.drop_columns(["area"]), "schema differs: found [], expected ['area: int64']"),
        (
            "masks",
            lambda t: t.set_column(5, "area", t["area"].cast(pa.int32())),
            "found ['area: int32'], expected",
        ),
        ("videos", lambda t: t.select(t.column_names[::-1]), "columns are in another order"),
        ("videos", lambda t: t.replace_schema_metadata({VERSION_KEY: b"7"}), "schema version is 7, expected 1 to 3"),
        ("videos", lambda t: t.replace_schema_metadata(None), "schema version is none, expected 1 to 3"),
        ("masks", lambda t: pa.concat_tables([t.slice(0, 3), t.slice(2)]), "key ('a', 0, 8) follows ('a', 0, 8): twice the same"),
        ("masks", lambda t: t.take([0, 2, 1, 3, 4, 5]), "key ('a', 0, 4) follows ('a', 0, 8): not sorted"),
        ("masklets", lambda t: t.take([1, 0]), "key ('a', 0) follows ('a', 1): not sorted"),
        (
            "masks",
            lambda t: t.set_column(2, "frame_index", pa.nulls(6, pa.int32())),
            "masklet_id, frame_index) is null",
        ),
    ],
)
def test_wrong_layout_and_keys(output, table, change, says):
    rewrite(output, table, change)
    (problem,) = found(output)
    assert problem.startswith(f"error: {table}/unit-u1-1.parquet: ")
    assert says in problem


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("masks", lambda t: t.slice(0, 5), ["2 masks of masklet 1 of 'a', masklets and videos say 3"]),
        (
            "masklets",
            lambda t: t.slice(0, 1),
            ["1 masklets of 'a', its row in videos says 2", "masks of masklet 1 of 'a'"],
        ),
        ("videos", lambda t: t.slice(0, 1), ["only one of the two has ['b']", "holds 0 failed videos, its commit says 1"]),
        ("videos", lambda t: t.slice(1), ["only one of the two has ['a']", "masklets of 'a', which is not"]),
    ],
)
def test_tables_that_disagree(output, table, change, says):
    rewrite(output, table, change)
    problems = found(output)
    assert len(problems) == len(says)
    for problem, expected in zip(problems, says):
        assert problem.startswith("error: unit u1: ")
        assert expected in problem


def test_annotated_frames_of_the_video(output):
    def less(table):
        return table.set_column(13, table.field(13), pc.subtract(table["annotated_frame_count"], 1).cast(pa.int32()))

    rewrite(output, "videos", less)
    assert [problem.rpartition("say ")[2] for problem in found(output)] == ["2 and 3"] * 2


def test_commits(output, maker):
    edit_commit(output, lambda fields: fields["parts"].pop())
    assert "unit u1: commit names parts of ['videos', 'masklets']" in found(output)[0]
    (output / COMMIT).write_text("{")
    (problem,) = found(output)  # and no word of u1's parts, which are not orphans
    assert problem.startswith(f"error: {COMMIT}: ")
    assert "not a commit" in problem
    os.remove(output / COMMIT)
    assert found(output) == [
        f"warning: {table}/unit-u1-1.parquet: no commit names this file; a folder read takes it in"
        for table in ("videos", "masklets", "masks")
    ]


def test_one_video_in_two_units(output, maker):
    maker.unit(Storage(output), "u3", ["a"])
    assert found(output) == ["error: _run/commits/unit-u3.json: video 'a' is in unit u1 too"]
