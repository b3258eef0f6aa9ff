"""Weights of no training under which a network answers as a trained one does in form: objects are there, masks have outlines."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from sam2_pipeline.model.checkpoint import build_model
from sam2_pipeline.model.sam2 import Sam2


def save_random_weights(path: Path, name: str = "sam2_pipeline_small") -> Path:
    """Always the same ones."""
    torch.manual_seed(0)
    state = build_model(name).state_dict()
    enliven(state)
    save_file(state, path)
    return path


def small_random_model(image_size: int) -> Sam2:
    """Our small model with such weights, always the same ones."""
    torch.manual_seed(0)
    model = build_model("sam2_pipeline_small", image_size=image_size)
    with torch.no_grad():
        enliven(model.state_dict())
    return model


def enliven(state: dict[str, torch.Tensor]) -> None:
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 5
    for key, tensor in state.items():
        if "output_hypernetworks_mlps" in key and ".layers.2." in key:
            tensor *= 60
