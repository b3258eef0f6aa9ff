"""``build_sam2`` and its three sisters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sam2_pipeline.compat.base import SAM2Base
from sam2_pipeline.compat.models import from_hub, make_model
from sam2_pipeline.compat.video import SAM2VideoPredictor


def build_sam2(
    config_file: str,
    ckpt_path: str | None = None,
    device: str = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **kwargs: Any,
) -> SAM2Base:
    """A model for `SAM2ImagePredictor` and `SAM2AutomaticMaskGenerator`.

    Args:
        config_file: a config path of the reference (``configs/sam2.1/sam2.1_hiera_t.yaml``) or one of our names.
        ckpt_path: checkpoint; None leaves the weights random, as in the reference.
        kwargs: ``image_size``, the side of the network input; ``model``, a built `Sam2` in the place of ``ckpt_path``. Others are
            ignored, as in the reference.
    """
    arguments = (config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing)
    return SAM2Base(*make_model(*arguments, video=False, **kwargs))


def build_sam2_video_predictor(
    config_file: str,
    ckpt_path: str | None = None,
    device: str = "cuda",
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> SAM2VideoPredictor:
    """A video predictor; arguments as for `build_sam2`. ``vos_optimized`` compiles the image encoder."""
    arguments = (config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing)
    model, options = make_model(*arguments, video=True, **kwargs)
    if vos_optimized:
        model.image_encoder.compile()
    return SAM2VideoPredictor(model, options)


def build_sam2_hf(model_id: str, **kwargs: Any) -> SAM2Base:
    """`build_sam2` by Hugging Face id, such as ``facebook/sam2.1-hiera-large``; weights from the cache or Meta's address."""
    return SAM2Base(*from_hub(model_id, video=False, **kwargs))


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """`build_sam2_video_predictor` by Hugging Face id."""
    return SAM2VideoPredictor(*from_hub(model_id, video=True, **kwargs))
