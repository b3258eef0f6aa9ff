"""Verdicts of people on masklets: small Parquet parts below ``verdicts/``, each written whole and never changed.

A save is a part of its own, so any number of people and servers may write at once and nobody's word is lost. The latest one on
a masklet counts; the others remain as its history.
"""

import io
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import VERDICTS

Word = Literal["accept", "reject", "refine"]
WORDS: tuple[Word, ...] = get_args(Word)
FOLDER = "verdicts"
MOST_PARTS = 256  # from so many on they are merged
REVIEW = ("review", "reviewed_by", "reviewed_at", "review_note")  # columns that a join adds to masklets
_READERS = 16


def _new_id() -> str:
    return uuid.uuid4().hex[:16]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody says of a masklet; ``verdict`` None takes back what was said before. ``undoes`` names what this undoes."""

    video_id: str
    masklet_id: int
    verdict: Word | None
    author: str
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    note: str | None = None
    undoes: str | None = None
    verdict_id: str = field(default_factory=_new_id)

    def __post_init__(self) -> None:
        if self.verdict is not None and self.verdict not in WORDS:
            raise ConfigError(f"verdict on masklet {self.masklet_id} is {self.verdict!r}, expected one of {', '.join(WORDS)}")
        if not self.author:
            raise ConfigError(f"verdict on masklet {self.masklet_id}: the author has no name")


def write_verdicts(storage: Storage, verdicts: Iterable[Verdict]) -> None:
    """Adds verdicts, all or none of them, as one part."""
    rows = [asdict(verdict) for verdict in verdicts]
    if rows:
        first = min(rows, key=lambda row: row["made_at"])
        _write(storage, pa.Table.from_pylist(rows, VERDICTS), f"{first['made_at']:%Y%m%dT%H%M%S%f}-{first['verdict_id']}")


def read_verdicts(storage: Storage) -> pa.Table:
    """Every verdict ever given, in order of time.

    Raises:
        StorageError: a part cannot be read, or is none of ours.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(lambda name: _read(storage, name), _names(storage)))
    table = pa.concat_tables([VERDICTS.empty_table(), *parts]).sort_by([("made_at", "ascending"), ("verdict_id", "ascending")])
    # while parts are being merged, a verdict may be in two of them
    return table.take(_last_of_each(table, ["verdict_id"]))


def latest(verdicts: pa.Table) -> pa.Table:
    """Of verdicts in order of time those that count: the last of each masklet, unless it takes the others back."""
    last = verdicts.take(_last_of_each(verdicts, ["video_id", "masklet_id"]))
    return last.filter(pc.field("verdict").is_valid()).sort_by([("video_id", "ascending"), ("masklet_id", "ascending")])


def join_verdicts(masklets: pa.Table, verdicts: pa.Table) -> pa.Table:
    """The masklets, in their order, with the columns `REVIEW` of the verdicts that count; null where there is none."""
    found = {(row["video_id"], row["masklet_id"]): row for row in verdicts.to_pylist()}
    keys = zip(masklets["video_id"].to_pylist(), masklets["masklet_id"].to_pylist())
    rows = [found.get(key, {}) for key in keys]
    for name, column in zip(REVIEW, ("verdict", "author", "made_at", "note")):
        masklets = masklets.append_column(name, pa.array([row.get(column) for row in rows], VERDICTS.field(column).type))
    return masklets


def merge_parts(storage: Storage, most: int = MOST_PARTS) -> bool:
    """Makes one part of many, if there are ``most`` or more; True if it did. Parts that come meanwhile are left alone."""
    names = _names(storage)
    if len(names) < most:
        return False
    with ThreadPoolExecutor(_READERS) as pool:
        merged = pa.concat_tables(list(pool.map(lambda name: _read(storage, name), names)))
    _write(storage, merged.take(_last_of_each(merged, ["verdict_id"])), f"merged-{_new_id()}")
    storage.delete(names)
    return True


def _names(storage: Storage) -> list[str]:
    return [name for name, _ in storage.list(FOLDER) if name.endswith(".parquet")]


def _write(storage: Storage, table: pa.Table, name: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write_bytes(f"{FOLDER}/{name}.parquet", buffer.getvalue())


def _read(storage: Storage, name: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(storage.read_bytes(name)), schema=VERDICTS)
    except StorageError:
        if storage.exists(name):
            raise
        return VERDICTS.empty_table()  # merged since it was listed
    except pa.ArrowException as error:
        raise StorageError(f"{storage.locate(name)}: not a part of the verdicts table: {error}") from error


def _last_of_each(table: pa.Table, keys: list[str]) -> pa.Array:
    """Places of the last row of every key, in order."""
    numbered = table.select(keys).append_column("place", pa.array(range(table.num_rows), pa.int64()))
    return numbered.group_by(keys).aggregate([("place", "max")])["place_max"].combine_chunks().sort()
