"""Merging the small parts of many units into few large ones.

Parts of a unit are a few megabytes, so that little is lost with a worker; those who read want files of some hundred. What is
merged is written beside the old parts, and made visible by one commit, which names the units that it replaces: from then on
their commits do not count. Old commits and parts are removed later, so that readers who began before can end. Interrupted
anywhere, every row is there once, and `settle` ends what was begun.
"""

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.commits import commit_name, commit_unit, encode_commit, list_commits, sweep_orphans
from sam2_pipeline.io.lease import leased
from sam2_pipeline.io.parts import reporting, write_part
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import KEYS, TABLES, VERSION_KEY
from sam2_pipeline.masklets.work import Commit, Part

TARGET_BYTES = 256 << 20
FETCHES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was done: commits before and after, bytes that were written, and files that were removed."""

    commits_before: int
    commits_after: int
    bytes_written: int
    files_removed: int


def compact(
    storage: Storage,
    *,
    target_bytes: int = TARGET_BYTES,
    grace_s: float = 0.0,
    on_merge: Callable[[int, int], None] = lambda done, total: None,
) -> Compaction:
    """Merge the parts of an output into files of about ``target_bytes``, half to twice that; larger ones stay as they are.

    Not while a run writes to the output, and one at a time: of two that chose different merges, rows would be there twice.
    ``grace_s`` is how long readers who began before may go on with the old files;
    `MaskletDataset` looks for the new ones by itself. ``on_merge`` is told how many of how many merges are done.

    Raises:
        ConfigError: another process is merging the same output.
        StorageError: the output cannot be read or written, or is damaged; what is merged already stays.
    """
    with leased(storage, "compact") as lease:
        removed = settle(storage)
        commits = list_commits(storage)
        groups = plan_merges(commits, target_bytes)
        written = 0
        for number, group in enumerate(groups, 1):
            written += sum(part.size_bytes for part in _merge(storage, group, lease.check).parts)
            on_merge(number, len(groups))
        if groups:
            time.sleep(grace_s)
            lease.check()
            removed += settle(storage)
    after = len(commits) - sum(len(group) - 1 for group in groups)
    return Compaction(len(commits), after, written, removed)


def plan_merges(commits: Iterable[Commit], target_bytes: int) -> list[list[Commit]]:
    """Which commits become one, neighbours by video id, so that a file holds a range of them."""
    small = [commit for commit in commits if _size(commit) < target_bytes / 2]
    groups: list[list[Commit]] = []
    size = target_bytes
    for commit in sorted(small, key=lambda commit: (min(commit.video_ids, default=""), commit.unit_id)):
        if size >= target_bytes or size + _size(commit) > 2 * target_bytes:
            groups.append([])
            size = 0
        groups[-1].append(commit)
        size += _size(commit)
    if len(groups) > 1 and size < target_bytes / 2 and size + sum(map(_size, groups[-2])) <= 2 * target_bytes:
        groups[-2:] = [groups[-2] + groups[-1]]
    return [group for group in groups if len(group) > 1]


def settle(storage: Storage) -> int:
    """Remove what was replaced by a merge, its commits and then its parts; the number of files removed.

    Raises:
        StorageError: a merged part is not there. Its merge is undone, and nothing is lost.
    """
    merges = [commit for commit in list_commits(storage) if commit.replaces]
    for merge in merges:
        _check_stored(storage, merge)
    if not merges:
        return 0
    replaced = [commit_name(unit_id) for merge in merges for unit_id in merge.replaces]
    storage.delete(replaced)
    swept = sweep_orphans(storage)
    for merge in merges:  # last, as a sign that all is done
        storage.write_bytes(commit_name(merge.unit_id), encode_commit(replace(merge, replaces=())))
    return len(replaced) + len(swept)


def _size(commit: Commit) -> int:
    return max((part.size_bytes for part in commit.parts), default=0)


def _check_stored(storage: Storage, merge: Commit) -> None:
    """A run that ends meanwhile sweeps away what is not committed yet, merged parts too."""
    for part in merge.parts:
        if not storage.exists(part.path) or storage.size(part.path) != part.size_bytes:
            storage.delete([commit_name(merge.unit_id)])
            raise StorageError(f"{storage.locate(part.path)}: has gone since it was written; compact while no run is at work")


def _merge(storage: Storage, commits: Sequence[Commit], check: Callable[[], None] = lambda: None) -> Commit:
    """One commit in the place of several. ``check`` is called before it is made, and may raise."""
    origin = json.dumps([[commit.unit_id, commit.attempt_id] for commit in commits])
    unit_id, attempt_id = hashlib.sha256(origin.encode()).hexdigest()[:16], uuid.uuid4().hex[:12]
    video_ids = tuple(sorted(video_id for commit in commits for video_id in commit.video_ids))
    if len(set(video_ids)) < len(video_ids):
        raise StorageError(f"{storage.url}: a video is in two units, which `sam2-pipeline verify` will name")
    parts = tuple(_merge_table(storage, table, f"{table}/unit-{unit_id}-{attempt_id}.parquet", commits) for table in TABLES)
    for part in parts:
        expected = sum(old.rows for commit in commits for old in commit.parts if old.table == part.table)
        if part.rows != expected:
            raise StorageError(f"{storage.locate(part.path)}: has {part.rows} rows, the parts it was merged from {expected}")
    num_failures, replaces = sum(commit.num_failures for commit in commits), tuple(commit.unit_id for commit in commits)
    commit = Commit(unit_id, attempt_id, parts, video_ids, len(video_ids), num_failures, replaces)
    check()
    commit_unit(storage, commit)
    return commit


def _merge_table(storage: Storage, table: str, name: str, commits: Sequence[Commit]) -> Part:
    old = [part for commit in commits for part in commit.parts if part.table == table]
    with reporting("merge parts"), tempfile.TemporaryDirectory(prefix="sam2-compact-") as folder:
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            paths = list(pool.map(lambda item: _fetch(storage, item[1], os.path.join(folder, f"{item[0]}")), enumerate(old)))
        videos = _spilled_by_video(paths, folder) if table == "masks" else [_sorted_rows(paths, table)]
        return write_part(storage, table, name, os.path.join(folder, "merged"), videos, _common_metadata(paths))


def _fetch(storage: Storage, part: Part, path: str) -> str:
    storage.get_file(part.path, path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != part.sha256:
        raise StorageError(f"{storage.locate(part.path)}: is not what was committed; see `sam2-pipeline verify`")
    return path


def _common_metadata(paths: Sequence[str]) -> dict[bytes, bytes]:
    """What all parts say of their run."""
    each = [dict(pq.read_schema(path).metadata or {}) for path in paths]
    common = set(each[0].items()).intersection(*(one.items() for one in each))
    return {key: value for key, value in common if key.startswith(b"sam2_pipeline.") and key != VERSION_KEY}


def _sorted_rows(paths: Sequence[str], table: str) -> list[pa.RecordBatch]:
    """Rows of a table that fits into memory, which is all but the masks."""
    batches = [batch for path in paths for batch in _batches(path, table)]
    rows = pa.Table.from_batches(batches, TABLES[table])
    return rows.sort_by([(key, "ascending") for key in KEYS[table]]).to_batches()


def _spilled_by_video(paths: Sequence[str], folder: str) -> Iterator[Iterator[pa.RecordBatch]]:
    """The masks of each video, in order of video id, whatever part they come from. Memory holds one batch."""
    spilled: dict[str, str] = {}
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    for path in paths:
        # a part is sorted by video, so that one file is open at a time
        for video_id, pieces in groupby(_pieces(path), key=lambda piece: piece[0]):
            spilled[video_id] = os.path.join(folder, f"video-{len(spilled)}")
            with pa.OSFile(spilled[video_id], "wb") as file, pa.ipc.new_stream(file, TABLES["masks"], options=options) as stream:
                for _, batch in pieces:
                    stream.write_batch(batch)
        os.remove(path)
    for video_id in sorted(spilled):
        yield _read_back(spilled[video_id])


def _pieces(path: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The masks of a part in pieces of one video."""
    for batch in _batches(path, "masks"):
        runs = pc.run_end_encode(batch.column("video_id"))
        start = 0
        for end, video_id in zip(runs.run_ends.to_pylist(), runs.values.to_pylist()):
            yield video_id, batch.slice(start, end - start)
            start = end


def _batches(path: str, table: str) -> Iterator[pa.RecordBatch]:
    """Rows as the present schema has them: columns that came after the part was written are null."""
    schema = TABLES[table]
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches():
            names = batch.schema.names
            columns = [
                batch.column(field.name) if field.name in names else pa.nulls(batch.num_rows, field.type) for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _read_back(path: str) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(path, "rb") as file, pa.ipc.open_stream(file) as stream:
        yield from stream
    os.remove(path)
