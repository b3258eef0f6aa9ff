"""The server: what TARGET is, where it listens, and its life."""

import contextlib
import getpass
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow.compute as pc
import uvicorn
from filelock import FileLock, Timeout

from sam2_pipeline.config import JobConfig, is_remote
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.urls import absolute
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.pipeline.runfile import read_run
from sam2_pipeline.serve.annotator import Annotator
from sam2_pipeline.serve.app import Site, make_app
from sam2_pipeline.serve.frames import FrameStore
from sam2_pipeline.serve.guard import Access
from sam2_pipeline.serve.model import Sam2Segmenter, Segmenter
from sam2_pipeline.serve.review import Reviewer
from sam2_pipeline.serve.saving import check_place

TOKEN_VARIABLE = "SAM2_PIPELINE_TOKEN"
_CONNECTIONS = 128
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Options:
    """Where to listen and for whom; ``token`` is made up where one is needed and none is given."""

    host: str = "127.0.0.1"
    port: int = 8765
    allow_hosts: Sequence[str] = ()
    token: str | None = None
    open_browser: bool = False


def open_site(
    target: str, output: str | None, config: JobConfig, author: str, load: Callable[[], Segmenter] | None = None
) -> Site:
    """What there is to review and to annotate at ``target``: the tables of a run, or videos as `run` takes them.

    Args:
        output: where annotations go. Default: of a video ``clip.mp4`` into ``clip-masklets``, of the videos of a run into
            ``OUTPUT-annotations``, and of annotations where they are.
        load: gives the model; default: as the configuration says.

    Raises:
        ConfigError: there is nothing to serve, or annotations cannot be saved to ``output``.
    """
    url = absolute(target).rstrip("/")
    options = config.storage_options_for
    tables = Storage(url, options(url)) if _holds_tables(url, config) else None
    if tables is None:
        videos = {ref.video_id: ref for ref in list_videos(url, options(url), schemes=config.sources.schemes)}
        source, default = url, f"{_without_extension(url)}-masklets"
    else:
        run = read_run(tables)
        annotated = run is not None and "annotated" in run
        videos = _videos_of(MaskletDataset(url, options(url)))
        source = run["input"] if run is not None and annotated else url
        default = url if annotated else f"{url}-annotations"
    annotations = Storage(absolute(output or default), options(output or default))
    check_place(annotations, source)
    finder = _Finder(tables or annotations, author)
    frames = FrameStore(videos, options, config.sources.schemes)
    annotator = Annotator(frames, annotations, source, config, load or (lambda: Sam2Segmenter(config)))
    return Site(PurePosixPath(url).name or url, author, frames, annotator, finder)


class _Finder:
    """Reviews the masklets of an output as soon as it has some; annotations that were saved since are seen, too."""

    def __init__(self, storage: Storage, author: str) -> None:
        self._storage, self._author = storage, author
        self._found: Reviewer | None = None

    def __call__(self) -> Reviewer | None:
        if self._found is None and _holds_run(self._storage):
            self._found = Reviewer(MaskletDataset(self._storage.url, self._storage.options), self._author)
        return self._found


def serve(site: Site, options: Options, say: Callable[[str], None] = print) -> None:
    """Serves until it is interrupted.

    Raises:
        ConfigError: the address cannot be listened on, or another server annotates into the same output.
    """
    token = options.token or os.environ.get(TOKEN_VARIABLE)
    if token is None and options.host not in _LOOPBACK:
        token = secrets.token_urlsafe(24)
    access = Access.to(options.host, token, options.allow_hosts)
    with listening(options.host, options.port, "--port") as listener, alone(site.annotator.output):
        port = listener.getsockname()[1]
        shown = socket.gethostname() if options.host in ("0.0.0.0", "::", "") else options.host
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/" + (f"?token={token}" if token else "")
        say(f"{site.title}: {address}")
        say(f"annotations go to {site.annotator.output.url}; Ctrl-C ends it")
        if options.open_browser:
            webbrowser.open(address)
        app = make_app(Site(**{**vars(site), "access": access}))
        settings = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=3,
            lifespan="on",
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listener])


@contextlib.contextmanager
def alone(output: Storage) -> Iterator[None]:
    """Keeps a second server from annotating into the same folder, whose sessions it would not know. Remote stores have no locks;
    there the last one to save counts."""
    if not output.is_local:
        yield
        return
    folder = os.path.join(output.path, "_serve")
    try:
        os.makedirs(folder, exist_ok=True)
        lock = FileLock(os.path.join(folder, "lock"))
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{output.url}: another `sam2-pipeline serve` annotates here; choose another place by --output"
        ) from None
    except OSError as error:
        raise ConfigError(f"{output.url}: annotations cannot be written there: {error}") from error
    try:
        yield
    finally:
        lock.release()


def default_author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without user names
        return "unknown"


@contextlib.contextmanager
def listening(host: str, port: int, option: str) -> Iterator[socket.socket]:
    """A socket that is bound; ``option`` is where another port is chosen.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot listen on {host} port {port}: {reason}; see {option}") from error
        yield listener


def _holds_tables(url: str, config: JobConfig) -> bool:
    if not is_remote(url) and not os.path.isdir(url):
        return False
    if is_remote(url) and PurePosixPath(url).suffix:
        return False
    return _holds_run(Storage(url, config.storage_options_for(url)))


def _holds_run(storage: Storage) -> bool:
    return any(storage.list("_run", recursive=True))


def _videos_of(dataset: MaskletDataset) -> dict[str, VideoRef]:
    rows = dataset.videos(columns=["video_id", "uri", "size_bytes"], filter=pc.field("status") == "ok").to_pylist()
    return {row["video_id"]: VideoRef(**row) for row in rows if row["uri"]}


def _without_extension(url: str) -> str:
    path = PurePosixPath(url)
    return url[: -len(path.suffix)] if path.suffix else url
