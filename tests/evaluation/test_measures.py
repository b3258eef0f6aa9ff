"""J and F against a second implementation, written from the definitions: loops over pixels, distances from scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation.measures import dilate, j_and_f, outline, outline_radius
from sam2_pipeline.masklets.rle import encode

SIDES = st.integers(1, 24)
MASKS = st.tuples(SIDES, SIDES).flatmap(lambda size: hnp.arrays(bool, size))
PAIRS = st.tuples(SIDES, SIDES).flatmap(lambda size: st.tuples(hnp.arrays(bool, size), hnp.arrays(bool, size)))


def expected_outline(mask):
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            if y == height - 1 and x == width - 1:
                continue
            neighbours = [(y, x + 1)] if y == height - 1 else [(y + 1, x)] if x == width - 1 else []
            neighbours = neighbours or [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(mask[y, x] != mask[place] for place in neighbours)
    return edge


def expected_j_and_f(predicted, true):
    union = (predicted | true).sum()
    j = (predicted & true).sum() / union if union else 1.0
    radius = math.ceil(0.008 * math.hypot(*true.shape))
    p, t = expected_outline(predicted), expected_outline(true)
    if not p.any() or not t.any():
        precision, recall = (1, 1) if not p.any() and not t.any() else (1, 0) if not p.any() else (0, 1)
    else:
        precision = (ndimage.distance_transform_edt(~t)[p] <= radius).mean()
        recall = (ndimage.distance_transform_edt(~p)[t] <= radius).mean()
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None)
@given(PAIRS)
def test_small_noise(pair):
    assert j_and_f(*map(encode, pair)) == pytest.approx(expected_j_and_f(*pair), abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(130, 220), st.integers(130, 220), st.integers(0, 2**32 - 1))
def test_blobs_with_outlines_of_some_width(height, width, seed):
    """Pictures so large that the tolerance is two or three pixels; blobs that touch the borders, too."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(height, width)), 8, mode="constant")
    true = smooth > np.quantile(smooth, random.uniform(0.3, 0.99))
    predicted = ndimage.shift(smooth, random.uniform(-4, 4, 2), order=1) > np.quantile(smooth, random.uniform(0.3, 0.99))
    assert j_and_f(encode(predicted), encode(true)) == pytest.approx(expected_j_and_f(predicted, true), abs=1e-12)


@settings(deadline=None)
@given(MASKS)
def test_outline(mask):
    assert np.array_equal(outline(mask), expected_outline(mask))


@settings(deadline=None)
@given(MASKS, st.integers(0, 30))
def test_dilation(mask, radius):
    far = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    assert np.array_equal(dilate(mask, radius), far <= radius)


@pytest.mark.parametrize(("size", "radius"), [((480, 854), 8), ((1080, 1920), 18), ((1, 1), 1), ((3, 4), 1), ((848, 480), 8)])
def test_radius(size, radius):
    assert outline_radius(*size) == radius


def test_empty_and_full_masks():
    empty, full = encode(np.zeros((9, 8), bool)), encode(np.ones((9, 8), bool))
    dot = np.zeros((9, 8), bool)
    dot[4, 4] = True
    dot = encode(dot)
    assert j_and_f(empty, empty) == j_and_f(full, full) == j_and_f(dot, dot) == (1, 1)
    assert j_and_f(empty, dot) == j_and_f(dot, empty) == (0, 0)
    assert j_and_f(full, empty) == (0, 1)  # neither has an outline
    assert j_and_f(full, dot) == (1 / 72, 0)


def test_a_known_case():
    """A square of 10 shifted by 3 to the right, tolerance 2: J is 70 / 130; of the 40 outline pixels those of the left and
    right sides that are 3 away do not match, but those near the horizontal sides do."""
    true, shifted = np.zeros((150, 150), bool), np.zeros((150, 150), bool)
    true[50:60, 50:60] = shifted[50:60, 53:63] = True
    j, f = j_and_f(encode(shifted), encode(true))
    assert j == 70 / 130
    assert f == pytest.approx(expected_j_and_f(shifted, true)[1])
    assert 0.5 < f < 1


def test_sizes_must_agree():
    with pytest.raises(ConfigError, match=r"predicted mask is 2x3, the true one 3x2"):
        j_and_f(encode(np.zeros((2, 3), bool)), encode(np.zeros((3, 2), bool)))
