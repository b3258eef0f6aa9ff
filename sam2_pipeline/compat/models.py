"""Which of our models, with which options, the reference's builder arguments mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sam2_pipeline.compat.options import apply_overrides, released_options
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.checkpoint import build_model, load_model
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.options import TrackingOptions

_CONFIG_FILE = re.compile(r"(sam2(?:\.1)?_hiera)_(t|s|b\+|l)(?:\.yaml)?$")
_SIZES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}


def model_name(config_file: str) -> str:
    """Our name for one of the reference's config paths; anything else is taken as a name already."""
    match = _CONFIG_FILE.search(str(config_file))
    return f"{match[1]}_{_SIZES[match[2]]}" if match else str(config_file)


def make_model(
    config_file: str,
    ckpt_path: str | None = None,
    device: str = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    video: bool,
    image_size: int | None = None,
    model: Sam2 | None = None,
    **ignored: Any,
) -> tuple[Sam2, TrackingOptions]:
    """The model on its device, and its options. ``model`` takes the place of ``ckpt_path``; neither gives random weights."""
    released = released_options(video=video, postprocessing=apply_postprocessing)
    options, overridden_size = apply_overrides(released, hydra_overrides_extra)
    image_size = image_size or overridden_size
    name = model_name(config_file)
    if model is not None:
        if ckpt_path is not None:
            raise ConfigError("both ckpt_path and model were given, expected at most one")
        model = model.to(device)
    elif ckpt_path is not None:
        model = load_model(name, checkpoint=ckpt_path, image_size=image_size, device=device)
    else:
        model = build_model(name, image_size=image_size, device=device)
    return model.train(mode != "eval"), options


def from_hub(model_id: str, *, video: bool, device: str = "cuda", **kwargs: Any) -> tuple[Sam2, TrackingOptions]:
    """`make_model` with the weights of a Hugging Face id, from the cache or from Meta's address."""
    _, overridden_size = apply_overrides(TrackingOptions(), kwargs.get("hydra_overrides_extra", ()))
    model = load_model(model_id, image_size=kwargs.get("image_size") or overridden_size, device=device)
    return make_model(model_id, device=device, model=model, video=video, **kwargs)
