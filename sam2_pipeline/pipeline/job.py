"""`Job`: what every worker knows of the run."""

from dataclasses import dataclass, replace

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError
from sam2_pipeline.model.config import MODELS


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model, exactly, and where it runs."""

    name: str
    weights_sha256: str
    device: str

    def config_hash(self, config: JobConfig, prompts_sha256: str | None) -> str:
        """`JobConfig.config_hash` of a run with this model. It covers the size that jobs give the model's input, which may change
        from version to version."""
        size = MODELS[self.name].offline_size if self.name in MODELS else None
        if config.model.image_size is None and size is not None:
            config = replace(config, model=replace(config.model, image_size=size))
        return config.config_hash(model=self.name, weights_sha256=self.weights_sha256, prompts_sha256=prompts_sha256)


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker has to know of the run: the settings, and what goes into every row."""

    config: JobConfig
    config_hash: str
    package_version: str
    model: ModelFacts

    def on(self, facts: ModelFacts) -> "Job":
        """This job on the model that a worker really loaded.

        Raises:
            CheckpointError: its weights are not those that the run began with.
        """
        if facts.weights_sha256 != self.model.weights_sha256:
            raise CheckpointError(
                f"the weights of {facts.name} are {facts.weights_sha256[:12]} here, but the run began with "
                f"{self.model.weights_sha256[:12]}; is the checkpoint the same file on every machine?"
            )
        return replace(self, model=facts)

    @property
    def metadata(self) -> dict[str, str]:
        """Run-level metadata of every Parquet part."""
        return {
            "config_hash": self.config_hash,
            "package_version": self.package_version,
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
        }
