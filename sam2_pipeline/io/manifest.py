"""The frozen plan of a run: which videos make up which unit of work.

Units are named by their content, so a run that is started again (with other workers, or after a crash) finds the same units.
The manifest is a folder of Parquet files, each written once: the first run writes one, and a later run over an input that has
grown, or that takes failed videos up again, adds another.
"""

import hashlib
import heapq
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import VideoRef, WorkUnit, weigher

FOLDER = "_run/manifest"
SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("frames", pa.int64()),  # as predicted when the unit was planned
    ]
)
OLDER = SCHEMA.remove(SCHEMA.get_field_index("frames"))
# one video a unit up to here; beyond, units grow, since each one costs Ray some 15 ms and the store three objects
SINGLES = 5000
MOST_PER_UNIT = 64
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """``units`` still to do, the costliest first; ``added`` are those that no manifest file holds yet."""

    units: tuple[WorkUnit, ...]
    added: tuple[WorkUnit, ...]
    num_videos: int


def plan_work(
    videos: Iterable[VideoRef],
    *,
    planned: Sequence[WorkUnit] = (),
    done: frozenset[str] | set[str] = frozenset(),
    videos_per_unit: int | None = None,
    predict: Callable[[list[VideoRef]], list[VideoRef]] = lambda videos: videos,
) -> Plan:
    """Units for those ``videos`` that are not ``done`` (by video id), keeping the units ``planned`` before.

    ``predict`` gives back the videos that no unit holds yet with their numbers of frames, as far as it can tell.

    A planned unit is dropped, and what is left of it planned anew, when one of its videos is done, gone, or another file now.
    """
    todo = {video.video_id: video for video in videos if video.video_id not in done}
    left = dict(todo)
    kept = []
    for unit in planned:
        if all(left.get(video.video_id) == video for video in unit.videos):
            kept.append(unit)
            for video in unit.videos:
                del left[video.video_id]
    added = _pack(predict(list(left.values())), videos_per_unit)
    weigh = weigher(video for unit in kept + added for video in unit.videos)
    units = sorted(kept + added, key=lambda unit: (-sum(map(weigh, unit.videos)), unit.unit_id))
    return Plan(tuple(units), tuple(added), len(todo))


def make_unit(videos: Iterable[VideoRef]) -> WorkUnit:
    """The unit of these videos, in order of video id, named by their ids, addresses and sizes."""
    ordered = tuple(sorted(videos, key=lambda video: video.video_id))
    content = json.dumps([[video.video_id, video.uri, video.size_bytes] for video in ordered])
    return WorkUnit(hashlib.sha256(content.encode()).hexdigest()[:16], ordered)


def write_manifest(storage: Storage, units: Sequence[WorkUnit]) -> None:
    """Freeze ``units`` as one more manifest file. Its name derives from the content, so writing the same again is harmless."""
    if not units:
        return
    digest, rows = (
        hashlib.sha256(),
        ((unit.unit_id, v.video_id, v.uri, v.size_bytes, v.frames) for unit in units for v in unit.videos),
    )
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            columns = [pa.array(column, field.type) for column, field in zip(zip(*batch), SCHEMA)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
    for unit in units:
        digest.update(unit.unit_id.encode())
    storage.write_bytes(f"{FOLDER}/{digest.hexdigest()[:16]}.parquet", buffer.getvalue())


def read_manifest(storage: Storage) -> list[WorkUnit]:
    """Every unit planned so far, in a fixed order; empty where no run was planned."""
    units: list[WorkUnit] = []
    for name in (name for name, _ in storage.list(FOLDER) if name.endswith(".parquet")):
        try:
            parquet = pq.ParquetFile(io.BytesIO(storage.read_bytes(name)))
        except pa.ArrowInvalid as error:
            raise StorageError(f"{storage.url}: {name} is not a readable manifest ({error})") from error
        if not (parquet.schema_arrow.equals(SCHEMA) or parquet.schema_arrow.equals(OLDER)):
            raise StorageError(f"{storage.url}: {name} has columns {parquet.schema_arrow.names}, expected {SCHEMA.names}")
        members: dict[str, list[VideoRef]] = {}
        for batch in parquet.iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                members.setdefault(row.pop("unit_id"), []).append(VideoRef(**row))
        units.extend(WorkUnit(unit_id, tuple(videos)) for unit_id, videos in members.items())
    return units


def _pack(videos: list[VideoRef], videos_per_unit: int | None) -> list[WorkUnit]:
    """Units of about equal work: the largest video left goes to the unit that is least full."""
    if not videos:
        return []
    if videos_per_unit is None:
        videos_per_unit = min(math.ceil(len(videos) / SINGLES), MOST_PER_UNIT)
    weigh = weigher(videos)
    count = math.ceil(len(videos) / videos_per_unit)
    filled: list[tuple[float, int]] = [(0.0, index) for index in range(count)]
    members: list[list[VideoRef]] = [[] for _ in range(count)]
    for video in sorted(videos, key=lambda v: (-weigh(v), v.video_id)):
        size, index = heapq.heappop(filled)
        members[index].append(video)
        if len(members[index]) < videos_per_unit:
            heapq.heappush(filled, (size + weigh(video), index))
    return [make_unit(group) for group in members]
