"""The files of an exported model, one a network, and what they say about themselves. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sam2_pipeline.errors import CheckpointError
from sam2_pipeline.model.config import ModelConfig, TrunkConfig

PARTS = ("image_encoder", "mask_decoder", "mask_prompt", "memory_attention", "memory_encoder")
PRECISIONS = ("fp32", "fp16", "int8")
_PREFIX = "sam2_pipeline."
_FORMAT = "1"  # raised when names, shapes or meanings of inputs and outputs change


def part_path(folder: str | Path, part: str) -> Path:
    return Path(folder) / f"{part}.onnx"


@dataclass(frozen=True, slots=True)
class Facts:
    """What every file of an exported model holds as metadata, besides the name of its part."""

    config: ModelConfig
    precision: str
    weights_sha256: str
    package_version: str
    licence: str

    def to_metadata(self, part: str) -> dict[str, str]:
        texts = asdict(self) | {"config": json.dumps(asdict(self.config)), "part": part, "format": _FORMAT}
        return {_PREFIX + key: str(value) for key, value in texts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> Facts:
        """What a file says of itself.

        Raises:
            CheckpointError: it is none of ours, of another format, or another part than its name says.
        """
        found = {key.removeprefix(_PREFIX): text for key, text in metadata.items() if key.startswith(_PREFIX)}
        if found.pop("format", None) != _FORMAT or found.pop("part", None) != path.stem:
            raise CheckpointError(f"{path}: expected {path.stem} in format {_FORMAT}, as `sam2-pipeline export-onnx` writes it")
        return cls(config=_parse_config(json.loads(found.pop("config"))), **found)


def _parse_config(fields: dict[str, Any]) -> ModelConfig:
    trunk: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.pop("trunk").items()
    }
    return ModelConfig(trunk=TrunkConfig(**trunk), **fields)
