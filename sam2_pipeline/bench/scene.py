"""What every contestant is given: the same weights, made from a seed when there is no checkpoint, and the same pictures."""

import re
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

_NUM_DISCS = 8
# Weights are gain / sqrt(fan-in) * normal. Gain 1 throughout makes masks of one sign and attention that looks nowhere; these
# parts speak louder, so that masks have shapes, follow the clicks, and depend on the memories. First match wins.
_GAINS = (
    (r"mask_decoder.*_to_(token|image)\.[qk]_proj", 2.5),
    (r"mask_decoder.*_to_(token|image)\.out_proj", 4.0),
    (r"memory_attention.*cross_attn_image\.out_proj", 3.0),
    (r"hypernetworks_mlps\.\d\.layers\.2", 3.0),
    (r"", 1.0),
)


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights for the keys of a state dict that make plausible masks: parts of a picture, of objects that are present."""
    return {key: _random_tensor(key, shape) for key, shape in shapes.items()}


def _random_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    # Queries and keys that read the picture share their numbers: like then attends to like.
    stream = re.sub(r"(mask_decoder.*_to_(?:token|image)\.)k_proj", r"\1q_proj", key)
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(stream.encode())))
    if re.search(r"embed|_tokens?\.weight|_pos_enc|tpos|no_obj_ptr", key) and "patch_embed" not in key:
        return 0.5 * normal
    if key.endswith("gaussian_matrix"):
        return normal
    if key.endswith("pred_obj_score_head.layers.2.bias"):
        return normal.abs() + 10  # objects are there
    if key.endswith("iou_prediction_head.layers.2.bias"):
        # One mask is rated well above the others: the choice must not hang on rounding, which differs between contestants.
        return torch.tensor([0.0, 2.0, 0.0, -2.0])
    if key.endswith("gamma"):
        return 0.5 + 0.1 * normal
    if key.endswith("bias"):
        return 0.05 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal  # the scale of a norm
    fan_in = shape[0] if "output_upscaling" in key else normal[0].numel()
    gain = next(gain for pattern, gain in _GAINS if re.search(pattern, key))
    return gain / fan_in**0.5 * normal


def moving_discs(num_frames: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """RGB pictures, uint8 ``[height, width, 3]``: textured discs that drift before a background of waves."""
    centres, radii, colours = _discs(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = 0.5 + 0.2 * np.sin(9 * x + 5 * y)[..., None] * np.array([1.0, 0.6, -0.8])
    pictures = []
    for frame in range(num_frames):
        picture = waves.copy()
        for (cx, cy), radius, colour in zip(_drifted(centres, frame, height / width), radii, colours):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            picture[inside] = colour + 0.1 * np.sin(120 * (x - cx)[inside, None])
        pictures.append((picture.clip(0, 1) * 255).astype(np.uint8))
    return pictures


def clicks(num_objects: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """One click per object, pixels (x, y) ``[num_objects, 2]``: the discs' centres on frame 0, then points near them."""
    centres = _drifted(_discs(seed)[0], 0, height / width)
    points = [centres[i % _NUM_DISCS] + 0.02 * (i // _NUM_DISCS) for i in range(num_objects)]
    return np.clip(np.array(points) * max(height, width), 0, (width - 1, height - 1))


def _discs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centres ``[8, 2]`` as shares of the sides, radii ``[8]`` as shares of the longer side, colours ``[8, 3]``)."""
    random = np.random.default_rng(seed)
    cells = np.array([(i % 4, i // 4) for i in range(_NUM_DISCS)])
    centres = (cells + random.uniform(0.3, 0.7, cells.shape)) / (4, 2)
    return centres, random.uniform(0.05, 0.12, _NUM_DISCS), random.uniform(0, 1, (_NUM_DISCS, 3))


def _drifted(centres: np.ndarray, frame: int, aspect: float) -> np.ndarray:
    phase = 0.3 * frame + np.arange(_NUM_DISCS)[:, None]
    return (centres + 0.03 * np.concatenate((np.sin(phase), np.cos(phase)), axis=1)) * (1, aspect)
