"""The model that a configuration asks for, as jobs and as live streams get it."""

from sam2_pipeline.config import JobConfig
from sam2_pipeline.model.memory_bank import MemoryRules
from sam2_pipeline.pipeline.factory import ModelFactory
from sam2_pipeline.pipeline.job import ModelFacts
from sam2_pipeline.segment.masklet_generator import MaskletGenerator


def test_jobs_see_more_pixels_than_live_streams() -> None:
    here = JobConfig.load(overrides=["model.device=cpu"])
    job, live = (ModelFactory(here, offline=offline).build()[0] for offline in (True, False))
    assert (job.frame_size, live.frame_size) == ((384, 384), (288, 288))
    asked = JobConfig.load(overrides=["model.device=cpu", "model.image_size=128"])
    assert ModelFactory(asked).build()[0].frame_size == (128, 128)


def test_what_is_remembered_reaches_the_tracker() -> None:
    config = JobConfig.load(overrides=["model.device=cpu", "model.image_size=128", "tracking.memory_iou=0.5"])
    generator, _ = ModelFactory(config).build()
    assert isinstance(generator, MaskletGenerator) and generator.tracking.memory == MemoryRules(min_iou=0.5)


def test_the_hash_of_a_run_covers_the_size_that_jobs_give_the_model() -> None:
    """Asked for or not: an output holds masks of one."""

    def found(model: str, *overrides: str) -> str:
        return ModelFacts(model, "w", "cpu").config_hash(JobConfig.load(overrides=overrides), None)

    small, official = "sam2_pipeline_small", "sam2.1_hiera_tiny"
    assert found(small) == found(small, "model.image_size=384") != found(small, "model.image_size=288")
    assert found(official) == JobConfig().config_hash(model=official, weights_sha256="w", prompts_sha256=None)
