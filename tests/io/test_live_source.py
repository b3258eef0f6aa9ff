"""Sources that are there once: files as streams, pipes, HTTP; what ends, breaks, hangs, or is no stream at all."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import corners, moving_shapes, write_audio_only, write_video

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io import live
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.live import open_stream
from sam2_pipeline.masklets.frames import LiveFrames

Handle = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http(answer: Handle) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def motion_jpeg(pictures: list[np.ndarray]) -> Handle:
    """What a network camera sends; then it hangs up."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for picture in pictures:
            jpeg = BytesIO()
            Image.fromarray(picture).save(jpeg, "JPEG")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg.getvalue())}\r\n\r\n"
            request.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")

    return answer


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_file_gives_the_frames_of_open_video(tmp_path: Path, rotation: int) -> None:
    path = write_video(tmp_path / "a.mp4", [corners() // (n + 1) for n in range(5)], rotation=rotation)
    with open_video(path) as video, open_stream(path) as stream:
        assert isinstance(stream, LiveFrames) and not stream.live
        assert (stream.height, stream.width, stream.fps) == (video.height, video.width, 25)
        for mine, wanted in zip(stream, video, strict=True):
            assert (mine.index, mine.timestamp_s) == (wanted.index, pytest.approx(wanted.timestamp_s))
            np.testing.assert_array_equal(mine.image, wanted.image)


def test_a_file_may_play_at_its_own_pace(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_shapes(6))
    with open_stream(path, realtime=True) as stream:
        assert stream.live
        began = time.monotonic()
        assert len(list(stream)) == 6
        assert time.monotonic() - began >= 5 / 25


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_video(tmp_path / "a.mkv", moving_shapes(5)).read_bytes()
    out, into = os.pipe()
    with os.fdopen(out, "rb") as standard_input, os.fdopen(into, "wb") as pipe:
        monkeypatch.setattr(live.sys, "stdin", standard_input)
        writer = threading.Thread(target=lambda: (pipe.write(data), pipe.close()))
        writer.start()
        with open_stream("-") as stream:
            assert [frame.index for frame in stream] == [0, 1, 2, 3, 4]
            assert not stream.live
        writer.join()


def test_a_network_camera_that_hangs_up_is_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_RETRY_EVERY_S", 0.01)
    with http(motion_jpeg(moving_shapes(4))) as url:
        with open_stream(url) as stream:
            assert stream.live
            frames = iter(stream)
            assert [next(frames).index for _ in range(4)] == [0, 1, 2, 3]
            with pytest.raises(VideoError, match="broke off after 4 frames"):
                next(frames)
        with open_stream(url, reconnect_s=60) as stream:
            frames = [frame for frame, _ in zip(stream, range(10))]
            assert stream.connections == 3
    assert [frame.index for frame in frames] == list(range(10))
    assert (np.diff([frame.timestamp_s for frame in frames]) > 0).all()


def test_a_camera_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_RETRY_EVERY_S", 0.01)
    with http(motion_jpeg(moving_shapes(4))) as url:
        stream = open_stream(url, reconnect_s=0.3)
    with pytest.raises(VideoError, match="broke off after 4 frames: Connection refused"):
        list(stream)


def test_damage_costs_frames_and_not_the_stream(tmp_path: Path) -> None:
    """An intra-only file, so that the loss of one frame is that frame's alone."""
    path = write_video(tmp_path / "a.avi", moving_shapes(12), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    middle = data.index(b"\xff\xd8", len(data) // 2)
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    with open_stream(path) as stream:
        frames = list(stream)
    assert stream.damaged == 1 and len(frames) == 11


def test_a_close_from_elsewhere_ends_the_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_video(tmp_path / "a.ts", moving_shapes(60)).read_bytes()
    out, into = os.pipe()
    with os.fdopen(out, "rb") as standard_input, os.fdopen(into, "wb") as pipe:
        monkeypatch.setattr(live.sys, "stdin", standard_input)
        threading.Thread(target=lambda: (pipe.write(data), pipe.flush()), daemon=True).start()
        stream = open_stream("-")
        frames: list[int] = []
        reader = threading.Thread(target=lambda: frames.extend(frame.index for frame in stream))
        reader.start()
        time.sleep(0.2)  # it waits for more by now
        assert reader.is_alive()
        stream.close()
        reader.join(5)
        assert not reader.is_alive() and frames


def test_what_is_no_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("no video")
    write_audio_only(tmp_path / "sound.mp4")
    clip = write_video(tmp_path / "a.mp4", moving_shapes(3))
    for place, complaint in (
        (tmp_path / "none.mp4", "there is no such file"),
        (tmp_path / "a.txt", "cannot be opened: Invalid data"),
        (tmp_path / "sound.mp4", "no video stream"),
        ("rtsp://127.0.0.1:9/1", "cannot be opened: Connection refused"),
    ):
        with pytest.raises(VideoError, match=complaint):
            open_stream(place)
    with pytest.raises(VideoError, match="pictures are 64x48"):
        open_stream(clip, max_pixels=100)
    with pytest.raises(ConfigError, match="s3 is no kind of stream"):
        open_stream("s3://bucket/a.mp4")
    with pytest.raises(ConfigError, match="only a network stream"):
        open_stream(clip, reconnect_s=3)
    with pytest.raises(ConfigError, match="expected seconds"):
        open_stream(clip, reconnect_s=float("nan"))
    with open_stream(clip) as stream:
        list(stream)
        with pytest.raises(VideoError, match="only once"):
            list(stream)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(live, "_OPEN_S", 0.3)
        with pytest.raises(VideoError, match=r"nothing came for 0\.3 s"):
            open_stream(f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.av, "formats_available", set())
    with pytest.raises(ConfigError, match="built without cameras"):
        open_stream(0)


@pytest.mark.skipif("lavfi" not in live.av.formats_available, reason="this FFmpeg has no virtual camera")
def test_a_virtual_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's test picture in the place of a camera, which no test machine has."""
    monkeypatch.setattr(live, "_camera", lambda url: "testsrc=size=64x48:rate=10")
    monkeypatch.setattr(live, "_camera_format", lambda: "lavfi")
    with open_stream(0) as camera:
        assert camera.live and (camera.width, camera.height) == (64, 48)
        frames = [frame for frame, _ in zip(camera, range(5))]
    assert [frame.timestamp_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_network_stream_names_no_file_of_ours(tmp_path: Path) -> None:
    """A playlist is followed in the network, but not onto this disk."""
    clip = write_video(tmp_path / "a.ts", moving_shapes(3))

    def playlist(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/vnd.apple.mpegurl")
        request.end_headers()
        request.wfile.write(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n".encode())

    with http(playlist) as url, pytest.raises(VideoError):
        open_stream(url + ".m3u8")
