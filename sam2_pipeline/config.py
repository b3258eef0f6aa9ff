"""`JobConfig`: everything a run can be told, validated before any work starts.

Defaults, then the YAML file, then ``--set key.path=value``, then the command line's own options. What decides the results
(model, weights, prompts, how objects are found and tracked, limits) is hashed; what only decides where and how fast (device,
workers, Ray, batch sizes) is not, so a run may be resumed on other machines. Storage options may hold credentials: they are
kept beside the settings, and appear in no dump, hash or repr.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.settings import Settings, build, parse_override, put, setting, to_plain

DEVICES = re.compile(r"cpu|mps|cuda(:\d+)?")
REMOTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*(::|://)")


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which network. ``name`` None is the embedded default, or with a checkpoint the one that its weights are of; see
    ``sam2-pipeline models``, which also tells what ``image_size`` None is, in jobs and in live streams."""

    path: ClassVar[str] = "model"
    name: str | None = None
    checkpoint: str | None = None
    image_size: int | None = setting(None, low=128)
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is not None and self.image_size % 32:
            raise ConfigError(f"model.image_size is {self.image_size}, expected a multiple of 32")
        if self.device is not None and not DEVICES.fullmatch(self.device):
            raise ConfigError(f"model.device is {self.device!r}, expected cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class PromptSettings(Settings):
    """Prompted masklets: the table of prompts, and whether a faulty row stops the run or is left out."""

    path: ClassVar[str] = "prompts"
    file: str | None = None
    on_error: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class GenerateSettings(Settings):
    """Automatic seeds on the first frame: point grids, quality filters, removal of duplicates. ``pred_iou_thresh`` and
    ``stability_score_thresh`` None are what suits the model: 0.8 and 0.95 for the official ones. With an ``agreement_iou`` above
    0, masks are judged by how many points of the grid agree on them, too: points whose masks overlap by that much.
    ``pred_iou_thresh`` then counts for both together, and duplicates are masks that overlap by ``mask_nms_thresh``, not boxes by
    ``box_nms_thresh``."""

    path: ClassVar[str] = "generate"
    points_per_side: int = setting(32, low=1, high=256)
    points_per_batch: int = setting(64, low=1)
    crop_grids: tuple[tuple[int, int], ...] = ((2, 16), (4, 4))
    pred_iou_thresh: float | None = setting(None, low=-1.0, high=1.0)
    stability_score_thresh: float | None = setting(None, low=0.0, high=1.0)
    stability_score_offset: float = setting(1.0, above=0.0)
    agreement_iou: float = setting(0.0, low=0.0, high=1.0)
    mask_nms_thresh: float = setting(0.5, low=0.0, high=1.0)
    box_nms_thresh: float = setting(0.7, low=0.0, high=1.0)
    crop_nms_thresh: float = setting(0.7, low=0.0, high=1.0)
    min_mask_area: int = setting(0, low=0)
    max_mask_share: float = setting(0.95, above=0.0, high=1.0)
    max_objects: int | None = setting(None, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for index, (crops, points) in enumerate(self.crop_grids):
            if not 1 <= crops <= 16 or not 1 <= points <= 256:
                raise ConfigError(
                    f"generate.crop_grids[{index}] is {[crops, points]}, expected [crops_per_side 1..16, points_per_side 1..256]"
                )


@dataclass(frozen=True)
class TrackingSettings(Settings):
    """How objects are followed. ``lanes`` (videos that a worker has in flight, each decoded and tracked by a thread of its own)
    and ``row_batch`` (objects per batch) change speed and memory only. ``backward``: late objects are tracked back too.

    ``memory_iou``: besides the frame before, an object's recent memories are of the last frames on which it was seen with a
    predicted IoU of at least this (0.5, as in SAMURAI), and not of the last frames whatever they showed, as SAM 2 has it (None).
    For videos in which much is hidden or out of the picture for long, and comes back; on others it gains nothing.
    """

    path: ClassVar[str] = "tracking"
    lanes: int = setting(1, low=1)
    row_batch: int = setting(16, low=1)
    backward: bool = True
    memory_iou: float | None = setting(None, low=0.0, high=1.0)
    fill_hole_area: int = setting(8, low=0)
    non_overlapping: bool = False


@dataclass(frozen=True)
class DiscoverSettings(Settings):
    """Objects that appear later. Every ``every_s`` seconds of video (None: never) the picture is searched where no tracked mask
    lies, as the first frame is; what is new is tracked from there in both directions.

    A mask is nothing new if its IoU with a tracked one, or its share inside of a tracked one, is above ``max_overlap``. Tracked
    masks of more than ``surroundings`` of the picture hide nothing: what lies inside of them may be new.
    """

    path: ClassVar[str] = "discover"
    every_s: float | None = setting(None, above=0.0)
    max_overlap: float = setting(0.5, above=0.0, high=1.0)
    surroundings: float = setting(0.4, above=0.0, high=1.0)


@dataclass(frozen=True)
class IdentitySettings(Settings):
    """Which masklets are one object, and which part of another. ``apply``: where discovery may take an object for a new one, or
    always (prompted masklets get parents, but are not merged), or never.

    Automatic masklets with a temporal IoU above ``merge_iou`` (over all frames, or those of the shorter-lived one) are merged:
    the better one stays. ``parent_masklet_id`` is the smallest masklet that holds the share ``part_share`` of this one. None
    switches either off. Objects that were not visible for ``lost_after_s`` seconds are tracked on the discovery's keyframes only,
    until they are visible there again: cheaper, but what they do in between is missed. None: all are tracked on every frame.
    """

    path: ClassVar[str] = "identity"
    apply: Literal["discovering", "always", "never"] = "discovering"
    merge_iou: float | None = setting(0.8, above=0.0, high=1.0)
    part_share: float | None = setting(0.9, above=0.0, high=1.0)
    lost_after_s: float | None = setting(None, low=0.0)


@dataclass(frozen=True)
class CutSettings(Settings):
    """Shot changes. ``split``: they are looked for, no memory crosses them, masklets end there, and objects are looked for anew.
    ``ignore``, as published: the whole video is one shot. ``threshold``: how much more unlike pictures across a cut are than
    neighbours beside it, 0 to 1. ``longest_fade``: frames that a dissolve or a fade may take; 0: only cuts are found."""

    path: ClassVar[str] = "cuts"
    mode: Literal["split", "ignore"] = "ignore"
    threshold: float = setting(0.3, above=0.0, high=1.0)
    longest_fade: int = setting(24, low=0)


@dataclass(frozen=True)
class CleanSettings(Settings):
    """What is too small at the full size, in pixels: connected components of fewer than ``min_component_area`` are removed (the
    largest stays), holes of fewer than ``max_hole_area`` are filled. The SAM 2 data engine took 200 for both; 0 is off."""

    path: ClassVar[str] = "clean"
    min_component_area: int = setting(0, low=0)
    max_hole_area: int = setting(0, low=0)


@dataclass(frozen=True)
class JudgeSettings(Settings):
    """Verdicts on finished masklets: accept, refine or reject. ``enabled`` costs up to two more walks through every video.

    Of each pair of limits, masklets that do worse than the first are rejected, and what does at least as well as the second
    by all of them is accepted; see `masklets.verdict.VerdictRules` for what is measured. On ``reprompt_frames`` frames of a
    video its objects are segmented anew.
    """

    path: ClassVar[str] = "judge"
    enabled: bool = False
    reprompt_frames: int = setting(4, low=1)
    cycle_iou: tuple[float, float] = (0.2, 0.75)
    reprompt_iou: tuple[float, float] = (0.4, 0.85)
    predicted_iou: tuple[float, float] = (0.1, 0.3)
    stability: tuple[float, float] = (0.2, 0.4)
    flicker: tuple[float, float] = (0.5, 0.2)
    max_coverage: float = setting(0.95, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cycle_iou", "reprompt_iou", "predicted_iou", "stability"):
            reject, accept = getattr(self, name)
            if not reject <= accept:
                raise ConfigError(f"judge.{name} is {[reject, accept]}, expected [reject below, accept from], in rising order")
        if not self.flicker[0] >= self.flicker[1]:
            raise ConfigError(f"judge.flicker is {list(self.flicker)}, expected [reject above, accept up to], in falling order")


@dataclass(frozen=True)
class AnnotateSettings(Settings):
    """``fps``: masks are written this often; tracking stays at the native rate. None writes every frame."""

    path: ClassVar[str] = "annotate"
    fps: float | None = setting(None, above=0.0)


@dataclass(frozen=True)
class UnitSettings(Settings):
    """Size of the units of work. None: one video each for small runs, more when there are many thousands."""

    path: ClassVar[str] = "units"
    videos_per_unit: int | None = setting(None, low=1)


@dataclass(frozen=True)
class SourceSettings(Settings):
    """``schemes``: the kinds of URLs that may be fetched; INPUT or a list that names another is refused. ``file`` is a path."""

    path: ClassVar[str] = "sources"
    schemes: tuple[str, ...] = (
        "file",
        "s3",
        "s3a",
        "gs",
        "gcs",
        "az",
        "abfs",
        "abfss",
        "hf",
        "http",
        "https",
        "memory",
        "tar",
        "zip",
    )


@dataclass(frozen=True)
class LimitSettings(Settings):
    """What one video may cost before it gets a failed row: its picture, its length, its bytes (to be fetched), the workers it
    may take down, its time.

    A worker on Ray is killed when a video shows no new frame for ``timeout_s``, or takes longer than ``timeout_s`` and
    ``timeout_per_frame_s`` for each of its frames.
    """

    path: ClassVar[str] = "limits"
    max_pixels: int = setting(8192 * 8192, low=1)
    max_duration_s: float = setting(4 * 3600.0, above=0.0)
    max_bytes: int = setting(64 << 30, low=1)
    max_attempts: int = setting(3, low=1)
    timeout_s: float = setting(1800.0, above=0.0)
    timeout_per_frame_s: float = setting(60.0, above=0.0)


@dataclass(frozen=True)
class RaySettings(Settings):
    """Where work runs: ``local`` starts Ray here, ``auto`` or an address joins a cluster, ``off`` stays in this process.

    There are ``workers`` at most (None: one per GPU there is now, or one), all from the start unless ``min_workers`` says that
    the pool shall grow from and shrink to fewer. With ``gpus_per_worker`` given, workers wait for GPUs that an autoscaling
    cluster has yet to start; otherwise those that are there are shared.
    """

    path: ClassVar[str] = "ray"
    address: str | None = None
    workers: int | None = setting(None, low=1)
    min_workers: int | None = setting(None, low=1)
    gpus_per_worker: float | None = setting(None, above=0.0)

    def __post_init__(self) -> None:
        if self.address is False:  # how YAML reads a bare `off`
            object.__setattr__(self, "address", "off")
        super().__post_init__()
        if self.workers is not None and self.min_workers is not None and self.min_workers > self.workers:
            raise ConfigError(f"ray.min_workers is {self.min_workers}, expected at most ray.workers, {self.workers}")
        share = self.gpus_per_worker
        if share is not None and share > 1 and share != int(share):
            raise ConfigError(f"ray.gpus_per_worker is {share}, expected a share of one GPU, or a whole number")


@dataclass(frozen=True)
class JobConfig(Settings):
    """One run, complete. Build it with :meth:`load`; ``storage_options`` never leaves the process except to its workers."""

    input: str = ""
    output: str = ""
    max_videos: int | None = setting(None, low=1)
    model: ModelSettings = field(default_factory=ModelSettings)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    discover: DiscoverSettings = field(default_factory=DiscoverSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    cuts: CutSettings = field(default_factory=CutSettings)
    clean: CleanSettings = field(default_factory=CleanSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    annotate: AnnotateSettings = field(default_factory=AnnotateSettings)
    units: UnitSettings = field(default_factory=UnitSettings)
    sources: SourceSettings = field(default_factory=SourceSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    storage_options: dict = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.identity.lost_after_s is not None and self.discover.every_s is None:
            raise ConfigError("identity.lost_after_s needs discover.every_s: lost objects are looked for when others are")

    @classmethod
    def load(
        cls,
        file: str | None = None,
        overrides: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "JobConfig":
        """The configuration from a YAML ``file``, ``key.path=value`` overrides, and dotted ``options`` (None: not given)."""
        values = _read_yaml(file) if file else {}
        for override in overrides:
            put(values, *parse_override(override))
        for name, value in (options or {}).items():
            if value is not None:
                put(values, name.split("."), value)
        if "storage_options" in values:
            raise ConfigError(
                "storage_options may hold credentials and are not a setting; use --storage-option or the environment"
            )
        return dataclasses.replace(build(cls, values), storage_options=dict(storage_options or {}))

    @property
    def videos_per_unit(self) -> int | None:
        """As set; else one lane's worth of videos is too little where there are several."""
        return self.units.videos_per_unit or (self.tracking.lanes if self.tracking.lanes > 1 else None)

    def anchored(self) -> "JobConfig":
        """The same with local paths made absolute, so that they mean the same in another process."""
        checkpoint = self.model.checkpoint and _absolute(self.model.checkpoint)
        return dataclasses.replace(
            self,
            input=_absolute(self.input),
            output=_absolute(self.output),
            model=dataclasses.replace(self.model, checkpoint=checkpoint),
            prompts=dataclasses.replace(self.prompts, file=self.prompts.file and _absolute(self.prompts.file)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Every setting as plain data, without the storage options."""
        plain = to_plain(dataclasses.replace(self, storage_options={}))
        del plain["storage_options"]
        return plain

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the results: two runs that agree on them may share an output."""
        plain = self.to_dict()
        for name in ("input", "output", "max_videos", "sources", "units", "ray"):
            del plain[name]
        for name in ("device", "compile", "name", "checkpoint"):  # name and weights: as they were found, not as spelled
            del plain["model"][name]
        for name in ("lanes", "row_batch"):
            del plain["tracking"][name]
        for name in ("max_attempts", "timeout_s", "timeout_per_frame_s"):
            del plain["limits"][name]
        del plain["generate"]["points_per_batch"]
        del plain["prompts"]["file"]  # its content counts
        return plain

    def config_hash(self, *, model: str, weights_sha256: str, prompts_sha256: str | None) -> str:
        """Sixteen hex digits over everything that decides the results."""
        content = {"settings": self.decisive(), "model": model, "weights": weights_sha256, "prompts": prompts_sha256}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def storage_options_for(self, url: str) -> dict[str, Any]:
        """The storage options, if ``url`` is remote: a local path has no use for a bucket's keys."""
        return dict(self.storage_options) if is_remote(url) else {}


def is_remote(url: str) -> bool:
    return bool(REMOTE.match(url)) and not url.startswith(("file://", "local://"))


def parse_storage_option(text: str) -> tuple[list[str], Any]:
    """``key=value`` of ``--storage-option``; dots nest (``client_kwargs.region_name=x``), true and false are booleans."""
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        # the text may be a secret that was pasted alone: do not repeat it
        raise ConfigError("--storage-option: expected key=value, for example --storage-option anon=true")
    return keys, {"true": True, "false": False}.get(value.lower(), value)


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: not valid YAML ({' '.join(str(error).split())})") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"--config {file}: holds {type(values).__name__}, expected a mapping of settings")
    return values or {}


def _absolute(path: str) -> str:
    return path if not path or REMOTE.match(path) else os.path.abspath(os.path.expanduser(path))
