"""Our models with the synthetic weights of the golden cases."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from golden.goldens import state_dict_shapes
from golden.synthetic_weights import synthetic_state_dict

from sam2_pipeline.model.config import find_config
from sam2_pipeline.model.sam2 import Sam2


@lru_cache(maxsize=2)
def _weights(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in synthetic_state_dict(state_dict_shapes(name)).items()}


def synthetic_model(name: str = "sam2.1_hiera_tiny", image_size: int = 256, overrides: Mapping[str, Any] | None = None) -> Sam2:
    """The model of that name and input size with synthetic weights, float32, in eval mode.

    ``overrides`` ``{key: numbers}`` replace whole tensors. The other weights are shared between calls: do not change them.
    """
    overrides = overrides or {}
    shapes = state_dict_shapes(name)
    replaced = synthetic_state_dict({key: shapes[key] for key in overrides}, overrides)
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = Sam2(find_config(name, image_size))
    weights = _weights(name) | {key: torch.from_numpy(value) for key, value in replaced.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()


def model_of(meta: Mapping[str, Any]) -> Sam2:
    """The model that a case's ``meta`` asks for."""
    return synthetic_model(meta["model"], meta["image_size"], meta["weight_overrides"])
