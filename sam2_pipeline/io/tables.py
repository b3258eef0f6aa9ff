"""The committed tables of an output, as other libraries read tables."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import KEYS, TABLES

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

Table = Literal["videos", "masklets", "masks"]
FILES_AT_ONCE = 256


class CommittedTables:
    """The three tables as of the moment of opening; `refresh` takes in what was committed since. See `MaskletDataset`.

    So does reading, by itself, once it finds that files were merged by `compact`; a scan that was handed out (`dataset`, `sql`,
    `scan_polars`) has as long as `compact` waits.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: dict[str, Any] | None = None) -> None:
        self.storage = Storage(url, storage_options)
        self.refresh()

    def refresh(self) -> None:
        """Looks for commits anew."""
        self.commits = list_commits(self.storage)
        if not self.commits and not any(self.storage.list("_run", recursive=True)):
            raise StorageError(f"{self.storage.url}: not the output of a run: it has no _run folder with anything in it")
        self._commit_of = {video_id: commit for commit in self.commits for video_id in commit.video_ids}

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Of all videos, failed ones too; sorted."""
        return tuple(sorted(self._commit_of))

    def files(self, table: Table, video_id: str | None = None) -> list[str]:
        """URLs of the committed parts of a table, for other readers; with ``video_id`` only the part that holds it."""
        return [self.storage.locate(name) for name in self._names(table, video_id)]

    def dataset(self, table: Table, video_id: str | None = None) -> pads.Dataset:
        """A table as a pyarrow dataset, to scan without loading it whole."""
        return self._dataset(table, self._names(table, video_id))

    def to_pandas(
        self,
        table: Table,
        video_id: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
    ) -> "pandas.DataFrame":
        """A table as a pandas data frame."""
        return self._read(table, video_id, columns, filter).to_pandas()

    def scan_polars(self, table: Table, video_id: str | None = None) -> "polars.LazyFrame":
        """A table for Polars, which reads what a query needs of it: `collect` does so."""
        import polars

        return polars.scan_pyarrow_dataset(self.dataset(table, video_id))

    def sql(self, query: str) -> "duckdb.DuckDBPyRelation":
        """What DuckDB answers to a query over ``videos``, ``masklets`` and ``masks``; it reads what the query needs.

        Raises:
            ConfigError: the query is wrong.
        """
        import duckdb

        connection = duckdb.connect()
        for table in get_args(Table):
            connection.register(table, self.dataset(table))
        try:
            return connection.sql(query)
        except duckdb.Error as error:
            raise ConfigError(f"the query failed: {error}") from error

    def _rows(self, table: Table) -> int:
        return sum(part.rows for commit in self.commits for part in commit.parts if part.table == table)

    def _names(self, table: Table, video_id: str | None) -> list[str]:
        if table not in TABLES:
            raise ConfigError(f"there is no table {table!r}, expected one of {', '.join(TABLES)}")
        one = self._commit_of.get(video_id) if video_id is not None else None
        wanted = self.commits if video_id is None else [one] if one else []
        return [part.path for commit in wanted for part in commit.parts if part.table == table and part.rows]

    def _dataset(self, table: Table, names: Sequence[str]) -> pads.Dataset:
        filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(self.storage.fs))
        parquet = pads.ParquetFileFormat()
        fragments = [parquet.make_fragment(self.storage.full_path(name), filesystem) for name in names]
        return pads.FileSystemDataset(fragments, TABLES[table], parquet, filesystem)

    def _read(self, table: Table, video_id: str | None, columns: Sequence[str] | None, filter: pc.Expression | None) -> pa.Table:
        unknown = [name for name in columns or () if name not in TABLES[table].names]
        if unknown:
            raise ConfigError(f"{table} has no columns {unknown}, expected some of {TABLES[table].names}")
        if video_id is not None:
            one = pc.field("video_id") == video_id
            filter = one if filter is None else one & filter
        # Small tables are sorted over all units; their keys are read along and dropped afterwards.
        keys = () if table == "masks" else KEYS[table]
        read = None if columns is None else [*columns, *(key for key in keys if key not in columns)]
        try:
            try:
                found = self._scan(table, video_id, read, filter)
            except FileNotFoundError:  # `compact` has merged it into another
                self.refresh()
                found = self._scan(table, video_id, read, filter)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{self.storage.url}: cannot read {table}: {error}") from error
        if keys:
            found = found.sort_by([(key, "ascending") for key in keys])
        return found if columns is None else found.select(list(columns))

    def _scan(self, table: Table, video_id: str | None, columns: list[str] | None, filter: pc.Expression | None) -> pa.Table:
        names = self._names(table, video_id)
        # Some files at a time: a scan holds on to the footers of all of its files, 75 KB each, to its end.
        scans = [names[start : start + FILES_AT_ONCE] for start in range(0, len(names), FILES_AT_ONCE)] or [[]]
        return pa.concat_tables([self._dataset(table, scan).to_table(columns=columns, filter=filter) for scan in scans])
