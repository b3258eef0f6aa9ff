"""`TrainConfig`: everything a training run can be told, in YAML or in Python, checked before any work starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.verdicts import WORDS
from sam2_pipeline.model.config import ModelConfig, find_config
from sam2_pipeline.settings import Settings, build, convert, parse_override, put, setting, to_plain

PRETRAINED = "pretrained"
FREEZABLE = ("image_encoder", "memory", "decoder", "prompt_encoder")


@dataclass(frozen=True)
class ModelSection(Settings):
    """Which network, and what it starts from: ``pretrained`` is the weights that `load_model` gives it, for the official models
    Meta's, which are downloaded; else a checkpoint (a path or URL), or null for random weights. ``freeze`` names groups of
    parameters that stay as they are: image_encoder (all that is done once for a picture), memory, decoder, prompt_encoder.
    ``teacher`` is what an earlier run with ``loss.pixels`` left beside its weights (``teacher.safetensors``); without it, that
    teacher begins anew."""

    path: ClassVar[str] = "model"
    name: str = "sam2_pipeline_small"
    checkpoint: str | None = PRETRAINED
    teacher: str | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.freeze:
            if name not in FREEZABLE:
                raise ConfigError(f"model.freeze holds {name!r}, expected some of {', '.join(FREEZABLE)}")
        _ = self.config

    @property
    def config(self) -> ModelConfig:
        return find_config(self.name)


@dataclass(frozen=True)
class DataSection(Settings):
    """Clips to learn from.

    ``kind`` synthetic draws scenes from the seeds ``first_seed`` and the ``num_scenes`` - 1 after it; sav and davis read the
    folder ``root``; tables reads a run's output there. A step is made of clips of ``frames`` frames, or with probability
    ``image_share`` of ``image_batch`` single frames. ``image_sizes``: each step picks one as the side of the network's input
    (empty: the model's own). ``size``: about how many pixels a side scenes and decoded videos have before they are brought
    to that. A scene, which takes longer to set up than to draw, serves ``views`` examples in a row, of frames of their own.
    ``pictures`` is a folder of pictures; a texture of a scene comes from one of them with probability ``picture_share``.
    Every batch serves ``repeats`` steps, varied anew and with other prompts, in turn with as many others: for devices that
    learn faster than processors can draw or decode. Without ``augment`` nothing is varied, and an image encoder that is frozen
    looks at a picture once.
    Half of the clips are cut out of what the camera saw, enlarged by up to ``zoom``.
    ``only``: of tables, masklets of these verdicts, such as [accept]; a person's counts before the judge's.
    ``max_stride``: largest distance, in annotated frames, between neighbours of a clip. ``min_area``: share of its
    first frame that an object must cover.
    """

    path: ClassVar[str] = "data"
    kind: Literal["synthetic", "sav", "davis", "tables"] = "synthetic"
    root: str | None = None
    only: tuple[str, ...] = ()
    first_seed: int = setting(1_000_000, low=0)
    num_scenes: int = setting(1_000_000, low=1)
    views: int = setting(1, low=1)
    size: int = setting(288, low=64)
    pictures: str | None = None
    picture_share: float = setting(0.6, low=0.0, high=1.0)
    repeats: int = setting(1, low=1)
    frames: int = setting(8, low=1)
    objects: int = setting(3, low=1)
    batch: int = setting(8, low=1)
    image_batch: int | None = setting(None, low=1)
    image_share: float = setting(0.25, low=0.0, high=1.0)
    image_sizes: tuple[int, ...] = ()
    zoom: float = setting(1.0, low=1.0, high=8.0)
    max_stride: int = setting(3, low=1)
    min_area: float = setting(0.0005, low=0.0, high=1.0)
    augment: bool = True
    loaders: int = setting(2, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kind == "synthetic") != (self.root is None):
            raise ConfigError(f"data.root is {self.root!r}, expected {'none' if self.root else 'a folder'} for {self.kind} data")
        if self.views > 1 and self.kind != "synthetic":
            raise ConfigError(f"data.views is {self.views}, expected 1 for {self.kind} data")
        if self.only and self.kind != "tables":
            raise ConfigError(f"data.only is {list(self.only)}, expected none for {self.kind} data: verdicts are in tables")
        for word in self.only:
            if word not in WORDS:
                raise ConfigError(f"data.only holds {word!r}, expected some of {', '.join(WORDS)}")
        for size in self.image_sizes:
            if size < 128 or size % 32:
                raise ConfigError(f"data.image_sizes holds {size}, expected multiples of 32 from 128 on")


@dataclass(frozen=True)
class PromptSection(Settings):
    """Simulated interaction (SAM 2 paper, section D.2.2).

    A step's first prompts are masks with probability ``mask``, boxes with probability ``box``, else clicks. Clicks and boxes are
    followed by ``corrections`` clicks, on up to ``corrected_frames`` frames. Up to ``conditioning_frames`` frames are prompted.
    With probability ``anywhere`` a correction falls anywhere in the object, and not where the mask is wrong.
    A single picture has with probability ``ground`` a click where there is no object, if that is known (synthetic scenes): the
    masks that come of it are to be thought poor, so that automatic masks are those of objects.
    Where nothing is ``given``, pictures have no prompts, and ``loss.pixels`` is all that they teach.
    """

    path: ClassVar[str] = "prompts"
    given: bool = True
    mask: float = setting(0.5, low=0.0, high=1.0)
    box: float = setting(0.25, low=0.0, high=1.0)
    conditioning_frames: int = setting(2, low=1)
    corrected_frames: int = setting(2, low=1)
    corrections: int = setting(7, low=0)
    anywhere: float = setting(0.1, low=0.0, high=1.0)
    ground: float = setting(0.0, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask + self.box > 1:
            raise ConfigError(f"prompts.mask + prompts.box is {self.mask + self.box}, expected at most 1")


@dataclass(frozen=True)
class LossSection(Settings):
    """Weights of the losses, and the focal loss's two constants.

    ``pixels``: weight of the mask losses of pairs of pixels, which teach the image encoder alone (see `training.pixels`).
    ``doubt`` is how far from certain presence is to be, 0 to 0.5: without any, its logits grow and grow where nearly all objects
    are there. Masks are compared at every pixel of the input, or, with a ``stride`` of 2 or 4, that much coarser, which takes
    less time and memory.
    """

    path: ClassVar[str] = "loss"
    focal: float = setting(20.0, low=0.0)
    dice: float = setting(1.0, low=0.0)
    iou: float = setting(1.0, low=0.0)
    presence: float = setting(1.0, low=0.0)
    pixels: float = setting(0.0, low=0.0)
    doubt: float = setting(0.0, low=0.0, high=0.5)
    focal_alpha: float = setting(0.25, low=0.0, high=1.0)
    focal_gamma: float = setting(2.0, low=0.0)
    stride: int = setting(1, low=1, high=4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride == 3:
            raise ConfigError("loss.stride is 3, expected 1, 2 or 4")


@dataclass(frozen=True)
class OptimSection(Settings):
    """Learning rates (``trunk_lr`` for the image trunk's last block; earlier blocks decay), a linear warm-up and a cosine down to
    ``final`` of the rate, over ``steps`` or, if they are given, over so many ``minutes`` of training.

    ``kind`` adamw is what SAM 2 is trained with; muon (Jordan et al., 2024) makes the steps of weight matrices orthogonal, which
    learns from random weights in fewer steps. Its steps are as large as AdamW's, so the rates mean the same.
    """

    path: ClassVar[str] = "optim"
    kind: Literal["adamw", "muon"] = "adamw"
    steps: int = setting(20_000, low=1)
    minutes: float | None = setting(None, above=0.0)
    lr: float = setting(5e-4, above=0.0)
    trunk_lr: float = setting(5e-4, above=0.0)
    layer_decay: float = setting(0.9, above=0.0, high=1.0)
    weight_decay: float = setting(0.05, low=0.0)
    warmup: int = setting(500, low=0)
    final: float = setting(0.02, low=0.0, high=1.0)
    clip: float = setting(0.1, above=0.0)
    ema: float = setting(0.999, low=0.0, high=1.0)
    ema_ramp: int = setting(10, low=1)


@dataclass(frozen=True)
class RunSection(Settings):
    """Where results go, and how often: a line of the log, a checkpoint, a sheet of pictures (all in steps).

    ``cuda_graphs``: on one GPU, steps are recorded and replayed, which is faster where the model is small. For that all clips
    of a step get as many rows as ``data.objects`` allows. ``prompts.conditioning_frames`` and ``corrected_frames`` of 1 make few
    kinds of steps, and hence few graphs. ``bfloat16``: products in it; by default on a GPU alone, and worth it on CPUs that have
    instructions for it (AVX512-BF16, AMX). ``compile``: the losses are compiled, which a CPU gains from; needs a C++ compiler.
    """

    path: ClassVar[str] = "run"
    output: str = "training"
    seed: int = setting(0, low=0)
    device: str | None = None
    bfloat16: bool | None = None
    compile: bool = False
    cuda_graphs: bool = False
    log_every: int = setting(20, low=1)
    save_every: int = setting(500, low=1)
    pictures_every: int = setting(500, low=1)


@dataclass(frozen=True)
class TrainConfig(Settings):
    """A training run. `TrainConfig.load` reads YAML and overrides.

    ``stages``, if there are any, follow each other: each is a mapping of a ``share`` of the run (they add up to 1), and of
    what is different in it in the sections ``data`` and ``prompts``.
    """

    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    prompts: PromptSection = field(default_factory=PromptSection)
    loss: LossSection = field(default_factory=LossSection)
    optim: OptimSection = field(default_factory=OptimSection)
    run: RunSection = field(default_factory=RunSection)
    stages: tuple[dict, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages and abs(sum(stage.share for stage in self.staged()) - 1) > 1e-6:
            raise ConfigError(f"the shares of stages are {[stage['share'] for stage in self.stages]}, expected a sum of 1")

        if not self.loss.pixels and not all(stage.config.prompts.given for stage in self.staged()):
            raise ConfigError("prompts.given is false and loss.pixels 0, expected something to learn from")
        if self.model.teacher is not None and not self.loss.pixels:
            raise ConfigError(f"model.teacher is {self.model.teacher!r} and loss.pixels 0, expected a weight for what it teaches")

    def staged(self) -> tuple["Stage", ...]:
        """The stages with all their settings; the whole run is one where none are given."""
        return tuple(self._stage(f"stages[{n}]", stage) for n, stage in enumerate(self.stages)) or (Stage(1.0, self),)

    def _stage(self, name: str, values: dict[str, Any]) -> "Stage":
        if unknown := sorted(values.keys() - {"share", "data", "prompts"}):
            raise ConfigError(f"{name} holds {unknown[0]!r}, expected share, data and prompts")
        share = convert(values.get("share"), float, f"{name}.share")
        data = build(DataSection, to_plain(self.data) | (values.get("data") or {}))
        prompts = build(PromptSection, to_plain(self.prompts) | (values.get("prompts") or {}))
        return Stage(share, replace(self, data=data, prompts=prompts, stages=()))

    @classmethod
    def load(cls, file: str | None = None, overrides: Sequence[str] = ()) -> "TrainConfig":
        """Defaults, then the YAML ``file``, then ``key.path=value`` overrides.

        Raises:
            ConfigError: a file that cannot be read, or a setting that does not fit.
        """
        values: dict[str, Any] = {}
        if file is not None:
            try:
                values = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise ConfigError(f"--config {file}: {' '.join(str(error).split())}") from None
            if not isinstance(values, dict):
                raise ConfigError(f"--config {file}: holds {type(values).__name__}, expected a mapping of settings")
        for text in overrides:
            keys, value = parse_override(text)
            put(values, keys, value)
        return build(cls, values)

    def decisive(self) -> dict[str, Any]:
        """What decides the numbers that come out; a run is continued only with the same."""
        plain = to_plain(self)
        del plain["data"]["loaders"]
        plain["run"] = {name: plain["run"][name] for name in ("seed", "bfloat16", "compile", "cuda_graphs")}
        plain["stages"] = {"all": plain["stages"]}
        return plain


@dataclass(frozen=True)
class Stage:
    """A share of a run, from 0 to 1, and the settings that hold in it."""

    share: float
    config: TrainConfig
