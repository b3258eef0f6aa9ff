"""A text, CSV or Parquet file that lists videos, as INPUT."""

import csv
import io
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import ConfigError

EXTENSIONS = frozenset([".txt", ".csv", ".parquet"])
URL_COLUMNS = ("url", "uri", "video")


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry. ``name`` is its path relative to the list's folder (elsewhere: its URL without the protocol)."""

    line: int
    name: str
    uri: str
    video_id: str | None


def read_list(fs: fsspec.AbstractFileSystem, path: str, url: str) -> list[Listed]:
    """All entries of the list at ``path`` (``url`` is its full name), in their order. ConfigError when it is malformed."""
    folder = url.rpartition("/")[0]
    rows = {".txt": _text, ".csv": _csv, ".parquet": _parquet}[posixpath.splitext(path)[1].lower()]
    listed = []
    try:
        for line, entry, video_id in rows(fs, path, url):
            uri = entry if "://" in entry or entry.startswith("/") else _resolved(folder, entry)
            inside = uri.startswith(f"{folder}/")
            name = uri[len(folder) + 1 :] if inside else uri.rpartition("://")[2].lstrip("/")
            listed.append(Listed(line, name, uri, video_id))
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ConfigError(f"INPUT {url}: not readable as a list of videos: {error}") from error
    return listed


def _resolved(folder: str, entry: str) -> str:
    """A relative entry starts from the folder of the list."""
    protocol, separator, path = folder.rpartition("://")
    return protocol + separator + posixpath.normpath(posixpath.join(path, entry))


def _text(fs: fsspec.AbstractFileSystem, path: str, url: str) -> Iterator[tuple[int, str, str | None]]:
    with fs.open(path, "rb") as file:
        for line, text in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
            if text.strip() and not text.lstrip().startswith("#"):
                yield line, text.strip(), None


def _csv(fs: fsspec.AbstractFileSystem, path: str, url: str) -> Iterator[tuple[int, str, str | None]]:
    with fs.open(path, "rb") as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
        column = _url_column(reader.fieldnames or (), url)
        for row in reader:
            yield reader.line_num, _filled(row[column], url, reader.line_num, column), (row.get("video_id") or "").strip() or None


def _parquet(fs: fsspec.AbstractFileSystem, path: str, url: str) -> Iterator[tuple[int, str, str | None]]:
    with fs.open(path, "rb") as file:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        column, line = _url_column(names, url), 0
        for batch in table.iter_batches(columns=[name for name in names if name in (column, "video_id")]):
            for row in batch.to_pylist():
                line += 1
                video_id = row.get("video_id")
                yield line, _filled(row[column], url, line, column), None if video_id is None else str(video_id)


def _url_column(names: Sequence[str], url: str) -> str:
    for name in URL_COLUMNS:
        if name in names:
            return name
    raise ConfigError(f"INPUT {url}: has the columns {', '.join(names) or '(none)'}, expected one of {', '.join(URL_COLUMNS)}")


def _filled(value: str | None, url: str, line: int, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"INPUT {url}, line {line}: column {column} holds {value!r}, expected a path or URL")
    return value.strip()
