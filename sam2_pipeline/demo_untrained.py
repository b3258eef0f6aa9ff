"""`demo` without weights: random ones, and settings under which they give masklets at all."""

from pathlib import Path
from typing import Any


def untrained(folder: Path) -> dict[str, Any]:
    """Settings of a small model, whose weights are written into ``folder``."""
    weights = folder / "untrained.safetensors"
    save_untrained(weights, "sam2_pipeline_small")
    return {
        "model.name": "sam2_pipeline_small",
        "model.checkpoint": str(weights),
        "model.image_size": 128,
        "generate.points_per_side": 4,
        "generate.crop_grids": [],
        "generate.pred_iou_thresh": 0.0,
        "generate.stability_score_thresh": 0.5,
        "generate.max_mask_share": 1.0,
        "generate.max_objects": 4,
    }


def save_untrained(path: Path, name: str) -> None:
    """Random weights, always the same, with mask logits of a usual size and objects that count as present."""
    import torch
    from safetensors.torch import save_file

    from sam2_pipeline.model.checkpoint import build_model

    torch.manual_seed(0)
    weights = build_model(name).state_dict()
    for key, tensor in weights.items():
        if "output_hypernetworks_mlps" in key and ".layers.2." in key:
            tensor *= 60
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += 5
    save_file(weights, path)
