"""Checks every committed part against its commit: bytes, rows, columns, keys, and that the three tables agree."""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.commits import commit_name, commit_names, find_orphans, read_commit, without_replaced
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import KEYS, SCHEMA_VERSION, TABLES, VERSION_KEY, schema_of
from sam2_pipeline.masklets.work import Commit, Part

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as its commit says. A warning costs no data: a file that no commit names."""

    severity: Literal["error", "warning"]
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


@dataclass(slots=True)
class _Rows:
    """What the tables of one unit hold, as far as they have to agree."""

    videos: dict[str, tuple[str | None, int | None, int | None]] = field(default_factory=dict)
    masklets: dict[tuple[str, int], int] = field(default_factory=dict)
    masks: Counter[tuple[str, int]] = field(default_factory=Counter)


def verify_output(storage: Storage) -> list[Problem]:
    """Everything wrong with an output, in order of units; empty when all is well. Reads every committed byte once.

    Raises:
        StorageError: the storage itself fails, as opposed to what is in it.
    """
    problems: list[Problem] = []
    readable = True
    owner: dict[str, str] = {}
    commits: list[Commit] = []
    for name in commit_names(storage):
        try:
            commits.append(read_commit(storage, name))
        except StorageError as error:
            problems.append(Problem("error", name, str(error)))
            readable = False
    for commit in without_replaced(commits):
        problems.extend(_verify_unit(storage, commit))
        for video_id in commit.video_ids:
            if video_id in owner:
                name = commit_name(commit.unit_id)
                problems.append(Problem("error", name, f"video {video_id!r} is in unit {owner[video_id]} too"))
            owner[video_id] = commit.unit_id
    if readable:  # else the parts of the broken commit would look like orphans
        orphans = find_orphans(storage)
        problems.extend(Problem("warning", name, "no commit names this file; a folder read takes it in") for name in orphans)
    return problems


def _verify_unit(storage: Storage, commit: Commit) -> Iterator[Problem]:
    tables = [part.table for part in commit.parts]
    if sorted(tables) != sorted(TABLES):
        yield Problem(
            "error", f"unit {commit.unit_id}", f"commit names parts of {tables}, expected one of each of {list(TABLES)}"
        )
        return
    rows, intact = _Rows(), True
    for part in commit.parts:
        problem = None
        for problem in _verify_part(storage, part, rows):
            yield problem
        intact &= problem is None
    if intact:
        for message in _disagreements(commit, rows):
            yield Problem("error", f"unit {commit.unit_id}", message)


def _verify_part(storage: Storage, part: Part, rows: _Rows) -> Iterator[Problem]:
    """Checks one file by itself, and notes in ``rows`` what the others have to agree with."""
    if not storage.exists(part.path):
        yield Problem("error", part.path, "missing")
        return
    with tempfile.TemporaryDirectory(prefix="sam2-verify-") as folder:
        path = os.path.join(folder, "part.parquet")
        storage.get_file(part.path, path)
        size = os.path.getsize(path)
        if size != part.size_bytes:
            yield Problem("error", part.path, f"has {size} bytes, its commit says {part.size_bytes}")
            return
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part.sha256:
            yield Problem("error", part.path, f"has SHA-256 {digest}, its commit says {part.sha256}")
            return
        try:
            with pq.ParquetFile(path) as parquet:
                messages = [*_check_layout(parquet, part)] or [*_check_rows(parquet, part, rows)]
        except (pa.ArrowException, OSError) as error:
            messages = [f"not readable as Parquet: {error}"]
        for message in messages:
            yield Problem("error", part.path, message)


def _check_layout(parquet: pq.ParquetFile, part: Part) -> Iterator[str]:
    schema = parquet.schema_arrow
    version = (schema.metadata or {}).get(VERSION_KEY, b"none").decode()
    known = version.isdecimal() and 1 <= int(version) <= SCHEMA_VERSION
    expected = schema_of(part.table, int(version) if known else SCHEMA_VERSION)
    if not schema.equals(expected):
        found, wanted = ([f"{f.name}: {f.type}" for f in s] for s in (schema, expected))
        extra, lacking = [c for c in found if c not in wanted], [c for c in wanted if c not in found]
        yield f"schema differs: found {extra}, expected {lacking}" if extra or lacking else "columns are in another order"
    if not known:
        yield f"schema version is {version}, expected 1 to {SCHEMA_VERSION}"
    if parquet.metadata.num_rows != part.rows:
        yield f"has {parquet.metadata.num_rows} rows, its commit says {part.rows}"


def _check_rows(parquet: pq.ParquetFile, part: Part, rows: _Rows) -> Iterator[str]:
    """Keys must rise from row to row, which says at once that they are sorted, unique and present."""
    last: tuple[object, ...] | None = None
    columns = {"videos": ["status", "masklet_count", "annotated_frame_count"], "masklets": ["frame_count"], "masks": []}
    for batch in parquet.iter_batches(columns=[*KEYS[part.table], *columns[part.table]]):
        lists = [batch.column(name).to_pylist() for name in batch.schema.names]
        keys = list(zip(*lists[: len(KEYS[part.table])]))
        if any(None in key for key in keys):
            yield f"a key ({', '.join(KEYS[part.table])}) is null"
            return
        for key in keys:
            if last is not None and key <= last:
                yield f"key {key} follows {last}: {'twice the same' if key == last else 'not sorted'}"
                return
            last = key
        if part.table == "videos":
            rows.videos |= {key[0]: value for key, value in zip(keys, zip(*lists[1:]))}
        elif part.table == "masklets":
            rows.masklets |= dict(zip(keys, lists[2]))
        else:
            rows.masks.update(key[:2] for key in keys)


def _disagreements(commit: Commit, rows: _Rows) -> Iterator[str]:
    if sorted(rows.videos) != sorted(commit.video_ids) or commit.num_videos != len(commit.video_ids):
        difference = sorted(set(rows.videos) ^ set(commit.video_ids))[:_SHOWN]
        yield f"holds {len(rows.videos)} videos, its commit names {commit.num_videos}; only one of the two has {difference}"
    failures = sum(status != "ok" for status, _, _ in rows.videos.values())
    if failures != commit.num_failures:
        yield f"holds {failures} failed videos, its commit says {commit.num_failures}"
    counted = Counter(video_id for video_id, _ in rows.masklets)
    for video_id in sorted(counted.keys() - rows.videos.keys())[:_SHOWN]:
        yield f"masklets of {video_id!r}, which is not among the videos"
    for video_id, (_, masklets, _) in rows.videos.items():
        if counted[video_id] != (masklets or 0):
            yield f"{counted[video_id]} masklets of {video_id!r}, its row in videos says {masklets}"
    for video_id, masklet_id in sorted(rows.masks.keys() - rows.masklets.keys())[:_SHOWN]:
        yield f"masks of masklet {masklet_id} of {video_id!r}, which is not among the masklets"
    for (video_id, masklet_id), frames in rows.masklets.items():
        found = rows.masks[video_id, masklet_id]
        expected = {frames, rows.videos.get(video_id, (None, None, frames))[2]}
        if expected != {found}:
            stated = " and ".join(map(str, sorted(expected, key=str)))
            yield f"{found} masks of masklet {masklet_id} of {video_id!r}, masklets and videos say {stated}"
