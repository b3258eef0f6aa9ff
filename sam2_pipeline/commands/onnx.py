"""What `export-onnx` does."""

import argparse
from typing import Any

from sam2_pipeline.commands.shared import format_bytes
from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.config import find_config

_OBJECTS = 3
_SEED = 11


def export_onnx(options: argparse.Namespace) -> int:
    from sam2_pipeline.model.checkpoint import load_model
    from sam2_pipeline.onnx.export import export_onnx

    if options.frames < 0:
        raise ConfigError(f"--frames is {options.frames}, expected 0 (do not compare) or more")
    name, checkpoint = named(options.model, options.checkpoint)
    model = load_model(name, checkpoint=checkpoint, image_size=options.image_size, device="cpu")
    for path in export_onnx(model, options.destination, options.precision):
        if not options.quiet:
            print(f"{format_bytes(path.stat().st_size):>10}  {path}")
    if options.frames:
        _compare(model, options)
    return 0


def named(model: str, checkpoint: str | None) -> tuple[str | None, str | None]:
    """(model name, checkpoint) of MODEL_OR_CHECKPOINT and --checkpoint: what is no model's name is where weights are."""
    try:
        return find_config(model).name, checkpoint
    except ConfigError as error:
        if checkpoint is not None:
            raise
        if not any(sign in model for sign in "/.:"):  # a misspelt name, more likely than a file
            raise CheckpointError(f"{error}; nor is it a file's name or a URL") from error
        return None, model


def _compare(model: Any, options: argparse.Namespace) -> None:
    """Both models on a synthetic scene of the model's size."""
    from sam2_pipeline.onnx.agreement import measure_agreement
    from sam2_pipeline.training.synthetic import SceneOptions, make_scene

    side = model.config.image_size
    scene = make_scene(
        _SEED, SceneOptions(size=(side, side), frames=options.frames, objects=(_OBJECTS, _OBJECTS), late=0, parts=0)
    )
    frames = [scene.frame(t) for t in range(options.frames)]
    agreement = measure_agreement(model, options.destination, frames, scene.masks(0)[:_OBJECTS])
    if not options.quiet:
        print(f"\n{options.precision} beside PyTorch in float32, {_OBJECTS} objects, synthetic scene of {options.frames} frames:")
        for task, figures in agreement.items():
            print(f"  {task}  {figures}")
