"""Where inputs lie: local paths and fsspec URLs, chained ones (``tar://member::s3://bucket/a.tar``) too."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import fsspec

from sam2_pipeline.errors import StorageError, VideoError

# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
])
# fmt: on
IMAGE_EXTENSIONS = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])


def extension(url: str) -> str:
    """The lower-case extension of the last component of a path or URL, with its dot ("" without one)."""
    return os.path.splitext(url.split("::")[0].rstrip("/"))[1].lower()


def is_local(url: str) -> bool:
    return "://" not in url and "::" not in url


def absolute(url: str) -> str:
    """Local paths made absolute (workers have other working directories); URLs as they are."""
    return os.path.abspath(os.path.expanduser(url)) if is_local(url) else url


def filesystem_of(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of a URL or path, and the path inside it. Options go to the storage at the end of a chain."""
    options: dict[str, Any] = dict(storage_options or {})
    if "::" in url and options:
        options = {url.split("::")[-1].split("://")[0]: options}
    try:
        return fsspec.url_to_fs(absolute(url), **options)
    except FileNotFoundError as error:
        raise VideoError(f"{url}: there is no such file") from error
    except (ValueError, ImportError) as error:  # a protocol that fsspec does not know, or for which a package is missing
        raise VideoError(f"{url}: cannot be opened: {error}") from error
    except OSError as error:
        raise StorageError(f"{url}: cannot be reached: {type(error).__name__}: {error}") from error


def is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Never so over HTTP, where finding out would mean to download whatever is there and look for links."""
    return "http" not in fs.protocol and fs.isdir(path)


def fetch(url: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Copy a remote file whole into a local temporary file and return its path; the caller removes it.

    A missing or forbidden file is a `VideoError` (this video's fault); anything else is a `StorageError` (worth a retry).
    """
    fs, path = filesystem_of(url, storage_options)
    suffix = extension(url) if extension(url) in VIDEO_EXTENSIONS else ""
    handle, local = tempfile.mkstemp(prefix="sam2-", suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as target, fs.open(path, "rb") as source:
            shutil.copyfileobj(source, target, 1 << 22)
    except BaseException as error:
        os.unlink(local)
        if isinstance(error, FileNotFoundError | KeyError):  # KeyError: a member that an archive does not hold
            raise VideoError(f"{url}: there is no such file") from error
        if isinstance(error, PermissionError | IsADirectoryError):
            raise VideoError(f"{url}: cannot be read: {error}") from error
        if isinstance(error, Exception):
            raise StorageError(f"{url}: fetching it failed: {type(error).__name__}: {error}") from error
        raise
    return local
