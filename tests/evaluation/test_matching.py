"""Automatic masklets find their objects by overlap."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_forms import disc, moving_discs

from sam2_pipeline.evaluation.matching import assign, overlaps
from sam2_pipeline.evaluation.scores import score_video
from sam2_pipeline.masklets.rle import Rle, decode, encode

FRAMES = range(5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3))
def test_overlaps_are_those_of_the_pixels(seed, number_p, number_g):
    random = np.random.default_rng(seed)
    shown = random.random((number_p + number_g, len(FRAMES), 1, 1)) < 0.6
    masks = (random.random((number_p + number_g, len(FRAMES), 5, 6)) < 0.5) & shown
    rles = [{f: encode(mask[f]) for f in FRAMES} for mask in masks]
    found = overlaps(dict(enumerate(rles[:number_p])), dict(enumerate(rles[number_p:])))
    assert found.mean_PG.shape == (number_p, number_g)
    for p in range(number_p):
        for g in range(number_g):
            both, either = masks[p] & masks[number_p + g], masks[p] | masks[number_p + g]
            ious = [both[f].sum() / either[f].sum() for f in FRAMES if either[f].any()]
            assert found.mean_PG[p, g] == pytest.approx(np.mean(ious) if ious else 0)
            ious = [both[f].sum() / either[f].sum() for f in FRAMES if masks[number_p + g, f].any()]
            assert found.visible_PG[p, g] == pytest.approx(np.mean(ious) if ious else 0)
            assert found.tube_PG[p, g] == pytest.approx(both.sum() / max(either.sum(), 1))


@settings(deadline=None)
@given(hnp.arrays(float, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=st.floats(0, 1)))
def test_assignments(similarity):
    rows, columns = similarity.shape
    for match in ("hungarian", "greedy"):
        found = assign(similarity, match)
        assert len(set(found.values())) == len(found)
        assert all(similarity[row, column] > 0 for column, row in found.items())
    wide = similarity if rows <= columns else similarity.T
    best = max(sum(wide[i, j] for i, j in enumerate(order)) for order in permutations(range(wide.shape[1]), wide.shape[0]))
    assert sum(similarity[row, column] for column, row in assign(similarity, "hungarian").items()) == pytest.approx(best)
    greedy = assign(similarity, "greedy")
    if similarity.size and similarity.max() > 0:
        row, column = np.unravel_index(similarity.argmax(), similarity.shape)
        assert greedy[column] == row


def test_greedy_and_hungarian_differ_where_the_best_pair_blocks_two_good_ones():
    similarity = np.array([[0.9, 0.8], [0.8, 0.0]])
    assert assign(similarity, "greedy") == {0: 0}
    assert assign(similarity, "hungarian") == {0: 1, 1: 0}


@pytest.mark.parametrize("match", ["hungarian", "greedy"])
def test_recall_and_spurious_masklets(match):
    """Of two objects one is found exactly, one is missed; a masklet is elsewhere, one doubles the found one, one is empty."""
    true = moving_discs()
    elsewhere, nothing = {f: disc(2, 29, 2) for f in true[1]}, {f: Rle.empty(24, 32) for f in true[1]}
    doubled = {f: encode(decode(mask) & (np.arange(32) > 9)) for f, mask in true[1].items()}
    found = score_video("v", {0: elsewhere, 1: doubled, 2: true[1], 3: nothing}, true, match=match)
    one, two = found.objects
    assert (one.partner.predicted_id, one.partner.mean_iou, one.partner.tube_iou, one.jf, one.frames) == (2, 1, 1, 1, 6)
    assert two.partner.predicted_id is None and two.jf == 0
    assert (found.predicted, found.spurious) == (3, 2)


def test_a_poor_match_is_spurious_and_yet_scored():
    true = {1: {f: disc(10, 10, 5) for f in FRAMES}}
    found = score_video("v", {0: {f: disc(10, 16, 5) for f in FRAMES}}, true, match="hungarian")
    assert 0 < found.objects[0].j < 0.5 and found.objects[0].partner.predicted_id == 0
    assert found.spurious == 1


def test_frames_on_which_neither_is_visible_do_not_raise_the_iou():
    """By J's rule they would count as agreement, and an empty masklet would match a short-lived object."""
    true = {1: {f: disc(10, 10, 5 if f == 4 else 0) for f in FRAMES}}
    found = score_video("v", {0: {f: disc(10, 10, 5 if f == 0 else 0) for f in FRAMES}}, true, match="hungarian")
    assert found.objects[0].partner.predicted_id is None
    assert found.spurious == 1


def test_no_predictions_at_all():
    found = score_video("v", {}, moving_discs(), match="hungarian")
    assert [one.jf for one in found.objects] == [0, 0]
    assert (found.predicted, found.spurious) == (0, 0)
