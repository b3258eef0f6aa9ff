"""Whole objects under one URL: a local folder, S3, or anything else that fsspec reaches.

Names are relative to the URL and cannot leave it. An object appears whole or not at all: object stores give that by
nature, local files are written beside their place and moved there. `Storage.create_exclusive` is the one operation that
everything above builds its exactly-once promise on.
"""

import contextlib
import errno
import io
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from sam2_pipeline.errors import ConfigError, StorageError

_S3_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}  # botocore and s3fs both retry, so a minute each adds up
_CONFLICT_TRIES = 5
_DELETERS = 16
_memory_creates = threading.Lock()  # memory:// looks first and writes then; S3 and link(2) need no help


class Storage:
    """Objects below ``url``, which may be a path (``~`` works) or an fsspec URL; ``options`` go to fsspec.

    Every failure of the place itself (absent, full, read-only, forbidden) is a `StorageError` naming the object.

    Raises:
        ConfigError: fsspec knows no such protocol, its package is not installed, or it refuses the options.
    """

    def __init__(self, url: str | os.PathLike[str], options: dict[str, Any] | None = None) -> None:
        self.url = os.fspath(url)
        self.options = dict(options or {})
        if not self.url:
            raise ConfigError("the storage URL is empty, expected a path or a URL such as s3://bucket/prefix")
        arguments = dict(self.options)
        if self.url.startswith(("s3://", "s3a://")):
            arguments["config_kwargs"] = _S3_TIMEOUTS | arguments.get("config_kwargs", {})
        try:
            fs, path = url_to_fs(self.url, **arguments)
        except (ValueError, ImportError, TypeError) as error:
            raise ConfigError(f"{self.url}: not a storage URL that can be used here: {error}") from error
        self.fs: fsspec.AbstractFileSystem = fs
        self.path: str = path.rstrip("/")
        self.is_local = isinstance(fs, LocalFileSystem)
        if self.is_local:
            self.url = self.path or "/"  # absolute, so that it means the same in another process

    def locate(self, name: str = "") -> str:
        """URL of an object, for messages and for other readers."""
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def full_path(self, name: str = "") -> str:
        """Path of an object inside ``fs``.

        Raises:
            StorageError: the name is absolute, has empty or dot segments, or leaves the root.
        """
        if not name:
            return self.path
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "/".join(parts) != name or "\0" in name:
            raise StorageError(f"{self.url}: {name!r} is not a plain relative name")
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        with self._reporting("look for", name):
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.full_path(name)))

    def size(self, name: str) -> int:
        """Bytes of an object."""
        with self._reporting("look at", name):
            self.fs.invalidate_cache()
            return int(self.fs.info(self.full_path(name))["size"])

    def read_bytes(self, name: str) -> bytes:
        with self._reporting("read", name):
            return self.fs.cat_file(self.full_path(name))

    def open(self, name: str) -> IO[bytes]:
        """A seekable binary file to read from."""
        with self._reporting("open", name):
            return self.fs.open(self.full_path(name), "rb")

    def get_file(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """Copies an object to a local file."""
        with self._reporting("fetch", name):
            self.fs.get_file(self.full_path(name), os.fspath(local_path))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a whole object; readers see the old one or the new one."""
        path = self.full_path(name)
        with self._reporting("write", name):
            if self.is_local:
                with self._local_temporary(path) as temporary:
                    _write_durably(temporary, io.BytesIO(data))
                    os.replace(temporary, path)
            else:
                self.fs.pipe_file(path, data)

    def put_file(self, local_path: str | os.PathLike[str], name: str) -> None:
        """Copies a local file to an object, whole or not at all."""
        path = self.full_path(name)
        with self._reporting("write", name):
            if self.is_local:
                with open(local_path, "rb") as source, self._local_temporary(path) as temporary:
                    _write_durably(temporary, source)
                    os.replace(temporary, path)
            else:
                self.fs.put_file(os.fspath(local_path), path)

    def create_exclusive(self, name: str, data: bytes) -> bool:
        """Creates an object unless there is one of that name; of several callers exactly one gets True.

        ``data`` must be the caller's own (hold an attempt id): when the reply to a successful PUT is lost, the retry is told
        that the object exists, and only its content tells whose it is.
        """
        path = self.full_path(name)
        with self._reporting("create", name):
            if self.is_local:
                return self._create_linked(path, data)
            lock = _memory_creates if isinstance(self.fs, MemoryFileSystem) else contextlib.nullcontext()
            with lock:
                return self._create_conditional(path, data)

    def check_exclusive(self, folder: str = "_run") -> None:
        """Makes sure that objects can be written here and that a second creation of one fails; some servers ignore
        the condition, and then two workers would both believe that their commit won.

        Raises:
            StorageError: the place cannot be written to, or cannot keep two writers apart.
        """
        name = f"{folder}/probe-{uuid.uuid4().hex}"
        first, second = self.create_exclusive(name, b"first"), self.create_exclusive(name, b"second")
        self.delete([name])
        if not first or second:
            raise StorageError(
                f"{self.url}: the store overwrites an object that was to be created only if absent (If-None-Match)"
            )

    def list(self, folder: str = "", *, recursive: bool = False, hidden: bool = False) -> Iterator[tuple[str, int]]:
        """(name, bytes) of the objects in a folder, sorted by name; nothing where there is no such folder.

        ``hidden`` adds what interrupted local writes left behind.
        """
        self.fs.invalidate_cache()
        root = self.full_path(folder)
        with self._reporting("list", folder):
            try:
                entries = sorted(self.fs.ls(root, detail=True), key=lambda entry: entry["name"])
            except FileNotFoundError:
                return
        for entry in entries:
            base = entry["name"].rstrip("/").rpartition("/")[2]
            name = f"{folder}/{base}" if folder else base
            if entry["name"].rstrip("/") == root or not base:
                continue  # S3 may hold an empty object standing for the folder itself
            if entry["type"] == "directory":
                if recursive:
                    yield from self.list(name, recursive=True, hidden=hidden)
            elif hidden or not _is_temporary(base):
                yield name, int(entry["size"] or 0)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects, several at once; one that is gone already is no error."""

        def delete(name: str) -> None:
            with self._reporting("delete", name), contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.full_path(name))

        with ThreadPoolExecutor(_DELETERS) as pool:
            for _ in pool.map(delete, names):
                pass

    def __reduce__(self) -> tuple[type["Storage"], tuple[str, dict[str, Any]]]:
        return Storage, (self.url, self.options)

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"  # options may hold secrets

    def _create_linked(self, path: str, data: bytes) -> bool:
        """A file that is complete before it has its name, by link(2), which refuses a taken name."""
        with self._local_temporary(path) as temporary:
            _write_durably(temporary, io.BytesIO(data))
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            return True

    def _create_conditional(self, path: str, data: bytes) -> bool:
        for tries_left in reversed(range(_CONFLICT_TRIES)):
            try:
                self.fs.pipe_file(path, data, mode="create")
                return True
            except Exception as error:
                winner = self._read_if_there(path)
                if winner is not None:
                    return winner == data
                # Two simultaneous conditional PUTs: S3 may refuse both and asks to try again.
                if "ConditionalRequestConflict" not in str(error) or not tries_left:
                    raise
                time.sleep(0.1 * (_CONFLICT_TRIES - tries_left))
        raise AssertionError("unreachable")

    def _read_if_there(self, path: str) -> bytes | None:
        self.fs.invalidate_cache()
        try:
            return self.fs.cat_file(path)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _local_temporary(self, path: str) -> Iterator[str]:
        """A name beside ``path`` to write to first; gone afterwards whatever happens."""
        folder, base = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{base}.{uuid.uuid4().hex}.tmp")
        try:
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)

    @contextlib.contextmanager
    def _reporting(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except Exception as error:  # fsspec's backends share no base class of their errors
            raise StorageError(f"{self.locate(name)}: cannot {action} it: {_reason(error)}") from error


def _is_temporary(base: str) -> bool:
    return base.startswith(".") and base.endswith(".tmp")


def _write_durably(path: str, source: IO[bytes]) -> None:
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the device"
    if code == errno.EROFS:
        return "the file system is read-only"
    if isinstance(error, PermissionError):
        return f"permission denied ({error})"
    if isinstance(error, FileNotFoundError):
        return f"it does not exist ({error})"
    if "Credentials" in type(error).__name__:
        return f"no usable credentials ({error}); set the usual AWS variables or pass storage options"
    return f"{type(error).__name__}: {error}"
