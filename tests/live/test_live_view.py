"""`live --view`: pictures reach a browser while the stream runs, and nobody who watches holds it up or takes memory."""

import io
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_weights import save_random_weights
from videos import moving_shapes, write_video

from sam2_pipeline import cli

view_module = pytest.importorskip("sam2_pipeline.live.view", reason="the web server is not installed: pip install .[serve]")
View, MAX_WATCHERS = view_module.View, view_module.MAX_WATCHERS


@pytest.fixture
def view() -> Iterator[View]:
    with View(0) as opened:
        yield opened


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def next_picture(answer) -> np.ndarray:
    """The next part of a multipart answer."""
    while not (line := answer.readline()).lower().startswith(b"content-length"):
        assert line, "the stream ended"
    length = int(line.split(b":")[1])
    assert answer.readline() == b"\r\n"
    return np.asarray(Image.open(io.BytesIO(answer.read(length))))


def plain(level: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_pictures_reach_whoever_watches(view: View) -> None:
    page = urllib.request.urlopen(view.address, timeout=30)
    assert b'<img src="/stream"' in page.read() and "default-src 'self'" in page.headers["content-security-policy"]
    assert not view.watched
    with (
        urllib.request.urlopen(f"{view.address}stream", timeout=30) as one,
        urllib.request.urlopen(f"{view.address}stream", timeout=30) as other,
    ):
        wait_for(lambda: view._watchers == 2)
        for level in (40, 200):
            view.show(plain(level))
            for answer in (one, other):
                picture = next_picture(answer)
                assert picture.shape == (48, 64, 3) and abs(picture.astype(int) - level).max() < 3
        view.close()
        assert one.read().strip() == b"", "the end of the stream ends the answer"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(view.address, timeout=5)


def test_who_does_not_read_costs_nothing(view: View) -> None:
    """The stream goes on, and only the latest picture is held; who leaves is forgotten."""
    port = int(view.address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.sendall(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_for(lambda: view.watched)
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        for _ in range(60):  # 20 MB of JPEG
            view.show(noise)
        wait_for(lambda: view._number == 60)
        assert len(view._jpeg) < 1 << 20
    for _ in range(3):
        view.show(noise)
    wait_for(lambda: not view.watched)


def test_watchers_are_not_without_end(view: View) -> None:
    answers = [urllib.request.urlopen(f"{view.address}stream", timeout=30) for _ in range(MAX_WATCHERS)]
    wait_for(lambda: view._watchers == MAX_WATCHERS)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{view.address}stream", timeout=30)
    for answer in answers:
        answer.close()


def test_only_this_machine_is_answered(view: View) -> None:
    """Not a page of somebody else whose name leads here, nor one that asks from elsewhere."""
    assert view._listener.getsockname()[0] == "127.0.0.1"
    for header in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        asked = urllib.request.Request(f"{view.address}stream", headers=header)
        with pytest.raises(urllib.error.HTTPError, match=r"421|403"):
            urllib.request.urlopen(asked, timeout=30)
    for path in ("../etc/passwd", "stream/..%2f..%2fetc/passwd", "view.css/x"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(view.address + path, timeout=30)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is watched is the picture with its masks, and the same as in the overlay video."""
    weights = save_random_weights(tmp_path / "small.safetensors")
    clip = write_video(tmp_path / "clip.mp4", moving_shapes(60), fps=10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seen: list[np.ndarray] = []

    def watch() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and len(seen) < 3:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=30) as answer:
                    seen.extend(next_picture(answer) for _ in range(3))
            except OSError:
                time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = ["--checkpoint", str(weights), "--model", "sam2_pipeline_small", "--image-size", "128", "--device", "cpu"]
    given = ["--box", "5,5,60,45", "--view", str(port), "--realtime", "--max-frames", "30"]
    assert cli.main(["live", str(clip), *given, *model]) == 0
    watcher.join()
    assert f"to watch it: http://127.0.0.1:{port}/" in capsys.readouterr().err
    assert len(seen) == 3 and seen[0].shape == (48, 64, 3)
    frames = moving_shapes(60)
    closest = min(np.abs(seen[0].astype(int) - frame).mean() for frame in frames)
    assert closest > 5, "the masks are drawn on it"


def test_ports_that_cannot_be_had(view: View) -> None:
    from sam2_pipeline.errors import ConfigError

    port = int(view.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: .*; see --view"):
        View(port)
