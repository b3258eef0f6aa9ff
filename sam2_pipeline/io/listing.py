"""What lies in a folder, entry by entry in order of keys, in memory that does not grow with the folder where the store allows."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PAGE = 1000  # as many as S3 gives at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder: its name in the folder that was listed, and its path on the storage."""

    base: str
    path: str
    is_folder: bool
    size: int | None


def list_folder(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[Entry]:
    """Files and folders in ``folder``, sorted by name, where a folder's name ends with "/": the order of an object store's keys.

    S3 is read a page at a time, of a local folder the names are held; other stores give all there is at once.

    Raises:
        FileNotFoundError: there is no such folder or bucket.
    """
    if "s3" in fs.protocol and folder.strip("/"):
        return _s3_folder(fs, folder.strip("/"))
    if isinstance(fs, LocalFileSystem):
        return _local_folder(folder)
    return _any_folder(fs, folder)


def is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether something lies in ``path``. Never so over HTTP, where finding out would mean to download what is there."""
    if "http" in fs.protocol:
        return False
    if "s3" in fs.protocol and path.strip("/"):
        try:  # s3fs would list the whole folder for an answer
            found = next(_s3_pages(fs, path.strip("/"), 1))
            return found.get("KeyCount", 0) > 0 or "/" not in path.strip("/")  # a bucket may be empty
        except FileNotFoundError:
            return False
    return fs.isdir(path)


def _s3_folder(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[Entry]:
    bucket = folder.partition("/")[0]
    for page in _s3_pages(fs, folder, PAGE):
        keys: list[tuple[str, int | None]] = [(found["Key"], found["Size"]) for found in page.get("Contents", ())]
        keys += [(found["Prefix"], None) for found in page.get("CommonPrefixes", ())]
        for key, size in sorted(keys):
            path = f"{bucket}/{key}".rstrip("/")
            if path != folder:  # an empty object may stand for the folder itself
                yield Entry(path.rpartition("/")[2], path, key.endswith("/"), size)


def _s3_pages(fs: fsspec.AbstractFileSystem, folder: str, size: int) -> Iterator[dict[str, Any]]:
    bucket, _, prefix = folder.partition("/")
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix and f"{prefix}/", "Delimiter": "/", "MaxKeys": size}
    request |= fs.req_kw
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        yield page
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _local_folder(folder: str) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        keys = sorted(f"{one.name}/" if one.is_dir() else one.name for one in found)
    for key in keys:
        path = os.path.join(folder, key.rstrip("/"))
        try:
            yield Entry(key.rstrip("/"), path, key.endswith("/"), None if key.endswith("/") else os.stat(path).st_size)
        except FileNotFoundError:  # a link to nothing: reading it will tell
            yield Entry(key, path, False, None)


def _any_folder(fs: fsspec.AbstractFileSystem, folder: str) -> Iterator[Entry]:
    entries = []
    for found in fs.ls(folder, detail=True):
        path, is_folder = found["name"].rstrip("/"), found["type"] == "directory"
        if path != folder.rstrip("/"):  # some stores list a folder within itself
            entries.append(Entry(path.rpartition("/")[2], path, is_folder, found.get("size")))
    fs.invalidate_cache()
    yield from sorted(entries, key=lambda entry: f"{entry.base}/" if entry.is_folder else entry.base)
