"""Places to store to: a local folder, memory, and a bucket behind a real S3 protocol."""

import uuid

import fsspec
import pytest

from sam2_pipeline.io.storage import Storage


@pytest.fixture(scope="session")
def s3_server():
    """Endpoint of an S3 server on a free port of this machine."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_environment(s3_server, monkeypatch):
    """The variables by which a user points at a store that is not Amazon's."""
    values = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # an instance keeps the variables it was made under
    yield values
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def s3_url(s3_environment):
    """A fresh bucket and a prefix in it."""
    bucket = f"test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}/out put"


@pytest.fixture
def memory_url():
    url = f"memory://{uuid.uuid4().hex}/out"
    yield url
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request, tmp_path):
    """An empty place, once of each kind."""
    if request.param == "local":
        return Storage(tmp_path / "out put [1]")
    return Storage(request.getfixturevalue(f"{request.param}_url"))
