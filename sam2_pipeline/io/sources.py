"""What INPUT means: a file, folder, glob, URL, list or tar becomes a stream of `VideoRef`s with unique ids."""

import os
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import fsspec

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io import video_list
from sam2_pipeline.io.urls import (
    IMAGE_EXTENSIONS,
    SCHEMES,
    VIDEO_EXTENSIONS,
    absolute,
    extension,
    filesystem_of,
    forbidden,
    is_folder,
    is_local,
    secret_in,
)
from sam2_pipeline.masklets.work import VideoRef

MEDIA = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS


def list_videos(
    source: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    max_videos: int | None = None,
    schemes: Collection[str] = SCHEMES,
) -> Iterator[VideoRef]:
    """The videos that INPUT names, sorted folder by folder (a list's in its own order), each with a unique id.

    INPUT is a video file, a folder or URL prefix (searched recursively; a folder that holds pictures and no videos is a
    video), a glob, a list (.txt with one URL a line; .csv or .parquet with a column url, uri or video, and perhaps
    video_id; relative entries start from the list's folder), or a WebDataset .tar. Tars that a glob matches or a folder
    holds are looked into. What begins with a dot is passed over.

    Ids derive from the URL relative to INPUT without its extension, which is kept where two would be the same. One folder,
    tar or list is held in memory at a time.

    Raises:
        ConfigError: at once, when INPUT does not exist or holds no video, or a list is malformed; INPUT, or an entry of a list,
            has a scheme that is not among ``schemes``, or holds a credential.
        StorageError: INPUT cannot be reached.
    """
    if max_videos is not None and max_videos < 1:
        raise ConfigError(f"max_videos is {max_videos}, expected 1 or more")
    url = absolute(os.fspath(source))
    if reason := forbidden(url, schemes):
        raise ConfigError(f"INPUT: {reason}" if secret_in(url) else f"INPUT {url}: {reason}")
    try:
        fs, path = filesystem_of(url, storage_options)
        fs.invalidate_cache()  # a later run in the same process must see what has come since
        videos = _Input(fs, url, path, schemes).videos()
        first = next(videos, None)
    except VideoError as error:
        raise ConfigError(f"INPUT {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"INPUT {url}: there is no such file or folder") from error
    if first is None:
        wanted = " ".join(sorted(VIDEO_EXTENSIONS))
        raise ConfigError(f"INPUT {url}: no video found, expected files ending in {wanted}, folders of pictures, or tars")
    return islice(chain([first], videos), max_videos)


@dataclass(frozen=True, slots=True)
class _Item:
    """A file or folder: ``name`` is its path relative to INPUT (unique, extension included), ``path`` that on the storage."""

    name: str
    path: str
    is_folder: bool
    size: int | None

    def has(self, extensions: frozenset[str]) -> bool:
        return not self.is_folder and extension(self.name) in extensions


@dataclass(frozen=True, slots=True)
class _Input:
    fs: fsspec.AbstractFileSystem
    url: str
    path: str
    schemes: Collection[str]

    def videos(self) -> Iterator[VideoRef]:
        path = self.path.rstrip("/")
        if is_folder(self.fs, self.path):
            yield from self._folder(path, "")
        elif any(character in path for character in "*?[") and not self.fs.exists(path):
            yield from self._glob(path)
        else:
            item = _Item(_base(path), path, False, self.fs.info(path).get("size"))
            if extension(path) in video_list.EXTENSIONS:
                yield from _listed(video_list.read_list(self.fs, path, self.url), self.url, self.schemes)
            elif extension(path) == ".tar":
                yield from self._tar(item, "")
            else:  # named by hand: whatever its extension, FFmpeg will tell
                yield VideoRef(_stem(item.name), self.url, item.size)

    def _uri(self, path: str) -> str:
        return path if is_local(self.url) else self.fs.unstrip_protocol(path)

    def _folder(self, folder: str, name: str) -> Iterator[VideoRef]:
        """Videos of a folder and of those below it; ``name`` is its own name, "" for INPUT itself."""
        prefix = f"{name}/" if name else ""
        items = []
        for found in self.fs.ls(folder, detail=True):
            path = found["name"].rstrip("/")
            if path != folder and not _base(path).startswith("."):  # some stores list a folder within itself
                items.append(_Item(prefix + _base(path), path, found["type"] == "directory", found.get("size")))
        pictures = [item for item in items if item.has(IMAGE_EXTENSIONS)]
        if pictures and not any(item.has(VIDEO_EXTENSIONS) for item in items):
            own = name or _base(folder)
            clash = not name and any(item.is_folder and item.name == own for item in items)
            yield VideoRef(f"./{own}" if clash else own, self._uri(folder), sum(item.size or 0 for item in pictures))
        yield from self._group([item for item in items if not item.has(IMAGE_EXTENSIONS)])

    def _glob(self, pattern: str) -> Iterator[VideoRef]:
        """What a glob matches; names begin where the folder of the first wildcard does."""
        fixed = pattern[: min(pattern.index(character) for character in "*?[" if character in pattern)]
        base = fixed[: fixed.rfind("/") + 1]
        found = self.fs.glob(pattern, detail=True)
        for itself in (base, base.rstrip("/")):  # which "**" matches too
            found.pop(itself, None)
        folders = tuple(f"{path.rstrip('/')}/" for path, info in found.items() if info["type"] == "directory")
        items = [
            _Item(path.rstrip("/").removeprefix(base), path.rstrip("/"), info["type"] == "directory", info.get("size"))
            for path, info in found.items()
            if not path.rstrip("/").startswith(folders)  # "**" matches a folder and all it holds: once is enough
        ]
        yield from self._group(items)

    def _group(self, items: Sequence[_Item]) -> Iterator[VideoRef]:
        """Videos among (and inside) things that lie beside each other, in order of their names."""
        videos = [item.name for item in items if item.has(MEDIA)]
        folders = {item.name for item in items if item.is_folder}
        stems = {_stem(name) for name in videos}
        rivals = {item.name for item in items if item.is_folder and item.name in stems and self._holds_pictures(item.path)}
        ids = dict(zip(videos, _ids(videos, rivals)))
        for item in sorted(items, key=lambda item: item.name):
            if item.is_folder:
                yield from self._folder(item.path, item.name)
            elif extension(item.name) == ".tar":
                stem = item.name[: -len(".tar")]
                yield from self._tar(item, f"{item.name if stem in folders else stem}/")
            elif item.name in ids:
                yield VideoRef(ids[item.name], self._uri(item.path), item.size)

    def _holds_pictures(self, folder: str) -> bool:
        return any(extension(found["name"]) in IMAGE_EXTENSIONS for found in self.fs.ls(folder, detail=True))

    def _tar(self, tar: _Item, prefix: str) -> Iterator[VideoRef]:
        """Videos inside a tar, read from its headers only."""
        url = self._uri(tar.path)
        try:
            with self.fs.open(tar.path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        except tarfile.TarError as error:
            raise ConfigError(f"INPUT {url}: cannot be read as a tar: {error}") from error
        names = sorted(name for name in members if extension(name) in VIDEO_EXTENSIONS and not _base(name).startswith("."))
        for name, video_id in zip(names, _ids(names)):
            yield VideoRef(prefix + video_id, f"tar://{members[name].name}::{url}", members[name].size)


def _listed(entries: Sequence[video_list.Listed], url: str, schemes: Collection[str]) -> list[VideoRef]:
    # a list from elsewhere has no business with this machine's files
    allowed = schemes if is_local(url) else [scheme for scheme in schemes if scheme != "file"]
    for entry in entries:
        if reason := forbidden(entry.uri, allowed):
            raise ConfigError(f"INPUT {url}, line {entry.line}: {reason}")
    derived = iter(_ids([entry.name for entry in entries if entry.video_id is None]))
    lines: dict[str, int] = {}
    videos = []
    for entry in entries:
        video_id = entry.video_id or next(derived)
        if video_id in lines:
            raise ConfigError(f"INPUT {url}: lines {lines[video_id]} and {entry.line} are both video {video_id!r}, expected one")
        lines[video_id] = entry.line
        videos.append(VideoRef(video_id, entry.uri))
    return videos


def _ids(names: Sequence[str], rivals: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Names without their extensions, except those that are then equal to one another, to a full name, or to a rival."""
    claims = Counter(claim for name in names for claim in {name, _stem(name)}) + Counter(rivals)
    return [_stem(name) if claims[_stem(name)] == 1 else name for name in names]


def _stem(name: str) -> str:
    suffix = extension(name)
    return name[: -len(suffix)] if suffix in MEDIA else name


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
