"""What lists and file names, which anyone may have written, can make this machine fetch: nothing but what is allowed."""

from pathlib import Path

import fsspec
import pytest

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.urls import SCHEMES, fetch, forbidden, secret_in


def test_the_setting_has_the_same_schemes():
    assert JobConfig().sources.schemes == SCHEMES


@pytest.mark.parametrize(
    "url",
    [
        "/data/a.mp4",
        "/data/odd::http://name.mp4",  # a local path is nothing but a path
        "relative/a.mp4",
        "file:///data/a.mp4",
        "s3://bucket/a.mp4",
        "https://host/a.mp4?version=2",
        "tar://a/b.mp4::s3://bucket/a.tar",
        "tar://a/b.mp4::/data/a.tar",
        "s3://bucket/who@home:5.mp4",
    ],
)
def test_allowed(url):
    assert forbidden(url) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/a.mp4", "its scheme is 'ftp'"),
        ("ssh://host/a.mp4", "its scheme is 'ssh'"),
        ("reference://x::s3://b/refs.json", "reference:// stands before ::"),
        ("simplecache::https://host/a.mp4", "simplecache:// stands before ::"),
        ("s3://bucket/a::http://169.254.169.254/x.mp4", "s3:// stands before ::"),
        ("tar://x::http://inside/a.mp4::s3://b/a.tar", "http:// stands before ::"),
        ("https://user:hunter2@host/a.mp4", "holds a password"),
        ("https://host/a.mp4?X-Amz-Signature=hunter2", "X-Amz-Signature"),
        ("https://host/a.mp4?v=1&sig=hunter2", "sig=..."),
        ("tar://a.mp4::https://host/a.tar?token=hunter2", "token=..."),
    ],
)
def test_forbidden(url, says):
    assert says in forbidden(url) and "hunter2" not in forbidden(url)


def test_fewer_may_be_allowed():
    assert "sources.schemes allows s3" in forbidden("https://host/a.mp4", ["s3"])
    assert "local path" in forbidden("/etc/passwd", ["s3"]) and forbidden("file:///etc/passwd", ["s3"])
    assert secret_in("/data/user:word@host") is None


@pytest.mark.parametrize("entry", ["ftp://host/a.mp4", "https://user:hunter2@host/a.mp4", "simplecache::s3://b/a.mp4"])
def test_lists_are_refused_by_line(tmp_path, entry):
    (tmp_path / "list.txt").write_text(f"a.mp4\n{entry}\n")
    with pytest.raises(ConfigError, match=r"list\.txt, line 2: ") as refused:
        list(list_videos(tmp_path / "list.txt"))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("entry", ["/etc/passwd", "file:///etc/passwd"])
def test_lists_from_elsewhere_name_no_files_of_this_machine(memory_url, entry):
    fsspec.filesystem("memory").pipe_file(f"{memory_url}/list.txt", f"{entry}\n".encode())
    with pytest.raises(ConfigError, match="line 1: "):
        list(list_videos(f"{memory_url}/list.txt"))


def test_input_itself():
    with pytest.raises(ConfigError, match="INPUT ftp://host/videos: its scheme"):
        list_videos("ftp://host/videos")
    with pytest.raises(ConfigError, match="holds a password") as refused:
        list_videos("https://user:hunter2@host/list.txt")
    assert "hunter2" not in str(refused.value)


def test_a_fetch_is_bounded(memory_url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fsspec.filesystem("memory").pipe_file(f"{memory_url}/a.mp4", bytes(1001))
    with pytest.raises(VideoError, match=r"larger than 1000 bytes \(limits\.max_bytes\)"):
        fetch(f"{memory_url}/a.mp4", max_bytes=1000)
    assert list(tmp_path.iterdir()) == []
    assert Path(fetch(f"{memory_url}/a.mp4", max_bytes=1001)).stat().st_size == 1001
