"""Deterministic pictures, masks and feature maps for the golden cases (NumPy only, float64 inside).

Every random draw comes from numpy.random.RandomState, whose stream is frozen, so the pictures are the same with every NumPy.
"""

from collections.abc import Iterable, Sequence

import numpy as np

MEAN = (0.485, 0.456, 0.406)  # RGB, on the 0..1 scale
STD = (0.229, 0.224, 0.225)
N_BLOBS = 6

Hidden = Iterable[tuple[int, int, int]]


def _scene(seed: int) -> dict[str, np.ndarray]:
    """All the random numbers of a scene, drawn in one fixed order."""
    r = np.random.RandomState(seed)
    return {
        "bg_level": r.uniform(0.25, 0.65, 3),
        "bg_amp": r.uniform(0.08, 0.22, 3),
        "bg_fx": r.uniform(-1.6, 1.6, 3),
        "bg_fy": r.uniform(-1.6, 1.6, 3),
        "bg_ph": r.uniform(0.0, 2 * np.pi, 3),
        "cx": r.uniform(0.18, 0.82, N_BLOBS),
        "cy": r.uniform(0.18, 0.82, N_BLOBS),
        "ax": r.uniform(0.05, 0.22, N_BLOBS),
        "ay": r.uniform(0.05, 0.22, N_BLOBS),
        "wx": r.uniform(0.10, 0.45, N_BLOBS),
        "wy": r.uniform(0.10, 0.45, N_BLOBS),
        "px": r.uniform(0.0, 2 * np.pi, N_BLOBS),
        "py": r.uniform(0.0, 2 * np.pi, N_BLOBS),
        "rx": r.uniform(0.07, 0.20, N_BLOBS),
        "ry": r.uniform(0.07, 0.20, N_BLOBS),
        "soft": r.uniform(8.0, 30.0, N_BLOBS),
        "color": r.uniform(0.0, 1.0, (N_BLOBS, 3)),
        "tex_amp": r.uniform(0.0, 0.15, N_BLOBS),
        "tex_fx": r.uniform(4.0, 14.0, N_BLOBS),
        "tex_fy": r.uniform(4.0, 14.0, N_BLOBS),
    }


def _pixel_centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of the pixel centres as fractions of width and height, ``[1, W]`` and ``[H, 1]``."""
    u = (np.arange(width, dtype=np.float64) + 0.5) / width
    v = (np.arange(height, dtype=np.float64) + 0.5) / height
    return u[None, :], v[:, None]


def blob_centre(seed: int, blob: int, t: int) -> tuple[float, float]:
    """(u, v) of the centre of a blob on frame t, as fractions of width and height."""
    s = _scene(seed)
    u = s["cx"][blob] + s["ax"][blob] * np.sin(s["wx"][blob] * t + s["px"][blob])
    v = s["cy"][blob] + s["ay"][blob] * np.cos(s["wy"][blob] * t + s["py"][blob])
    return float(u), float(v)


def synthetic_frame(t: int, height: int, width: int, seed: int = 0, hide: Hidden = ()) -> np.ndarray:
    """RGB picture of frame t, uint8 ``[height, width, 3]``: soft textured ellipses before a wavy background.

    ``hide``: (blob, first, last): the blob is not painted while first <= t <= last; blob -1 hides all the blobs.
    """
    s = _scene(seed)
    u, v = _pixel_centres(height, width)
    img = np.empty((height, width, 3), dtype=np.float64)
    for c in range(3):
        phase = 2 * np.pi * (s["bg_fx"][c] * u + s["bg_fy"][c] * v) + s["bg_ph"][c] + 0.03 * t
        img[..., c] = s["bg_level"][c] + s["bg_amp"][c] * np.sin(phase)
    for k in range(N_BLOBS):
        if any(b in (k, -1) and first <= t <= last for b, first, last in hide):
            continue
        cu, cv = blob_centre(seed, k, t)
        d = np.sqrt(((u - cu) / s["rx"][k]) ** 2 + ((v - cv) / s["ry"][k]) ** 2)
        alpha = 1.0 / (1.0 + np.exp(np.clip(s["soft"][k] * (d - 1.0), -60.0, 60.0)))
        texture = s["tex_amp"][k] * np.sin(2 * np.pi * (s["tex_fx"][k] * (u - cu) + s["tex_fy"][k] * (v - cv)))
        for c in range(3):
            img[..., c] = (1.0 - alpha) * img[..., c] + alpha * (s["color"][k, c] + texture)
    return np.floor(np.clip(img, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def normalise(frame: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W, 3]`` to float32 ``[3, H, W]``: x/255 in float64, rounded to float32, then mean and std in float32."""
    x = (frame / 255.0).astype(np.float32).transpose(2, 0, 1)
    x = x - np.array(MEAN, np.float32)[:, None, None]
    x = x / np.array(STD, np.float32)[:, None, None]
    return np.ascontiguousarray(x)


def synthetic_video(n_frames: int, size: int, seed: int = 0, hide: Hidden = ()) -> np.ndarray:
    """What the network gets, float32 ``[n_frames, 3, size, size]``; painted at that size, so no resizing is involved."""
    return np.stack([normalise(synthetic_frame(t, size, size, seed, hide)) for t in range(n_frames)])


def synthetic_mask(height: int, width: int, seed: int = 0, blob: int = 0, t: int = 0, scale: float = 1.0) -> np.ndarray:
    """The ellipse of one blob with a hard edge, bool ``[height, width]``."""
    s = _scene(seed)
    cu, cv = blob_centre(seed, blob, t)
    u, v = _pixel_centres(height, width)
    return np.sqrt(((u - cu) / s["rx"][blob]) ** 2 + ((v - cv) / s["ry"][blob]) ** 2) < scale


def smooth_noise(shape: Sequence[int], seed: int, cells: int = 4, amplitude: float = 1.0) -> np.ndarray:
    """Smooth float32 maps or logits: a coarse normal grid enlarged bilinearly over the last two axes, edges clamped."""
    r = np.random.RandomState(seed)
    h, w = shape[-2:]
    g = r.standard_normal((*shape[:-2], cells, cells))

    def index(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.clip((np.arange(n) + 0.5) * cells / n - 0.5, 0, cells - 1)
        low = np.minimum(np.floor(x).astype(int), cells - 2)
        return low, x - low

    (yl, yf), (xl, xf) = index(h), index(w)
    rows = g[..., yl, :] * (1 - yf)[:, None] + g[..., yl + 1, :] * yf[:, None]
    out = rows[..., :, xl] * (1 - xf) + rows[..., :, xl + 1] * xf
    return (amplitude * out).astype(np.float32)
