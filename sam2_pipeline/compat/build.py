"""``build_sam2`` and its three sisters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sam2_pipeline.compat.base import SAM2Base
from sam2_pipeline.compat.options import apply_overrides, released_options
from sam2_pipeline.compat.video import SAM2VideoPredictor
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.checkpoint import build_model, load_model
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.tracking import TrackingOptions

_CONFIG_FILE = re.compile(r"(sam2(?:\.1)?_hiera)_(t|s|b\+|l)\.yaml$")
_SIZES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}


def build_sam2(
    config_file: str,
    ckpt_path: str | None = None,
    device: str = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    *,
    image_size: int | None = None,
    model: Sam2 | None = None,
    **ignored: Any,
) -> SAM2Base:
    """A model for `SAM2ImagePredictor` and `SAM2AutomaticMaskGenerator`.

    Args:
        config_file: a config path of the reference (``configs/sam2.1/sam2.1_hiera_t.yaml``) or one of our names.
        ckpt_path: checkpoint; None leaves the weights random, as in the reference.
        model: a built `Sam2` in the place of ``ckpt_path``.
    """
    options = released_options(video=False, postprocessing=apply_postprocessing)
    return SAM2Base(*_build(config_file, ckpt_path, device, mode, hydra_overrides_extra, options, image_size, model))


def build_sam2_video_predictor(
    config_file: str,
    ckpt_path: str | None = None,
    device: str = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    *,
    image_size: int | None = None,
    model: Sam2 | None = None,
    **ignored: Any,
) -> SAM2VideoPredictor:
    """A video predictor; arguments as for `build_sam2`. ``vos_optimized`` compiles the image encoder."""
    options = released_options(video=True, postprocessing=apply_postprocessing)
    built, options = _build(config_file, ckpt_path, device, mode, hydra_overrides_extra, options, image_size, model)
    if vos_optimized:
        built.image_encoder.compile()
    return SAM2VideoPredictor(built, options)


def build_sam2_hf(model_id: str, **kwargs: Any) -> SAM2Base:
    """`build_sam2` by Hugging Face id, such as ``facebook/sam2.1-hiera-large``; weights from the cache or Meta's address."""
    return build_sam2(model_id, model=_from_hub(model_id, kwargs), **kwargs)


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """`build_sam2_video_predictor` by Hugging Face id."""
    return build_sam2_video_predictor(model_id, model=_from_hub(model_id, kwargs), **kwargs)


def _from_hub(model_id: str, kwargs: dict[str, Any]) -> Sam2:
    _, image_size = apply_overrides(TrackingOptions(), kwargs.get("hydra_overrides_extra", ()))
    return load_model(model_id, image_size=kwargs.get("image_size") or image_size, device=kwargs.get("device", "cuda"))


def _build(
    config_file: str,
    ckpt_path: str | None,
    device: str,
    mode: str,
    overrides: Sequence[str],
    options: TrackingOptions,
    image_size: int | None,
    model: Sam2 | None,
) -> tuple[Sam2, TrackingOptions]:
    options, overridden_size = apply_overrides(options, overrides)
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


def model_name(config_file: str) -> str:
    """Our name for one of the reference's config paths; anything else is taken as a name already."""
    match = _CONFIG_FILE.search(str(config_file))
    return f"{match[1]}_{_SIZES[match[2]]}" if match else str(config_file)
