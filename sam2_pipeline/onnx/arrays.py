"""What PyTorch does elsewhere, in NumPy: resizing, small holes, bfloat16."""

from functools import lru_cache

import numpy as np
from scipy import ndimage, sparse

from sam2_pipeline.model.conventions import PIXEL_MEAN, PIXEL_STD


def resize_maps(maps: np.ndarray, size: tuple[int, int], antialias: bool = False) -> np.ndarray:
    """Bilinear resizing of ``[..., H, W]`` in float32, pixel centres aligned as everywhere in SAM 2."""
    *leading, H, W = maps.shape
    h, w = size
    if (h, w) == (H, W):
        return maps.astype(np.float32)
    flat = maps.astype(np.float32).reshape(-1, H, W)
    rows = _weights(H, h, antialias) @ flat.transpose(1, 0, 2).reshape(H, -1)
    columns = _weights(W, w, antialias) @ rows.reshape(h, -1, W).transpose(2, 1, 0).reshape(W, -1)
    return np.ascontiguousarray(columns.reshape(w, -1, h).transpose(1, 2, 0)).reshape(*leading, h, w)


@lru_cache(maxsize=32)
def _weights(before: int, after: int, antialias: bool) -> sparse.csr_array:
    """``[after, before]``: the share that each old pixel has in each new one, a triangle around the new one's centre.

    With ``antialias`` the triangle is as wide as a new pixel, where that is larger than an old one.
    """
    scale = before / after
    reach = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(after) + 0.5) * scale - 0.5
    nearby = np.floor(centre)[:, None] + np.arange(-int(reach) - 1, int(reach) + 3)
    share = np.clip(1 - np.abs(nearby - centre[:, None]) / reach, 0, None) * ((nearby >= 0) & (nearby < before))
    share /= share.sum(axis=1, keepdims=True)
    new = np.broadcast_to(np.arange(after)[:, None], nearby.shape)
    kept = share > 0
    entries = share[kept].astype(np.float32), (new[kept], nearby[kept].astype(np.int64))
    return sparse.csr_array(entries, shape=(after, before))


def normalise(images: np.ndarray) -> np.ndarray:
    """RGB in 0..1 (float) or 0..255 (uint8), ``[..., 3, H, W]``, to the zero-mean unit-variance input of the network."""
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (PIXEL_MEAN, PIXEL_STD))
    scaled = images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)
    return (scaled - mean) / std


def fill_holes(logits_NHW: np.ndarray, max_area: int, level: float = 0.0, value: float = 0.1) -> np.ndarray:
    """8-connected background components (logit <= ``level``) of at most ``max_area`` pixels get the logit ``value``."""
    if max_area <= 0:
        return logits_NHW
    filled = logits_NHW.copy()
    for logits_HW in filled:
        numbers, _ = ndimage.label(logits_HW <= level, structure=np.ones((3, 3)))
        small = np.bincount(numbers.ravel()) <= max_area
        small[0] = False  # the object itself
        logits_HW[small[numbers]] = value
    return filled


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float32)))


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Numbers that bfloat16 holds exactly, as the 16 bits that matter (NumPy has no such type)."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)
