"""Storage over a network that fails: what is retried, what is told apart, and what is never half done."""

import uuid

import fsspec
import pytest
from faulty_proxy import FAULTS, FaultyProxy, s3_process

from sam2_pipeline.errors import StorageError, VideoError
from sam2_pipeline.io.commits import commit_unit, list_commits
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.urls import fetch

IMPATIENT = {"config_kwargs": {"read_timeout": 0.4, "connect_timeout": 5}}


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("moto.server")
    with s3_process() as address:
        yield address


@pytest.fixture
def bucket(server, monkeypatch):
    """A fresh bucket, and the endpoint that reaches it without faults."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", endpoint_url=f"http://{server}").call_s3("create_bucket", Bucket=name)
    return name


def _through(proxy: FaultyProxy) -> dict:
    return {"endpoint_url": proxy.url, **IMPATIENT}


def _use(server, bucket, shares, objects: int) -> FaultyProxy:
    """Whole objects, listings and exclusive creations are right in the end, whatever happens on the way."""
    data = bytes(range(256)) * 400
    with FaultyProxy(server, shares, seed=3, hang_s=0.8, slow_s=0.1) as proxy:
        storage = Storage(f"s3://{bucket}/out", _through(proxy))
        for number in range(objects):
            storage.write_bytes(f"masks/{number}", data)
            assert storage.create_exclusive(f"commits/{number}", b"mine")
            assert not storage.create_exclusive(f"commits/{number}", b"another's")
        assert [name for name, _ in storage.list("masks")] == [f"masks/{number}" for number in range(objects)]
        assert all(storage.read_bytes(f"masks/{number}") == data for number in range(objects))
        assert all(storage.read_bytes(f"commits/{number}") == b"mine" for number in range(objects))
    return proxy


def test_a_quarter_of_the_requests_may_fail(server, bucket):
    proxy = _use(server, bucket, dict.fromkeys(FAULTS, 0.25 / len(FAULTS)), 10)
    assert set(proxy.happened) == set(FAULTS)


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS)
def test_a_third_of_the_requests_may_fail_in_one_way(server, bucket, fault):
    proxy = _use(server, bucket, {fault: 0.33}, 6)
    assert proxy.happened[fault] >= 5


def test_two_owners_race_through_lost_replies(server, bucket, maker):
    """Each unit is committed once, and both agree on whose commit stands."""
    with FaultyProxy(server, {"lost": 0.2, "reset": 0.1, "503": 0.1}, seed=1) as proxy:
        storage = Storage(f"s3://{bucket}/out", _through(proxy))
        for unit in ("one", "two"):
            mine, _ = maker.parts(storage, unit, ["a"], attempt_id="1")
            theirs, _ = maker.parts(storage, unit, ["a"], attempt_id="2")
            assert [commit_unit(storage, mine), commit_unit(storage, theirs), commit_unit(storage, mine)] == [True, False, True]
        assert {commit.attempt_id for commit in list_commits(storage)} == {"1"}
    assert proxy.happened["lost"] and proxy.happened["reset"]


def test_a_fetched_video_is_whole_or_the_stores_fault(server, bucket, tmp_path):
    data = bytes(range(256)) * 4000
    Storage(f"s3://{bucket}", {"endpoint_url": f"http://{server}"}).write_bytes("clip.mp4", data)
    with FaultyProxy(server, {"truncate": 0.2, "reset": 0.2}, seed=5) as proxy:
        for _ in range(8):
            with open(fetch(f"s3://{bucket}/clip.mp4", _through(proxy)), "rb") as file:
                assert file.read() == data
        with pytest.raises(VideoError, match="no such file"):
            fetch(f"s3://{bucket}/none.mp4", _through(proxy))
    assert proxy.happened["truncate"] and proxy.happened["reset"]
    with FaultyProxy(server, {"reset": 1.0}) as proxy, pytest.raises(StorageError, match=r"clip\.mp4"):
        fetch(f"s3://{bucket}/clip.mp4", _through(proxy))
