"""Of several attempts at a unit one counts, and what does not count can be swept away."""

import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import threading

import pandas as pd
import pytest

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.commits import commit_name, commit_unit, committed_units, find_orphans, list_commits, sweep_orphans
from sam2_pipeline.io.storage import Storage


def files(storage):
    return [name for name, _ in storage.list(recursive=True, hidden=True)]


def test_commits_round_trip(storage, maker):
    commits = [maker.parts(storage, unit_id, videos)[0] for unit_id, videos in (("u2", ["c"]), ("u1", ["a", "b!"]))]
    assert list_commits(storage) == []
    assert committed_units(storage) == set()
    assert all(commit_unit(storage, commit) for commit in commits)
    assert list_commits(storage) == sorted(commits, key=lambda commit: commit.unit_id)
    assert committed_units(storage) == {"u1", "u2"}
    assert storage.exists(commit_name("u1"))


def test_race_has_one_winner_and_the_loser_is_swept(storage, maker):
    attempts = [maker.parts(storage, "u", ["a"], attempt_id=str(number))[0] for number in range(4)]
    gate = threading.Barrier(len(attempts))

    def race(commit):
        gate.wait()
        return commit_unit(storage, commit)

    with concurrent.futures.ThreadPoolExecutor(len(attempts)) as pool:
        won = list(pool.map(race, attempts))
    assert sum(won) == 1
    winner = attempts[won.index(True)]
    assert list_commits(storage) == [winner]
    assert len(find_orphans(storage)) == 9
    assert sorted(sweep_orphans(storage)) == sorted(p.path for c in attempts if c is not winner for p in c.parts)
    assert files(storage) == [commit_name("u"), *sorted(part.path for part in winner.parts)]
    assert sweep_orphans(storage) == []


def test_the_same_attempt_may_commit_twice_on_an_object_store(s3_url, maker):
    """A lost reply and the retry after it look just like this."""
    storage = Storage(s3_url)
    commit, _ = maker.parts(storage, "u", ["a"])
    assert commit_unit(storage, commit)
    assert commit_unit(storage, commit)
    assert not commit_unit(storage, dataclasses.replace(commit, attempt_id="2"))


def test_killed_between_parts_and_commit(tmp_path, maker):
    """What a killed worker wrote is invisible, and the unit can be done again."""
    script = (
        "import os, signal, sys\n"
        "from sam2_pipeline.io.parts import UnitWriter\n"
        "from sam2_pipeline.io.storage import Storage\n"
        "with UnitWriter(Storage(sys.argv[1]), 'u', 'killed', {}) as writer:\n"
        "    writer.finish()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -9
    storage = Storage(tmp_path)
    assert len(find_orphans(storage)) == 3
    assert list_commits(storage) == []
    maker.unit(storage, "u", ["a"])
    sweep_orphans(storage)
    assert len(pd.read_parquet(tmp_path / "masks")) == 6
    assert len(files(storage)) == 4


def test_sweep_takes_interrupted_writes_and_leaves_the_rest(tmp_path, maker):
    storage = Storage(tmp_path)
    maker.unit(storage, "u", ["a"])
    (tmp_path / "masks" / ".unit-v-1.parquet.0123.tmp").write_bytes(b"cut")
    (tmp_path / "_run" / "run.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert find_orphans(storage) == []
    assert sweep_orphans(storage) == ["masks/.unit-v-1.parquet.0123.tmp"]
    assert {"_run/run.json", "notes.txt"} < set(files(storage))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"unit_id": "u"}', b'{"parts": [{"nonsense": 1}]}'])
def test_what_is_no_commit_is_named(storage, content):
    storage.write_bytes(commit_name("u"), content)
    with pytest.raises(StorageError, match=r"unit-u\.json: not a commit"):
        list_commits(storage)


def test_commit_under_another_name(tmp_path, maker):
    storage = Storage(tmp_path)
    maker.unit(storage, "u", ["a"])
    os.rename(tmp_path / commit_name("u"), tmp_path / commit_name("v"))
    with pytest.raises(StorageError, match=r"unit-v\.json: holds the commit of unit u"):
        list_commits(storage)


def test_other_peoples_files_are_not_swept(storage):
    storage.write_bytes("masks/notes.txt", b"mine")
    storage.write_bytes("masks/unit-x-1.parquet", b"an attempt that lost")
    assert sweep_orphans(storage) == ["masks/unit-x-1.parquet"]
    assert storage.read_bytes("masks/notes.txt") == b"mine"
