"""Checkpoints of a run: whole or not at all, whenever it is killed; and the weights that come of it.

Randomness needs no place in them: every step draws from the seed and its own number.
"""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import nn

from sam2_pipeline.errors import CheckpointError, ConfigError, StorageError
from sam2_pipeline.model.weights_file import read_weights
from sam2_pipeline.training.optimizer import Optimizer, SlowCopy
from sam2_pipeline.training.pixels import PixelTeacher
from sam2_pipeline.training.settings import TrainConfig

CHECKPOINT, WEIGHTS, TEACHER = "checkpoint.pt", "weights.safetensors", "teacher.safetensors"


class Reached(NamedTuple):
    """How far a run has come: the step to go on with, clips skipped, steps lost, seconds taken."""

    step: int = 0
    skipped: int = 0
    lost: int = 0
    seconds: float = 0.0


def save(folder: Path, learner: nn.Module, slow: SlowCopy, optimizer: Optimizer, config: TrainConfig, reached: Reached) -> None:
    """Everything that is needed to continue, in place of what was saved before."""
    content = {
        "learner": learner.state_dict(),
        "slow": slow.weights,
        "optimizer": optimizer.state_dict(),
        "settings": config.decisive(),
        "reached": tuple(reached),
    }
    stored = io.BytesIO()
    torch.save(content, stored)
    write_whole(folder / CHECKPOINT, stored.getvalue())


def resume(folder: Path, learner: nn.Module, slow: SlowCopy, optimizer: Optimizer, config: TrainConfig) -> Reached:
    """Continues what was saved, if anything was.

    Raises:
        CheckpointError: the file is damaged.
        ConfigError: it comes of other settings.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return Reached()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        settings, reached = content["settings"], Reached(*content["reached"])
        _check_settings(path, settings, config.decisive())
        learner.load_state_dict(content["learner"])
        slow.load(content["slow"])
        optimizer.load_state_dict(content["optimizer"])
    except ConfigError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(f"{path} cannot be continued: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return reached


def save_weights(folder: Path, slow: SlowCopy, teacher: PixelTeacher | None = None) -> Path:
    """The slow copy in float16, as `load_model` takes it; and the teacher, as `load_teacher` does."""
    if teacher is not None:
        write_whole(folder / TEACHER, safetensors.torch.save({k: t.cpu() for k, t in teacher.state_dict().items()}))
    path = folder / WEIGHTS
    halves = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in slow.weights.items()}
    write_whole(path, safetensors.torch.save(halves))
    return path


def load_teacher(teacher: PixelTeacher, source: str) -> None:
    """Takes over what an earlier run's had learnt, from a path or URL.

    Raises:
        CheckpointError: the file cannot be read, or is of a teacher of another model.
    """
    state = read_weights(source)
    try:
        teacher.load_state_dict(state)
    except RuntimeError as error:
        wanted = {name: list(tensor.shape) for name, tensor in teacher.state_dict().items()}
        found = {name: list(tensor.shape) for name, tensor in list(state.items())[: len(wanted)]}
        raise CheckpointError(f"{source} is no teacher of this model: it holds {found}, expected {wanted}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file at once, and only after the new content is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _check_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for section, values in now.items():
        for key, value in values.items():
            if (found := before[section].get(key)) != value:
                raise ConfigError(
                    f"{path} was made with {section}.{key} = {found!r}, now it is {value!r}; "
                    "continue with the same settings, or train into another folder"
                )
