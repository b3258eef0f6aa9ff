"""Places to store to: a local folder, memory, and a bucket behind a real S3 protocol."""

import uuid

import fsspec
import numpy as np
import pytest

from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.masklets.schema import VIDEOS
from sam2_pipeline.masklets.work import Commit


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


class OutputMaker:
    """Writes units as a worker does, with random masks of ``SIZE`` pixels."""

    SIZE = (12, 16)

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def mask(self):
        return self.rng.random(self.SIZE) > 0.5

    def video(self, writer, video_id, masklets=2, frames=3, failed=False):
        """Adds one video; gives back its masks, keyed by (masklet_id, frame_index)."""
        indices = range(0, 4 * frames, 4)
        masks = {} if failed else {(number, index): self.mask() for number in range(masklets) for index in indices}
        row = dict.fromkeys(VIDEOS.names) | {
            "video_id": video_id,
            "status": "failed" if failed else "ok",
            "masklet_count": 0 if failed else masklets,
            "annotated_frame_count": 0 if failed else frames,
        }
        seeds = [] if failed else [self.seed(number) for number in range(masklets)]
        arriving = list(masks.items())
        self.rng.shuffle(arriving)
        with MaskSpool(video_id) as spool:
            for (number, index), mask in arriving:
                spool.add(number, MaskletFrame(index, index / 24, encode(mask), 0.5, 1.0, 0.25))
            writer.add_video(row, spool, seeds)
        return {(video_id, *key): mask for key, mask in masks.items()}

    def seed(self, number):
        return MaskletSeed(number, "auto", Prompt(number, 0, points_xy=[[1, 2]], point_labels=[1]))

    def parts(self, storage, unit_id, videos, attempt_id="1", **shape):
        """Writes the parts of a unit of these video ids (those with an ! fail); gives back an uncommitted commit and masks."""
        masks = {}
        with UnitWriter(storage, unit_id, attempt_id, {"config_hash": "abc"}) as writer:
            for video_id in videos:
                masks |= self.video(writer, video_id.rstrip("!"), failed=video_id.endswith("!"), **shape)
            parts = writer.finish()
        ids, failures = tuple(video_id.rstrip("!") for video_id in videos), sum(v.endswith("!") for v in videos)
        return Commit(unit_id, attempt_id, parts, ids, len(ids), failures), masks

    def unit(self, storage, unit_id, videos, attempt_id="1", **shape):
        """Writes and commits a unit; gives back its masks."""
        commit, masks = self.parts(storage, unit_id, videos, attempt_id, **shape)
        assert commit_unit(storage, commit)
        return masks


@pytest.fixture
def maker():
    return OutputMaker()
