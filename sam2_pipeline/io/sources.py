"""What INPUT means: a file, folder, glob, URL, list or tar becomes a stream of `VideoRef`s with unique ids."""

import os
import tarfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any

import fsspec

from sam2_pipeline.errors import ConfigError, PipelineError, StorageError, VideoError
from sam2_pipeline.io import video_list
from sam2_pipeline.io.listing import is_folder, list_folder
from sam2_pipeline.io.storage import reason_of
from sam2_pipeline.io.urls import (
    IMAGE_EXTENSIONS,
    SCHEMES,
    VIDEO_EXTENSIONS,
    absolute,
    extension,
    filesystem_of,
    forbidden,
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

    Ids derive from the URL relative to INPUT without its extension, which is kept where two would be the same. Of a folder,
    those names are held in memory that share all before their first dot (see `listing.list_folder`); of a glob, tar or list, all.

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
        videos = _reached(_Input(fs, url, path, schemes).videos(), url)
        first = next(videos, None)
    except VideoError as error:
        raise ConfigError(f"INPUT {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"INPUT {url}: there is no such file or folder") from error
    if first is None:
        wanted = " ".join(sorted(VIDEO_EXTENSIONS))
        raise ConfigError(f"INPUT {url}: no video found, expected files ending in {wanted}, folders of pictures, or tars")
    return islice(chain([first], videos), max_videos)


def _reached(videos: Iterator[VideoRef], url: str) -> Iterator[VideoRef]:
    """The same, where trouble with the storage (fsspec's backends share no base class of their errors) is a `StorageError`."""
    try:
        yield from videos
    except (PipelineError, FileNotFoundError):
        raise
    except Exception as error:
        raise StorageError(f"INPUT {url}: cannot be listed: {reason_of(error)}") from error


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
        prefix, own = f"{name}/" if name else "", name or _base(folder)
        picture_bytes: int | None = None  # of the folder's pictures, if it has any
        has_videos = is_taken = False

        def no_pictures() -> Iterator[_Item]:
            nonlocal picture_bytes, has_videos, is_taken
            for found in list_folder(self.fs, folder):
                item = _Item(prefix + found.base, found.path, found.is_folder, found.size)
                if found.base.startswith("."):
                    continue
                if item.has(IMAGE_EXTENSIONS):
                    picture_bytes = (picture_bytes or 0) + (item.size or 0)
                    continue
                has_videos |= item.has(VIDEO_EXTENSIONS)
                is_taken |= not name and item.is_folder and item.name == own
                yield item

        yield from self._group(no_pictures())
        if picture_bytes is not None and not has_videos:
            yield VideoRef(f"./{own}" if is_taken else own, self._uri(folder), picture_bytes)

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
        yield from self._group(sorted(items, key=lambda item: f"{item.name}/" if item.is_folder else item.name))

    def _group(self, items: Iterable[_Item]) -> Iterator[VideoRef]:
        """Videos among (and inside) things that come in order of their keys (see `listing.list_folder`).

        Only names that are equal up to their first dot can be taken for one another, and in that order they are neighbours.
        """
        for _, neighbours in groupby(items, key=_before_first_dot):
            yield from self._neighbours(list(neighbours))

    def _neighbours(self, items: Sequence[_Item]) -> Iterator[VideoRef]:
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
        return any(extension(found.base) in IMAGE_EXTENSIONS for found in list_folder(self.fs, folder))

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


def _before_first_dot(item: _Item) -> str:
    folder, slash, base = item.name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
