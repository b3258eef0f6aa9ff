"""Weights as Hugging Face ``transformers`` names them (``Sam2VideoModel``), renamed to Meta's keys.

The tensors are the same in both; only the names differ, and the four point embeddings, which ``transformers`` stacks.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sam2_pipeline.errors import CheckpointError

_GAUSSIAN = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_POINTS = "prompt_encoder.point_embed.weight"
_DOWNSAMPLER = "memory_encoder.mask_downsampler"

# Tried from the top; the first pattern that begins a key replaces that beginning. What follows goes through _INSIDE.
_BEGINNINGS: tuple[tuple[str, str], ...] = (
    (r"vision_encoder\.backbone\.patch_embed\.projection", "image_encoder.trunk.patch_embed.proj"),
    (r"vision_encoder\.backbone", "image_encoder.trunk"),
    (r"vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv"),
    (r"(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding", _GAUSSIAN),
    (r"prompt_encoder\.mask_embed\.conv1", "sam_prompt_encoder.mask_downscaling.0"),
    (r"prompt_encoder\.mask_embed\.layer_norm1", "sam_prompt_encoder.mask_downscaling.1"),
    (r"prompt_encoder\.mask_embed\.conv2", "sam_prompt_encoder.mask_downscaling.3"),
    (r"prompt_encoder\.mask_embed\.layer_norm2", "sam_prompt_encoder.mask_downscaling.4"),
    (r"prompt_encoder\.mask_embed\.conv3", "sam_prompt_encoder.mask_downscaling.6"),
    (r"prompt_encoder", "sam_prompt_encoder"),
    (r"mask_decoder\.upscale_conv1", "sam_mask_decoder.output_upscaling.0"),
    (r"mask_decoder\.upscale_layer_norm", "sam_mask_decoder.output_upscaling.1"),
    (r"mask_decoder\.upscale_conv2", "sam_mask_decoder.output_upscaling.3"),
    (r"mask_decoder", "sam_mask_decoder"),
    (r"memory_encoder\.mask_downsampler\.final_conv", f"{_DOWNSAMPLER}.encoder.12"),
    (r"memory_encoder\.feature_projection", "memory_encoder.pix_feat_proj"),
    (r"memory_encoder\.projection", "memory_encoder.out_proj"),
    (r"memory_encoder\.memory_fuser", "memory_encoder.fuser"),
    (r"object_pointer_proj", "obj_ptr_proj"),
    (r"temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    (r"memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"no_memory_embedding", "no_mem_embed"),
    (r"no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"no_object_pointer", "no_obj_ptr"),
)

# Three-layer MLPs: transformers counts only the layers between the first and the last.
_DEEP_MLP = re.compile(
    r"(output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head|obj_ptr_proj)\.(proj_in|layers\.0|proj_out)"
)
_DEEP_LAYERS = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}

_INSIDE: tuple[tuple[str, str], ...] = (
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
    (r"\.scale$", ".gamma"),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d?)\.", r".norm\1."),
)


def is_hf_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether these are ``transformers`` keys."""
    return any(key.startswith("vision_encoder.") for key in state)


def meta_key(key: str) -> str:
    """Meta's name of a ``transformers`` key; a key that is not known stays as it is, to be reported as unexpected."""
    for pattern, beginning in _BEGINNINGS:
        key, found = re.subn(rf"^{pattern}(?=\.|$)", beginning, key)
        if found:
            break
    key = re.sub(
        rf"^{re.escape(_DOWNSAMPLER)}\.layers\.(\d)\.(conv|layer_norm)\.",
        lambda m: f"{_DOWNSAMPLER}.encoder.{3 * int(m[1]) + (m[2] == 'layer_norm')}.",
        key,
    )
    key = _DEEP_MLP.sub(lambda m: f"{m[1]}.{_DEEP_LAYERS[m[2]]}", key)
    for pattern, replacement in _INSIDE:
        key = re.sub(pattern, replacement, key)
    return key


def to_meta_layout(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same weights under Meta's keys.

    Raises:
        CheckpointError: the image part alone (``Sam2Model``), or two different tensors for one key.
    """
    if not any(key.startswith("memory_attention.") for key in state):
        raise CheckpointError(
            f"{source} holds a transformers Sam2Model, which is the image part alone, without memory; "
            "expected a Sam2VideoModel, as in the official repositories"
        )
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key == _POINTS and tensor.ndim == 2:
            renamed |= {f"sam_prompt_encoder.point_embeddings.{i}.weight": row[None] for i, row in enumerate(tensor)}
            continue
        name = meta_key(key)
        if name in renamed and not torch.equal(renamed[name], tensor):  # the positional embedding is stored twice
            raise CheckpointError(f"{source} holds two different tensors for {name}; the other one is {key}")
        renamed[name] = tensor
    return renamed
