"""The reference's ``++model...`` override strings as `TrackingOptions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.memory_bank import MemoryRules
from sam2_pipeline.segment.options import TrackingOptions

_DECODER = "sam_mask_decoder_extra_args."
# The reference's names: (part of our options, field).
_FIELDS = {
    "max_cond_frames_in_attn": ("memory", "max_conditioning_frames"),
    "memory_temporal_stride_for_eval": ("memory", "stride"),
    "only_obj_ptrs_in_the_past_for_eval": ("memory", "only_past_pointers"),
    _DECODER + "dynamic_multimask_via_stability": ("decoding", "dynamic_multimask"),
    _DECODER + "dynamic_multimask_stability_delta": ("decoding", "stability_offset"),
    _DECODER + "dynamic_multimask_stability_thresh": ("decoding", "stability_threshold"),
    "soft_no_obj_ptr": ("decoding", "soft_pointer"),
    "binarize_mask_from_pts_for_mem_enc": (None, "binarise_prompted"),
    "fill_hole_area": (None, "fill_hole_area"),
    "non_overlap_masks": (None, "non_overlapping"),
    "add_all_frames_to_correct_as_cond": (None, "corrections_condition"),
    "clear_non_cond_mem_around_input": (None, "forget_around_corrections"),
}
# Options whose released value is the only one that the released weights and this implementation know. The last one has no
# effect in the reference either: its video predictor encodes the memory of one object at a time.
_FIXED = {
    "num_maskmem": 7, "sigmoid_scale_for_mem_enc": 20.0, "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True, "directly_add_no_mem_embed": True, "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True, "multimask_output_for_tracking": True, "use_multimask_token_for_obj_ptr": True,
    "iou_prediction_use_sigmoid": True, "use_obj_ptrs_in_encoder": True, "max_obj_ptrs_in_encoder": 16,
    "pred_obj_scores": True, "pred_obj_scores_mlp": True, "fixed_no_obj_ptr": True, "use_mlp_for_obj_ptr_proj": True,
    "compile_image_encoder": False, "non_overlap_masks_for_mem_enc": None,
}  # fmt: skip


def released_options(*, video: bool, postprocessing: bool) -> TrackingOptions:
    """The reference's behaviour after its builder ran with ``apply_postprocessing``."""
    return TrackingOptions(
        decoding=DecodingRules(dynamic_multimask=postprocessing),
        binarise_prompted=video and postprocessing,
        fill_hole_area=8 if video and postprocessing else 0,
        corrections_condition=False,
        own_timeline=False,
        history_frames=None,
    )


def apply_overrides(options: TrackingOptions, overrides: Sequence[str]) -> tuple[TrackingOptions, int | None]:
    """(options, image size if overridden). What a user asks for wins over ``apply_postprocessing``.

    Raises:
        ConfigError: not a ``++model.key=value`` string, or an option that has no such value here.
    """
    image_size = None
    changes: dict[str | None, dict[str, Any]] = {"memory": {}, "decoding": {}, None: {}}
    points = list(options.decoding.multimask_points)
    for text in overrides:
        key, separator, raw = text.lstrip("+").partition("=")
        name = key.removeprefix("model.")
        value: Any = yaml.safe_load(raw) if separator else None
        if name == key or not separator:
            raise ConfigError(f"override {text!r} is not understood, expected the form '++model.key=value'")
        if name == "image_size":
            image_size = int(value)
        elif name in ("multimask_min_pt_num", "multimask_max_pt_num"):
            points[name == "multimask_max_pt_num"] = int(value)
        elif name in _FIELDS:
            part, field = _FIELDS[name]
            changes[part][field] = value
        elif name == "_target_" or (name in _FIXED and _FIXED[name] in (value, None)):
            continue
        else:
            known = ", ".join([*_FIELDS, "image_size", "multimask_min_pt_num", "multimask_max_pt_num"])
            raise ConfigError(f"override {text!r} is not supported; supported options: {known}")
    memory: MemoryRules = replace(options.memory, **changes["memory"])
    decoding = replace(options.decoding, multimask_points=(points[0], points[1]), **changes["decoding"])
    return replace(options, memory=memory, decoding=decoding, **changes[None]), image_size
