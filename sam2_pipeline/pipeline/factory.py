"""How a worker comes by its generator, and how the driver learns which model that is without loading torch itself."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import sam2_pipeline.errors as errors
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError, PipelineError
from sam2_pipeline.masklets.clean import CleanRules
from sam2_pipeline.masklets.verdict import VerdictRules
from sam2_pipeline.model.config import find_config
from sam2_pipeline.pipeline.identity import identity_options
from sam2_pipeline.pipeline.job import ModelFacts
from sam2_pipeline.pipeline.video import Generator

if TYPE_CHECKING:
    from sam2_pipeline.segment.judge import JudgeOptions


class GeneratorFactory(Protocol):
    """Makes the generator in the process that will use it; travels there by pickle."""

    def describe(self) -> ModelFacts:
        """Name and weights of the model, found out without keeping it in this process."""
        ...

    def on(self, device: str) -> "GeneratorFactory":
        """The same for workers on this kind of device."""
        ...

    def build(self, threads: int | None = None) -> tuple[Generator, ModelFacts]:
        """The generator, limited to ``threads`` CPU threads, and what it was made from."""
        ...


@dataclass(frozen=True)
class ModelFactory:
    """SAM 2 as the configuration asks for it, for jobs (``offline``) or to follow a stream. ``device`` overrides the
    configuration's."""

    config: JobConfig
    device: str | None = None
    offline: bool = True

    def __post_init__(self) -> None:
        if self.config.model.name is not None:
            find_config(self.config.model.name, self.config.model.image_size)  # a slip of the pen need not wait for torch

    def describe(self) -> ModelFacts:
        """Loads the model in a process of its own: a driver that plans for days should not hold torch and the weights."""
        facts_only = {"device": "cpu", "dtype": None, "compile": False, "offline": self.offline}
        request = json.dumps(dataclasses.asdict(self.config.model) | facts_only)
        ran = subprocess.run(
            [sys.executable, "-m", "sam2_pipeline.pipeline.factory", request], stdout=subprocess.PIPE, text=True, check=False
        )
        lines = ran.stdout.splitlines()
        if ran.returncode or not lines:
            raise CheckpointError(f"the process that loads the model ended with status {ran.returncode}; its output is above")
        answer = json.loads(lines[-1])
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return ModelFacts(**answer)

    def image_size(self, facts: ModelFacts) -> int:
        """Side of the model's input in pixels."""
        return find_config(facts.name, self.config.model.image_size, offline=self.offline).image_size

    def on(self, device: str) -> "ModelFactory":
        return dataclasses.replace(self, device=device)

    def build(self, threads: int | None = None) -> tuple[Generator, ModelFacts]:
        here = {"device": self.device or self.config.model.device, "offline": self.offline}
        model, facts = _load(dataclasses.asdict(self.config.model) | here)
        import torch

        from sam2_pipeline.model.memory_bank import MemoryRules
        from sam2_pipeline.segment.cuts import CutOptions
        from sam2_pipeline.segment.discover import DiscoverOptions
        from sam2_pipeline.segment.generate_options import GenerateOptions
        from sam2_pipeline.segment.masklet_generator import MaskletGenerator
        from sam2_pipeline.segment.options import TrackingOptions

        if threads:
            torch.set_num_threads(threads)
        generate = GenerateOptions.for_model(model.config, **dataclasses.asdict(self.config.generate))
        settings = self.config.tracking
        tracking = TrackingOptions(
            memory=MemoryRules(min_iou=settings.memory_iou),
            fill_hole_area=settings.fill_hole_area,
            non_overlapping=settings.non_overlapping,
            row_batch=settings.row_batch,
        )
        cuts = self.config.cuts
        generator = MaskletGenerator(
            model,
            generate,
            tracking,
            backward=settings.backward,
            discover=DiscoverOptions(**dataclasses.asdict(self.config.discover)),
            cuts=CutOptions(cuts.threshold, cuts.longest_fade) if cuts.mode == "split" else None,
            identity=identity_options(self.config),
            lost_after_s=self.config.identity.lost_after_s,
            clean=CleanRules(**dataclasses.asdict(self.config.clean)),
            judge=self._judge_options() if self.config.judge.enabled else None,
        )
        return generator, facts

    def _judge_options(self) -> "JudgeOptions":
        from sam2_pipeline.segment.judge import JudgeOptions

        judge = self.config.judge
        rules = VerdictRules(**{field.name: getattr(judge, field.name) for field in dataclasses.fields(VerdictRules)})
        return JudgeOptions(rules, judge.reprompt_frames)


class KeptFactory:
    """Builds at once, in this process, and hands the same generator out again: for runs without Ray."""

    def __init__(self, factory: GeneratorFactory) -> None:
        self._built = factory.build()

    def describe(self) -> ModelFacts:
        return self._built[1]

    def on(self, device: str) -> "KeptFactory":
        return self

    def build(self, threads: int | None = None) -> tuple[Generator, ModelFacts]:
        return self._built


def _load(settings: dict) -> tuple:
    # Threads of torch that wait for each other spin; beside a decoder, or on a shared machine, that made runs four times
    # slower. Read when torch is imported, which in a worker is here.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import torch

    from sam2_pipeline import load_model
    from sam2_pipeline.model.checkpoint import weights_sha256

    dtype = None if settings["dtype"] is None else getattr(torch, settings["dtype"])
    model = load_model(
        settings["name"],
        checkpoint=settings["checkpoint"],
        image_size=settings["image_size"],
        device=settings["device"],
        dtype=dtype,
        compile=settings["compile"],
        offline=settings["offline"],
    )
    device = next(model.parameters()).device
    label = f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    return model, ModelFacts(model.config.name, weights_sha256(model), label)


def _answer(request: str) -> None:
    """Body of the process that `ModelFactory.describe` starts: the model's facts, or its error, as one line of JSON."""
    try:
        answer = dataclasses.asdict(_load(json.loads(request))[1])
    except PipelineError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the GPU's memory belongs to the workers
    _answer(sys.argv[1])
