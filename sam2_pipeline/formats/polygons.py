"""Masks as polygons."""

from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from scipy.spatial import cKDTree


def outline_polygon(mask: np.ndarray) -> np.ndarray:
    """One closed polygon around a bool mask ``[H, W]``: float64 ``[P, 2]``, (x, y) in pixels, a pixel's centre at .5.

    An empty mask gives no points.

    It runs between the pixels, so that a centre is inside (by the even-odd rule) where the mask is. Holes and further pieces
    hang on the outer line by seams without width, since one polygon is all that some formats have for an object.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2))
    top, left = rows[0], columns[0]
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    filled: Any = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    points, offsets = filled
    rings = [
        _without_straights(piece[start : stop - 1])  # the last point is the first one again
        for piece, ends in zip(points, offsets)
        for start, stop in pairwise(ends)
    ]
    joined = rings[0]
    for ring in rings[1:]:
        joined = _join(joined, ring)
    return joined + np.array([left - 0.5, top - 0.5])  # the padding's pixel, less the half by which centres lie inside of theirs


def _without_straights(ring: np.ndarray) -> np.ndarray:
    """A ring less the points on the straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _join(path: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """The path with a way to the ring, around it and back, where the two are nearest."""
    distances, places = cKDTree(path).query(ring)
    j = int(distances.argmin())
    i = int(places[j])
    return np.concatenate([path[: i + 1], np.roll(ring, -j, axis=0), ring[j : j + 1], path[i:]])
