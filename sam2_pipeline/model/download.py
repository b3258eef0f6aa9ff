"""Meta's released checkpoints: fetched once, then kept in a cache.

``$SAM2_PIPELINE_CACHE`` moves the cache, ``$SAM2_PIPELINE_DOWNLOAD_URL`` names a mirror with the same folders as Meta's site.
"""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

import platformdirs
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sam2_pipeline.errors import CheckpointError
from sam2_pipeline.model.config import ModelConfig
from sam2_pipeline.model.weights_file import describe_head, kind_of

META_RELEASES = "https://dl.fbaipublicfiles.com/segment_anything_2"
_RELEASE_FOLDERS = {"2.0": "072824", "2.1": "092824"}
_ATTEMPTS = 4
_TIMEOUT_S = 30.0
_CHUNK = 1 << 20


def cache_directory() -> Path:
    """Where downloaded checkpoints are kept."""
    chosen = os.environ.get("SAM2_PIPELINE_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("sam2_pipeline")


def release_url(config: ModelConfig) -> str:
    """The address of an official checkpoint."""
    base = os.environ.get("SAM2_PIPELINE_DOWNLOAD_URL", META_RELEASES).rstrip("/")
    return f"{base}/{_RELEASE_FOLDERS[config.version]}/{config.name}.pt"


def fetch_checkpoint(config: ModelConfig) -> Path:
    """The local file of an official checkpoint, downloaded if the cache does not have it.

    A broken download goes on where it stopped, also in a later call; a file has its final name only when it is complete.
    Processes of one machine that ask together download once.

    Raises:
        CheckpointError: it is not in the cache and cannot be downloaded.
    """
    target, url = cache_directory() / f"{config.name}.pt", release_url(config)
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _download(url, target)
    except (OSError, http.client.HTTPException, _BrokenDownload) as error:
        raise CheckpointError(
            f"cannot download {config.name} from {url}: {_reason(error)}. "
            f"Without network, put the file at {target} by hand, or name another with --checkpoint (checkpoint=...)"
        ) from error
    return target


class _BrokenDownload(Exception):
    """The server sent fewer bytes than it promised, or something that is not a checkpoint."""


def _download(url: str, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    with _progress() as progress:
        task = progress.add_task(target.name, total=None)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _continue_download(url, part, progress, task)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == _ATTEMPTS:  # the server understood and refuses
                    raise
            except (OSError, http.client.HTTPException, _BrokenDownload):
                if attempt == _ATTEMPTS:
                    raise
    with part.open("rb") as file:
        head = file.read(64)
    if kind_of(head) is None:  # a login page, most likely; not to be found in the cache for ever
        part.unlink()
        raise _BrokenDownload(f"what came is not a checkpoint: {describe_head(head)}")
    os.replace(part, target)


def _continue_download(url: str, part: Path, progress: Progress, task: TaskID) -> None:
    """Appends to ``part`` what it lacks; on return it is complete."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()  # more than there is: the part of some other file
        raise _BrokenDownload(f"the server has no byte {have}; what was there of the file is dropped") from error
    with response:
        if response.status != 206:  # the server sends all of it, wanted or not
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        progress.update(task, total=total, completed=have)
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.update(task, advance=len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise _BrokenDownload(f"{size} of {total} bytes arrived; the next call goes on from there")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"no connection ({error.reason})"
    return str(error) or type(error).__name__
