"""Masklet datasets with SAM 2: segment, track, and turn buckets of videos into Parquet tables.

Names load when they are first used, so that ``import sam2_pipeline`` and the command line's ``--help`` stay fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sam2_pipeline.errors import CheckpointError, ConfigError, PipelineError, StorageError, VideoError
    from sam2_pipeline.io.dataset import MaskletDataset
    from sam2_pipeline.io.decode import open_video
    from sam2_pipeline.io.live import open_stream
    from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame
    from sam2_pipeline.masklets.prompts import Prompt
    from sam2_pipeline.masklets.rle import Rle
    from sam2_pipeline.model.checkpoint import build_model, load_model
    from sam2_pipeline.model.config import MODEL_NAMES
    from sam2_pipeline.model.memory_bank import MemoryRules
    from sam2_pipeline.model.sam2 import Sam2
    from sam2_pipeline.report.card import dataset_card
    from sam2_pipeline.segment.generate_options import GenerateOptions
    from sam2_pipeline.segment.image import ImageSegmenter
    from sam2_pipeline.segment.live import LiveOptions
    from sam2_pipeline.segment.masklet_generator import MaskletGenerator
    from sam2_pipeline.segment.options import TrackingOptions
    from sam2_pipeline.segment.video import VideoSegmenter
    from sam2_pipeline.torch_dataset import TorchMaskletDataset

_HOMES = {
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "GenerateOptions": "segment.generate_options",
    "ImageSegmenter": "segment.image",
    "LiveOptions": "segment.live",
    "MODEL_NAMES": "model.config",
    "Masklet": "masklets.masklet",
    "MaskletDataset": "io.dataset",
    "MaskletFrame": "masklets.masklet",
    "MaskletGenerator": "segment.masklet_generator",
    "MemoryRules": "model.memory_bank",
    "PipelineError": "errors",
    "Prompt": "masklets.prompts",
    "Rle": "masklets.rle",
    "Sam2": "model.sam2",
    "StorageError": "errors",
    "TorchMaskletDataset": "torch_dataset",
    "TrackingOptions": "segment.options",
    "VideoError": "errors",
    "VideoSegmenter": "segment.video",
    "build_model": "model.checkpoint",
    "dataset_card": "report.card",
    "load_model": "model.checkpoint",
    "open_stream": "io.live",
    "open_video": "io.decode",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sam2_pipeline' has no attribute {name!r}")
    return getattr(import_module(f"sam2_pipeline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
