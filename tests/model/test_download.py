"""Official checkpoints from a server that is not always kind. Everything is on this machine."""

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from sam2_pipeline.errors import CheckpointError
from sam2_pipeline.model import checkpoint
from sam2_pipeline.model.config import find_config
from sam2_pipeline.model.download import META_RELEASES, cache_directory, fetch_checkpoint, release_url

TINY = find_config("sam2.1_hiera_tiny")
PATH = "/092824/sam2.1_hiera_tiny.pt"


def some_checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.arange(50_000.0)}}, buffer)
    return buffer.getvalue()


@dataclass
class Site:
    """What the server has, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    url: str = ""
    breaks_after: list[int] = field(default_factory=list)  # bytes it sends before hanging up, for each of the next answers
    statuses: list[int] = field(default_factory=list)  # answers without content, first of all
    ignores_range: bool = False
    says_length: bool = True
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site({PATH: some_checkpoint()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            site.asked.append(wanted)
            data = site.files.get(self.path)
            if site.statuses:
                return self.send_error(site.statuses.pop(0))
            if data is None:
                return self.send_error(404)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not site.ignores_range else 0
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if site.says_length:
                self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:][: site.breaks_after.pop(0) if site.breaks_after else None])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("SAM2_PIPELINE_DOWNLOAD_URL", site.url + "/")
    monkeypatch.setenv("SAM2_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def cached_files() -> set[str]:
    return {path.name for path in cache_directory().iterdir() if path.suffix != ".lock"}


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAM2_PIPELINE_DOWNLOAD_URL", raising=False)
    assert release_url(TINY) == f"{META_RELEASES}{PATH}"
    assert release_url(find_config("sam2_hiera_base_plus")) == f"{META_RELEASES}/072824/sam2_hiera_base_plus.pt"
    monkeypatch.delenv("SAM2_PIPELINE_CACHE", raising=False)
    assert cache_directory().name == "sam2_pipeline"
    monkeypatch.setenv("SAM2_PIPELINE_CACHE", "~/weights")
    assert cache_directory() == Path(os.path.expanduser("~/weights"))


def test_downloads_once(site: Site) -> None:
    path = fetch_checkpoint(TINY)
    assert path == cache_directory() / "sam2.1_hiera_tiny.pt" and path.read_bytes() == site.files[PATH]
    assert fetch_checkpoint(TINY) == path and site.asked == [""]
    assert cached_files() == {path.name}


def test_together_download_once(site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch_checkpoint, [TINY] * 4))
    assert len(paths) == 1 and site.asked == [""]


def test_goes_on_after_broken_connections(site: Site) -> None:
    site.breaks_after, site.statuses = [70_000, 50_000], []
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]
    assert site.asked == ["", "bytes=70000-", "bytes=120000-"]


def test_tries_again_when_the_server_stumbles(site: Site) -> None:
    site.statuses = [503, 500]
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site) -> None:
    site.breaks_after = [1000, 1000, 1000, 1000]
    with pytest.raises(CheckpointError, match=r"4000 of \d+ bytes arrived; the next call goes on from there"):
        fetch_checkpoint(TINY)
    assert cached_files() == {"sam2.1_hiera_tiny.pt.part"}, "nothing has the final name"
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]
    assert site.asked[-1] == "bytes=4000-"


def test_starts_over_where_the_server_does_not_continue(site: Site) -> None:
    site.ignores_range, site.breaks_after = True, [70_000]
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]


def test_starts_over_when_the_part_is_of_some_longer_file(site: Site) -> None:
    cache_directory().mkdir()
    (cache_directory() / "sam2.1_hiera_tiny.pt.part").write_bytes(bytes(len(site.files[PATH]) + 10))
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]
    assert len(site.asked) == 2


def test_without_a_stated_length(site: Site) -> None:
    site.says_length = False
    assert fetch_checkpoint(TINY).read_bytes() == site.files[PATH]


def test_not_there(site: Site) -> None:
    site.files.clear()
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(TINY)
    target = cache_directory() / "sam2.1_hiera_tiny.pt"
    for said in (f"from {site.url}{PATH}: the server answered 404", f"put the file at {target} by hand", "--checkpoint"):
        assert said in str(caught.value)
    assert len(site.asked) == 1, "asking again would not help"


def test_a_login_page_is_not_kept(site: Site) -> None:
    site.files[PATH] = b"<html><body>Welcome to the hotel. Please log in.</body></html>"
    with pytest.raises(CheckpointError, match="what came is not a checkpoint: it is a web page, it begins with '<html>"):
        fetch_checkpoint(TINY)
    assert cached_files() == set()


def test_no_network(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_PIPELINE_DOWNLOAD_URL", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(CheckpointError, match=r"cannot download sam2\.1_hiera_tiny from http://127\.0\.0\.1:9/.*: no connection"):
        checkpoint.load_model("facebook/sam2.1-hiera-tiny")


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAM2_PIPELINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointError, match=r"Not a directory.*put the file at"):
        fetch_checkpoint(TINY)


def test_load_model_reads_what_was_downloaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a file that was put into the cache by hand; its faults are told with its name."""
    with pytest.raises(
        CheckpointError, match=r"cache/sam2\.1_hiera_tiny\.pt does not fit sam2\.1_hiera_tiny.*1 unexpected: weight"
    ):
        checkpoint.load_model("sam2.1_hiera_tiny")
    assert len(site.asked) == 1
