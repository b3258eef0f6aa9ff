"""The annotator with a network: its masklets are those that a run makes of the prompts table it writes."""

import time

import numpy as np
import pytest
from random_weights import save_random_weights
from serve.conftest import FRAMES, HEIGHT, WIDTH, square

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.serve.serving import open_site


@pytest.fixture
def settings(tmp_path):
    weights = save_random_weights(tmp_path / "weights.safetensors")
    return {"model.name": "sam2_pipeline_small", "model.checkpoint": str(weights), "model.image_size": 128, "model.device": "cpu"}


def test_the_same_as_a_run_with_these_prompts(clip, client, settings, tmp_path):
    site = open_site(str(clip), str(tmp_path / "annotated"), JobConfig.load(options=settings), "ann")
    connected = client(site)

    def post(what, **body):
        answer = connected.post(f"/api/annotate/{what}", json={"video": "clip", **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def propagate():
        post("propagate")
        end = time.monotonic() + 120
        while (job := connected.get("/api/annotate/progress", params={"video": "clip"}).json()["job"])["state"] == "running":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert job["state"] == "done", job

    (x, y), (u, v) = square(0, 0), square(1, 5)
    version = post("add-object", version=0)["version"]
    first = post("prompt", version=version, object_id=1, frame=0, points=[[x + 10, y + 10]], labels=[1])
    version = post("add-object", version=first["version"])["version"]
    box = [u - 2, v - 2, u + 22, v + 22]
    version = post("prompt", version=version, object_id=2, frame=5, box=box)["version"]
    propagate()
    corrected = post("prompt", version=version, object_id=1, frame=7, points=[[x + 30, y + 12]], labels=[1])
    assert corrected["mask"]["size"] == [HEIGHT, WIDTH] and [one["stale"] for one in corrected["objects"]] == [True, False]
    propagate()
    assert post("save", version=corrected["version"])["saved"] == 2

    annotated = MaskletDataset(tmp_path / "annotated")
    assert (annotated.masks("clip", 0, decode=True)[0] == decode(Rle.from_coco(first["mask"]))).all(), "as the click showed it"
    [prompts] = (tmp_path / "annotated" / "prompts").iterdir()
    given = {"input": str(clip), "output": str(tmp_path / "run"), "prompts.file": str(prompts), "ray.address": "off"}
    assert run_job(JobConfig.load(options=settings | given)).exit_code == 0
    run = MaskletDataset(tmp_path / "run")
    assert run.masks("clip").num_rows == 2 * FRAMES
    for number in (0, 1):
        assert np.array_equal(run.masks("clip", number, decode=True), annotated.masks("clip", number, decode=True))
    keys = ["weights_sha256", "model", "width", "height", "frame_count", "annotated_frame_count"]
    assert run.videos(columns=keys).equals(annotated.videos(columns=keys))
