"""Synthetic SAM 2 weights made from key names and shapes alone (NumPy only).

    value = offset + scale * n        n = RandomState(crc32(key)).standard_normal(shape)

in float64, C order, rounded to float32 at the end. OFFSET_SCALE is searched from the top for the first pattern found in the key;
a key that none of them matches is either a one-dimensional ".weight" (a normalisation layer: 1 + 0.1 n) or a matrix or kernel
(gain / sqrt(fan_in) * n, gain from GAIN, first match). Two twists: some k_proj weights share the numbers of their q_proj
(ALIAS), so that attention compares like with like, and the two transposed convolutions have nearly the same kernel in their
four sub-pixels, so that masks are not checkerboards.
"""

import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

# pattern, offset, scale
OFFSET_SCALE = (
    (r"positional_encoding_gaussian_matrix$", 0.0, 1.0),
    (r"trunk\.pos_embed$", 0.0, 0.5),
    (r"trunk\.pos_embed_window$", 0.0, 0.1),
    (r"maskmem_tpos_enc$", 0.0, 0.5),
    (r"^no_mem_embed$|^no_mem_pos_enc$|^no_obj_ptr$|^no_obj_embed_spatial$", 0.0, 0.5),
    (r"point_embeddings\.|not_a_point_embed\.|iou_token\.|mask_tokens\.|obj_score_token\.", 0.0, 0.4),
    (r"no_mask_embed\.", 0.0, 0.8),
    (r"\.gamma$", 0.5, 0.1),
    (r"output_hypernetworks_mlps\.\d\.layers\.2\.bias$", -0.25, 0.05),
    (r"mask_downscaling\.0\.bias$", 0.0, 3.0),
    (r"mask_downsampler\.encoder\.0\.bias$", 0.0, 1.0),
    (r"\.bias$", 0.0, 0.05),
)

# pattern, gain
GAIN = (
    (r"^image_encoder\.trunk\..*attn\.qkv", 1.2),
    (r"^memory_attention\..*self_attn\.[qk]_proj", 0.6),
    (r"^memory_attention\..*self_attn\.out_proj", 0.7),
    (r"^memory_attention\..*cross_attn_image\.v_proj", 1.5),
    (r"^memory_attention\..*cross_attn_image\.out_proj", 3.0),
    (r"^memory_encoder\.pix_feat_proj", 0.4),
    (r"^memory_encoder\.mask_downsampler\.encoder\.12", 2.0),
    (r"^memory_encoder\.out_proj", 0.6),
    (r"^sam_mask_decoder\..*token_to_image\.[qk]_proj", 3.0),
    (r"^sam_mask_decoder\..*token_to_image\.out_proj", 4.0),
    (r"^sam_mask_decoder\..*image_to_token\.[qk]_proj", 2.2),
    (r"^sam_mask_decoder\..*image_to_token\.out_proj", 5.0),
    (r"^sam_mask_decoder\..*self_attn\.out_proj", 2.5),
    (r"output_hypernetworks_mlps\.0\.layers\.2", 2.0),
    (r"output_hypernetworks_mlps\.[123]\.layers\.2", 4.0),
    (r"iou_prediction_head\.layers\.2", 6.0),
    (r"pred_obj_score_head\.layers\.2", 10.0),
    (r"", 1.0),
)

# k_proj weights that use the random stream of the q_proj beside them.
ALIAS = r"^(sam_mask_decoder\..*_to_(?:token|image)\.|memory_attention\..*self_attn\.)k_proj\.weight$"
TRANSPOSED = r"^sam_mask_decoder\.output_upscaling\.[03]\.weight$"


def synthetic_tensor(key: str, shape: Sequence[int]) -> np.ndarray:
    """The float32 weight of that key and shape."""
    name = re.sub(ALIAS, r"\1q_proj.weight", key)
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if re.search(TRANSPOSED, key):  # [in, out, 2, 2]
        n = 0.9 * n[:, :, :1, :1] + 0.2 * n
        fan_in = shape[0]
    else:
        fan_in = int(np.prod(shape[1:]))
    for pattern, offset, scale in OFFSET_SCALE:
        if re.search(pattern, key):
            return (offset + scale * n).astype(np.float32)
    if len(shape) == 1:
        return (1.0 + 0.1 * n).astype(np.float32)
    gain = next(g for pattern, g in GAIN if re.search(pattern, key))
    return (gain / np.sqrt(fan_in) * n).astype(np.float32)


def synthetic_state_dict(shapes: Mapping[str, Sequence[int]], overrides: Mapping | None = None) -> dict[str, np.ndarray]:
    """Weights for ``{key: shape}``; ``overrides`` ``{key: numbers}`` replace whole tensors (broadcast to the shape)."""
    weights = {key: synthetic_tensor(key, shape) for key, shape in shapes.items()}
    for key, numbers in (overrides or {}).items():
        weights[key] = np.broadcast_to(np.asarray(numbers, np.float32), weights[key].shape).copy()
    return weights
