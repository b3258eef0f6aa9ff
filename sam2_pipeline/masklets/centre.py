"""The centre of a mask: its pixel that lies farthest from its border, which is inside whatever the shape."""

import numpy as np
from scipy.ndimage import distance_transform_edt


def centre(mask: np.ndarray) -> tuple[int, int, float] | None:
    """(x, y, pixels to the nearest pixel outside) of the centre of a bool mask ``[H, W]``; None where it is empty.

    The picture's edge counts as border. Of several such pixels it is the first in reading order.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    depth = distance_transform_edt(np.pad(box, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return left + int(x), top + int(y), float(depth[y, x])
