"""JSON files that are an object of long lists (COCO, YouTube-VIS), written and read an item at a time."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import ijson

from sam2_pipeline.errors import StorageError, VideoError
from sam2_pipeline.io.storage import Storage

Item = dict[str, Any]


class ListsWriter:
    """Every list grows in a local file of its own; `finish` puts them together and stores the whole."""

    def __init__(self, names: Iterable[str]) -> None:
        with _reporting():
            self._files: dict[str, IO[str]] = {name: _temporary_text() for name in names}

    def add(self, name: str, item: Item) -> None:
        """Appends to the list of this name."""
        file = self._files[name]
        with _reporting():
            file.write(",\n" if file.tell() else "")
            file.write(json.dumps(item, allow_nan=False, separators=(",", ":")))

    def finish(self, storage: Storage, name: str, head: Mapping[str, Any]) -> None:
        """Writes ``head``, then the lists, as one object."""
        with tempfile.TemporaryDirectory(prefix="sam2-lists-") as folder, _reporting():
            path = os.path.join(folder, "whole.json")
            with open(path, "w", encoding="ascii") as whole:
                whole.write("{" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()))
                for key, file in self._files.items():
                    whole.write(f",\n{json.dumps(key)}: [")
                    file.seek(0)
                    shutil.copyfileobj(file, whole, 1 << 16)
                    file.close()
                    whole.write("]")
                whole.write("}\n")
            storage.put_file(path, name)


class Shelf:
    """The items of such a file on local disk, to be had by the id of what they belong to. Picklable, while the first one lives.

    Args:
        owners: of every list that is wanted, which item belongs to what.

    Raises:
        VideoError: it is no such file.
    """

    def __init__(self, storage: Storage, name: str, owners: Mapping[str, Callable[[Item], Any]]) -> None:
        self.url = storage.locate(name)
        self._folder: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(prefix="sam2-shelf-")
        self._path = os.path.join(self._folder.name, "items.sqlite")
        self._database: sqlite3.Connection | None = None
        source = os.path.join(self._folder.name, "source.json")
        storage.get_file(name, source)
        with _reporting(), contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=OFF")
            database.execute("PRAGMA synchronous=OFF")
            database.execute("CREATE TABLE items (list TEXT, owner, data TEXT)")
            database.execute("BEGIN")
            for key, owner in owners.items():
                rows = ((key, owner(item), json.dumps(item)) for item in self._items(source, key))
                database.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
            database.execute("CREATE INDEX places ON items (list, owner)")
            database.execute("COMMIT")
        os.remove(source)

    def _items(self, path: str, key: str) -> Iterator[Item]:
        try:
            with open(path, "rb") as file:
                yield from ijson.items(file, f"{key}.item", use_float=True)
        except ijson.JSONError as error:
            raise VideoError(f"{self.url}: not readable as JSON: {error}") from error

    def get(self, key: str, owner: Any) -> list[Item]:
        """The items of a list that belong to ``owner``, in their order in the file."""
        return [json.loads(data) for (data,) in self._select("SELECT data FROM items WHERE list=? AND owner=?", key, owner)]

    def all(self, key: str) -> Iterator[Item]:
        """The items of a list, in their order in the file."""
        for (data,) in self._select("SELECT data FROM items WHERE list=? ORDER BY rowid", key):
            yield json.loads(data)

    def _select(self, query: str, *values: Any) -> sqlite3.Cursor:
        with _reporting():
            if self._database is None:
                self._database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, check_same_thread=False)
            return self._database.execute(query, values)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_path": self._path, "_folder": None, "_database": None}


def _temporary_text() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="ascii")


@contextlib.contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageError(f"{tempfile.gettempdir()}: cannot keep annotations: {error}") from error
