"""The model that a configuration asks for, as jobs and as live streams get it."""

from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline.factory import ModelFactory


def test_jobs_see_more_pixels_than_live_streams() -> None:
    here = JobConfig.load(overrides=["model.device=cpu"])
    job, live = (ModelFactory(here, offline=offline).build()[0] for offline in (True, False))
    assert (job.frame_size, live.frame_size) == ((384, 384), (288, 288))
    asked = JobConfig.load(overrides=["model.device=cpu", "model.image_size=128"])
    assert ModelFactory(asked).build()[0].frame_size == (128, 128)
