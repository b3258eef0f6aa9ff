"""How many workers there are, and what each may use, by the cluster's nodes and the settings."""

import pytest

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.pipeline.cluster import Cluster, Pool


def _pool(monkeypatch, nodes: list[dict], *overrides: str) -> Pool:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    return Cluster(JobConfig.load(overrides=overrides)).pool()


BOX = {"CPU": 16, "GPU": 4}


@pytest.mark.parametrize(
    ("nodes", "overrides", "pool"),
    [
        ([{"CPU": 8}], [], Pool(1, 0, 8, 8, "cpu")),
        ([{"CPU": 8}, {"CPU": 4}], ["ray.workers=4"], Pool(4, 0, 2, 2, "cpu")),
        ([BOX, {"CPU": 8}], [], Pool(4, 1, 0, 8, "cuda")),
        ([BOX, BOX], ["ray.workers=16"], Pool(16, 0.5, 0, 4, "cuda")),
        ([BOX], ["ray.gpus_per_worker=0.25"], Pool(16, 0.25, 0, 4, "cuda")),
        ([BOX], ["ray.workers=8", "ray.gpus_per_worker=1"], Pool(8, 1, 0, 4, "cuda")),
        ([{"CPU": 2}], ["ray.workers=8", "ray.gpus_per_worker=1"], Pool(8, 1, 0, 2, "cuda")),
        ([BOX], ["model.device=cpu"], Pool(1, 0, 16, 16, "cpu")),
    ],
)
def test_workers_share_what_there_is_or_wait_for_what_will_be(monkeypatch, nodes, overrides, pool):
    assert _pool(monkeypatch, nodes, *overrides) == pool


def test_no_gpu_is_an_error_where_one_is_asked_for(monkeypatch):
    with pytest.raises(ConfigError, match=r"Ray sees no GPU.*ray\.gpus_per_worker"):
        _pool(monkeypatch, [{"CPU": 2}], "model.device=cuda")


@pytest.mark.parametrize("setting", ["ray.gpus_per_worker=1.5", "ray.gpus_per_worker=0", "ray.min_workers=3"])
def test_pools_that_cannot_be(setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0].replace(".", r"\.")):
        JobConfig.load(overrides=["ray.workers=2", setting])
