"""J and F of one mask against the true one.

J is intersection over union. F compares outlines: the share of the predicted outline within a few pixels of the true one,
and the other way round, as a harmonic mean. Both are computed inside the box that holds the two masks, which changes nothing.
"""

import math

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import Rle, iou

TOLERANCE = 0.008  # how far outlines may lie apart, as a share of the picture's diagonal


def j_and_f(predicted: Rle, true: Rle) -> tuple[float, float]:
    """(J, F) of one mask, both 0..1; two empty masks agree: (1, 1).

    Raises:
        ConfigError: the masks differ in size.
    """
    if (predicted.height, predicted.width) != (true.height, true.width):
        sizes = f"{predicted.height}x{predicted.width}, the true one {true.height}x{true.width}"
        raise ConfigError(f"the predicted mask is {sizes} (height x width), expected one size")
    box = _common_box(predicted, true)
    if box is None:
        return 1.0, 1.0
    p, t = _crop(predicted, box), _crop(true, box)
    union = np.count_nonzero(p | t)
    j = np.count_nonzero(p & t) / union
    return j, 1.0 if j == 1 else _boundary_f(p, t, outline_radius(true.height, true.width))


def jaccard(predicted: Rle, true: Rle) -> float:
    """J alone, which is faster."""
    return float(iou([predicted], [true])[0, 0]) if predicted.area or true.area else 1.0


def outline_radius(height: int, width: int) -> int:
    """Pixels that outlines may lie apart in a picture of this size."""
    return math.ceil(TOLERANCE * float(np.linalg.norm((height, width))))


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a bool mask ``[H, W]`` that differ from their right, lower or lower right neighbour, bool ``[H, W]``.

    A pixel of the last row has a right neighbour alone, one of the last column a lower one, and the corner none.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel at most ``radius`` from one of a sparse bool mask ``[H, W]``.

    Each pixel paints a disc of ``2 radius + 1`` rows; a row of the disc is where it begins and where it ends, and a running
    sum over all of them fills in between. So it costs by the outline's length, where a convolution would by the disc's area.
    """
    height, width = mask.shape
    dy = np.arange(-radius, radius + 1)
    half = np.array([math.isqrt(radius**2 - y**2) for y in dy.tolist()])
    y, x = np.nonzero(mask)
    rows = y[:, None] + dy
    inside = (rows >= 0) & (rows < height)
    row_starts = rows * (width + 1)
    begins = (row_starts + np.maximum(x[:, None] - half, 0))[inside]
    ends = (row_starts + np.minimum(x[:, None] + half + 1, width))[inside]
    cells = height * (width + 1)
    changes = np.bincount(begins, minlength=cells) - np.bincount(ends, minlength=cells)
    return np.cumsum(changes).reshape(height, width + 1)[:, :width] > 0


def _boundary_f(predicted: np.ndarray, true: np.ndarray, radius: int) -> float:
    p, t = outline(predicted), outline(true)
    number_p, number_t = np.count_nonzero(p), np.count_nonzero(t)
    if not number_p or not number_t:  # a mask that is empty or fills the picture has no outline
        return float(number_p == number_t)
    precision = np.count_nonzero(p & dilate(t, radius)) / number_p
    recall = np.count_nonzero(t & dilate(p, radius)) / number_t
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _common_box(a: Rle, b: Rle) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) around both masks and one pixel more on each side, which outlines reach into; None where
    both are empty."""
    boxes = [box for box in (a.bbox_xywh, b.bbox_xywh) if box[2]]
    if not boxes:
        return None
    x, y, w, h = np.array(boxes).astype(int).T
    top, left = max(int(y.min()) - 1, 0), max(int(x.min()) - 1, 0)
    return top, min(int((y + h).max()) + 1, a.height), left, min(int((x + w).max()) + 1, a.width)


def _crop(rle: Rle, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of a mask, bool; only its columns are decoded."""
    top, bottom, left, right = box
    edges = np.clip(np.concatenate([[0], np.cumsum(rle.runs())]), left * rle.height, right * rle.height)
    lengths = np.diff(edges)
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(right - left, rle.height)
    return np.ascontiguousarray(columns.T[top:bottom])
