"""Where inputs lie: local paths and fsspec URLs, chained ones (``tar://member::s3://bucket/a.tar``) too."""

import os
import re
import tempfile
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import fsspec

from sam2_pipeline.errors import StorageError, VideoError

# fmt: off
VIDEO_EXTENSIONS = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
])
# fmt: on
# What a list of videos, which anyone may have written, can make this machine fetch; fsspec could do much more.
SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https", "memory", "tar", "zip")
COPY_BYTES = 1 << 22
ARCHIVES = ("tar", "zip")
SECRETS = re.compile(r"signature|token|secret|password|credential|sig|key|awsaccesskeyid|x-(amz|goog)-.*", re.IGNORECASE)
IMAGE_EXTENSIONS = frozenset([".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])


def extension(url: str) -> str:
    """The lower-case extension of the last component of a path or URL, with its dot ("" without one)."""
    return os.path.splitext(url.split("::")[0].rstrip("/"))[1].lower()


def is_local(url: str) -> bool:
    return url.startswith("/") or ("://" not in url and "::" not in url)


def forbidden(url: str, schemes: Collection[str] = SCHEMES) -> str | None:
    """Why ``url`` may not be fetched, or None: a scheme outside the allow list, or a secret that would end up in the tables."""
    if is_local(url):
        return None if "file" in schemes else "it is a local path, which is not allowed here (sources.schemes)"
    *outer, last = (link.partition("://")[0].lower() for link in url.split("::"))
    for scheme in outer:
        if scheme not in ARCHIVES:  # else a file name with :: in it could lead elsewhere
            return f"{scheme}:// stands before ::, expected one of {', '.join(ARCHIVES)}"
    for scheme in (*outer, "file" if last in ("local", "") or "://" not in url.split("::")[-1] else last):
        if scheme not in schemes:
            return f"its scheme is {scheme!r}, sources.schemes allows {', '.join(schemes)}"
    return secret_in(url)


def secret_in(url: str) -> str | None:
    """What in ``url`` looks like a credential; None if nothing does. Only the name is told."""
    for link in [] if is_local(url) else url.split("::"):
        parts = urlsplit(link)
        if parts.password is not None:
            return "it holds a password, which would be written to tables and logs; give credentials by the environment"
        names = [name for name, _ in parse_qsl(parts.query)] if parts.scheme in ("http", "https") else []
        for name in names:
            if SECRETS.fullmatch(name):
                return f"it holds a credential ({name}=...), which would be written to tables and logs"
    return None


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


def fetch(url: str, storage_options: Mapping[str, Any] | None = None, max_bytes: int | None = None) -> str:
    """Copy a remote file whole into a local temporary file and return its path; the caller removes it.

    One of more than ``max_bytes`` is a `VideoError`, once so many have come: what a server says beforehand may be wrong.

    A missing or forbidden file is a `VideoError` (this video's fault); anything else is a `StorageError` (worth a retry).
    """
    fs, path = filesystem_of(url, storage_options)
    suffix = extension(url) if extension(url) in VIDEO_EXTENSIONS else ""
    handle, local = tempfile.mkstemp(prefix="sam2-", suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as target, fs.open(path, "rb") as source:
            while piece := source.read(COPY_BYTES):
                target.write(piece)
                if max_bytes is not None and target.tell() > max_bytes:
                    raise VideoError(f"{url}: is larger than {max_bytes} bytes (limits.max_bytes)")
    except BaseException as error:
        os.unlink(local)
        if isinstance(error, FileNotFoundError | KeyError):  # KeyError: a member that an archive does not hold
            raise VideoError(f"{url}: there is no such file") from error
        if isinstance(error, PermissionError | IsADirectoryError):
            raise VideoError(f"{url}: cannot be read: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, VideoError):
            raise StorageError(f"{url}: fetching it failed: {type(error).__name__}: {error}") from error
        raise
    return local
