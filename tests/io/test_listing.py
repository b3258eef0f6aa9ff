"""What lies in a folder: page by page from S3, in one order everywhere, in memory that does not grow with it."""

import os
import subprocess
import sys

import fsspec
import pytest

from sam2_pipeline.io import listing
from sam2_pipeline.io.listing import is_folder, list_folder
from sam2_pipeline.io.sources import list_videos

NAMES = ["a.mp4", "a/x.mp4", "a-b.mp4", "a.b/y.mp4", "a0.mp4", "b/z/q.mp4", "c.mp4", "odd name+&.mp4"]
ORDER = ["a-b.mp4", "a.b/", "a.mp4", "a/", "a0.mp4", "b/", "c.mp4", "odd name+&.mp4"]


def _listed(fs, folder) -> list[str]:
    entries = list(list_folder(fs, folder))
    assert all(entry.path == f"{folder}/{entry.base}" for entry in entries)
    assert {entry.size for entry in entries if not entry.is_folder} == {3}
    return [f"{entry.base}/" if entry.is_folder else entry.base for entry in entries]


def test_all_stores_list_in_the_order_of_keys(storage, monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 2)
    for name in NAMES:
        storage.write_bytes(name, b"abc")
    assert _listed(storage.fs, storage.path) == ORDER
    assert _listed(storage.fs, f"{storage.path}/a") == ["x.mp4"]
    folders = {name: is_folder(storage.fs, f"{storage.path}/{name}") for name in ("a", "b", "a.mp4", "absent")}
    assert folders == {"a": True, "b": True, "a.mp4": False, "absent": False}
    ids = ["a-b", "a/x", "a.b/y", "a", "a0", "b/z/q", "c", "odd name+&"]
    assert [video.video_id for video in list_videos(storage.url)] == ids


def test_buckets(s3_environment):
    fs = fsspec.filesystem("s3")
    fs.call_s3("create_bucket", Bucket="bucket-of-nothing")
    assert is_folder(fs, "bucket-of-nothing") and list(list_folder(fs, "bucket-of-nothing")) == []
    assert not is_folder(fs, "bucket-that-is-not") and not is_folder(fs, "bucket-that-is-not/x")
    with pytest.raises(FileNotFoundError):
        list(list_folder(fs, "bucket-that-is-not"))
    fs.pipe_file("bucket-of-nothing/folder/", b"")  # what some tools leave to stand for a folder
    fs.pipe_file("bucket-of-nothing/folder/v.mp4", b"abc")
    assert _listed(fs, "bucket-of-nothing/folder") == ["v.mp4"]
    assert [video.uri for video in list_videos("s3://bucket-of-nothing")] == ["s3://bucket-of-nothing/folder/v.mp4"]


def test_a_local_link_to_nothing_is_listed(tmp_path):
    os.symlink(tmp_path / "absent.mp4", tmp_path / "link.mp4")
    assert [(video.video_id, video.size_bytes) for video in list_videos(tmp_path)] == [("link", None)]


LISTS = """
import re, fsspec
from sam2_pipeline.io.sources import list_videos

def call_s3(self, method, *, MaxKeys, ContinuationToken="0", **request):
    assert method == "list_objects_v2" and request["Bucket"] == "large" and request["Delimiter"] == "/"
    start = int(ContinuationToken)
    end = min(start + MaxKeys, count)
    keys = [{"Key": f"videos/{n:07}.mp4", "Size": n, "ETag": f"{n:032}"} for n in range(start, end)]
    return {"Contents": keys, "KeyCount": len(keys), "IsTruncated": end < count, "NextContinuationToken": str(end)}

fsspec.get_filesystem_class("s3").call_s3 = call_s3
for count in (2000, 100_000):
    assert sum(video.size_bytes for video in list_videos("s3://large/videos")) == count * (count - 1) // 2
    print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads peak memory from /proc")
def test_a_hundred_thousand_objects_take_no_more_memory_than_two_thousand(s3_environment):
    """Of a stand-in for the store, whose pages are as S3's: putting so many objects into a real one takes minutes."""
    said = subprocess.run([sys.executable, "-c", LISTS], stdout=subprocess.PIPE, text=True, check=True).stdout
    few, many = map(int, said.split())
    assert many - few < 5000, (few, many)  # kB; VideoRefs alone would be 25,000, what the store says 100,000
