"""The three Parquet parts of one work unit, each written to local disk and then uploaded whole."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletSeed
from sam2_pipeline.masklets.schema import KEYS, MASKLETS, MASKS, TABLES, VIDEOS
from sam2_pipeline.masklets.work import Part

# A mask is 1-2 KB, so a row group is some 30 MB in memory: small enough to buffer, large enough to compress and scan well.
ROWS_PER_GROUP = 16_384
BYTES_PER_GROUP = 32 << 20


class UnitWriter:
    """Gathers the rows of one unit's videos and writes them as its parts.

    Videos may come in any order; the parts are sorted by video_id. ``metadata`` (config hash, model, ...) goes into every
    part beside the schema's version. Nothing is visible to readers until a commit names what `finish` returns. Use it as a
    context, which removes the temporary files.

    Raises:
        StorageError: local disk or storage refuse the data.
    """

    def __init__(self, storage: Storage, unit_id: str, attempt_id: str, metadata: Mapping[str, str]) -> None:
        self._storage = storage
        self._file_name = f"unit-{unit_id}-{attempt_id}.parquet"
        self._metadata = {f"sam2_pipeline.{key}".encode(): value.encode() for key, value in metadata.items()}
        self._videos: dict[str, dict[str, Any]] = {}
        self._masklets: dict[str, list[dict[str, Any]]] = {}
        with reporting("make a temporary directory"):
            self._directory = tempfile.TemporaryDirectory(prefix="sam2-unit-")

    def add_video(self, row: Mapping[str, Any], spool: MaskSpool, seeds: Iterable[MaskletSeed]) -> None:
        """Takes in one video: its row of the videos table, its masks (the spool may be closed afterwards) and its seeds.

        Raises:
            ValueError: the row's columns are not those of the videos table, the video was added before, or spool and seeds
                do not belong to it.
        """
        video_id = row.get("video_id")
        if set(row) != set(VIDEOS.names):
            missing, unknown = sorted(set(VIDEOS.names) - set(row)), sorted(set(row) - set(VIDEOS.names))
            raise ValueError(f"row of video {video_id!r}: missing columns {missing}, unknown columns {unknown}")
        if spool.video_id != video_id or video_id in self._videos:
            raise ValueError(f"masks of {spool.video_id!r} given for video {video_id!r}, expected each video once with its own")
        self._masklets[video_id] = spool.masklet_rows(seeds)
        path = self._spilled(len(self._videos))
        with reporting("write the rows"), pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, MASKS) as stream:
            for batch in spool.sorted_batches():
                stream.write_batch(batch)
        self._videos[video_id] = dict(row)

    def finish(self) -> tuple[Part, ...]:
        """Writes and uploads the parts, also those without rows, so that every folder can be read. Closes the writer."""
        order = sorted(self._videos)
        place = {video_id: number for number, video_id in enumerate(self._videos)}
        batches = {
            "videos": ([_rows_batch([self._videos[video_id]], VIDEOS)] for video_id in order),
            "masklets": ([_rows_batch(self._masklets[video_id], MASKLETS)] for video_id in order),
            "masks": (_read_spilled(self._spilled(place[video_id])) for video_id in order),
        }
        try:
            return tuple(self._write(table, batches[table]) for table in TABLES)
        finally:
            self.close()

    def close(self) -> None:
        """Removes the temporary files."""
        self._directory.cleanup()

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spilled(self, number: int) -> str:
        return os.path.join(self._directory.name, f"{number}.arrows")

    def _write(self, table: str, videos: Iterable[Iterable[pa.RecordBatch]]) -> Part:
        path, name = os.path.join(self._directory.name, f"{table}.parquet"), f"{table}/{self._file_name}"
        return write_part(self._storage, table, name, path, videos, self._metadata)


def write_part(
    storage: Storage,
    table: str,
    name: str,
    path: str,
    videos: Iterable[Iterable[pa.RecordBatch]],
    metadata: Mapping[bytes, bytes],
) -> Part:
    """Writes the batches of one video after the other as the part ``name``, by way of the local file ``path``, which is removed.

    Raises:
        StorageError: local disk or storage refuse the data.
    """
    schema = TABLES[table]
    with reporting("write the rows"):
        rows = write_grouped(path, schema.with_metadata({**schema.metadata, **metadata}), videos)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    storage.put_file(path, name)
    part = Part(table, name, rows, os.path.getsize(path), digest)
    os.remove(path)
    return part


def write_grouped(path: str, schema: pa.Schema, videos: Iterable[Iterable[pa.RecordBatch]]) -> int:
    """Writes the batches of one video after the other as Parquet; returns the number of rows.

    A row group ends before a video that would not fit into it, so that a reader of one video reads one group; only a video
    that is larger than a group is spread over several. Memory holds one group.
    """
    sorting = [pq.SortingColumn(schema.get_field_index(key)) for key in KEYS["masks"] if key in schema.names]
    total = 0
    with pq.ParquetWriter(path, schema, compression="zstd", sorting_columns=sorting) as writer:
        whole, current = _Group(), _Group()  # videos that are complete, and the one at hand
        for video in videos:
            for batch in video:
                current.add([batch])
                total += batch.num_rows
                if whole.fills_with(current):
                    whole = whole.written(writer)
                if current.fills_with():
                    current = current.written(writer)
            whole.add(current.batches)
            current = _Group()
        whole.written(writer)
    return total


class _Group:
    """Batches on their way into one row group."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.rows = self.bytes = 0

    def add(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            self.batches.append(batch)
            self.rows += batch.num_rows
            self.bytes += batch.nbytes

    def fills_with(self, other: "_Group | None" = None) -> bool:
        rows, size = (self.rows + other.rows, self.bytes + other.bytes) if other else (self.rows, self.bytes)
        return rows >= ROWS_PER_GROUP or size >= BYTES_PER_GROUP

    def written(self, writer: pq.ParquetWriter) -> "_Group":
        """Writes the row group; gives back an empty one to go on with."""
        if self.rows:
            writer.write_table(pa.Table.from_batches(self.batches, writer.schema), row_group_size=self.rows)
        return _Group()


def _rows_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _read_spilled(path: str) -> Iterator[pa.RecordBatch]:
    with reporting("read the rows back"), pa.OSFile(path, "rb") as file, pa.ipc.open_stream(file) as stream:
        yield from stream


@contextlib.contextmanager
def reporting(action: str) -> Iterator[None]:
    """Within the block, trouble with the local disk is a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{tempfile.gettempdir()}: cannot {action}: {error}") from error
