"""Which frames and objects count, against an evaluator that walks pictures as the SA-V and DAVIS ones do."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_forms import disc, moving_discs

from sam2_pipeline.errors import VideoError
from sam2_pipeline.evaluation.measures import j_and_f
from sam2_pipeline.evaluation.scores import score_video
from sam2_pipeline.masklets.rle import Rle, decode, encode

EMPTY = Rle.empty(6, 7)


def walk(predicted, true, keep):
    """(J, F) of each object from pictures of object numbers ``[T, H, W]``, gathered frame by frame."""
    if not keep:
        predicted, true = predicted[1:-1], true[1:-1]
    met, truly, scores = set(), set(), defaultdict(list)
    for p, t in zip(predicted, true):
        truly |= set(np.unique(t)) - {0}
        met |= (set(np.unique(p)) | set(np.unique(t))) - {0}
        for number in met:
            scores[number].append(j_and_f(encode(p == number), encode(t == number)))
    return {number: tuple(np.mean(scores[number], axis=0)) for number in truly}


def split(pictures, numbers):
    return {n: {frame: encode(picture == n) for frame, picture in enumerate(pictures)} for n in numbers}


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans())
def test_objects_and_frames_count_as_in_the_published_evaluators(seed, length, keep):
    random = np.random.default_rng(seed)
    pictures = [random.integers(0, 4, (length, 6, 7)) * (random.random((length, 6, 7)) < 0.3) for _ in range(2)]
    for picture in pictures:
        picture[random.random(length) < 0.4] = 0
        picture[picture == random.integers(1, 6)] = 0
    expected = walk(*pictures, keep)
    predicted, true = (split(picture, [1, 2, 3]) for picture in pictures)
    found = score_video("v", predicted, true, keep_first_and_last=keep)
    assert {one.object_id: pytest.approx((one.j, one.f)) for one in found.objects} == expected
    assert found.left_aside == 3 - len(expected)


def test_an_object_without_prediction_scores_as_empty():
    true = moving_discs()
    found = score_video("v", {1: true[1], 7: true[2]}, true)
    one, two = found.objects
    assert (one.j, one.f, one.frames, one.partner.predicted_id) == (1, 1, 4, 1)
    assert (two.j, two.f, two.frames, two.partner.predicted_id) == (0, 0, 3, None)  # invisible on frame 4
    assert not two.visible_at_first and one.visible_at_first
    assert found.predicted == 2 and found.spurious is None


def test_predictions_on_other_frames_do_not_matter():
    true = moving_discs()
    predicted = {number: masks | {f: disc(0, 0, 30) for f in range(1, 24, 4)} for number, masks in true.items()}
    assert all(one.jf == 1 for one in score_video("v", predicted, true).objects)
    assert all(one.jf == 1 for one in score_video("v", predicted, true, match="greedy").objects)


@pytest.mark.parametrize("match", ["ids", "hungarian", "greedy"])
def test_a_frame_without_prediction(match):
    true = moving_discs()
    predicted = moving_discs(range(0, 24, 8))
    with pytest.raises(VideoError, match=r"object 1 has no mask on \d of \d true frames \(first: 4\).* on 3 frames \(0, 8, 16\)"):
        score_video("v", predicted, true, match=match)


@pytest.mark.parametrize("match", ["ids", "hungarian"])
def test_another_size(match):
    true = moving_discs()
    predicted = {1: {f: disc(5, 5, 3, (24, 31)) for f in true[1]}}
    with pytest.raises(VideoError, match=r"object 1 on frame \d is 24x31, expected 24x32 \(height x width\)"):
        score_video("v", predicted, true, match=match)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_videos_too_short_to_count(frames):
    true = {1: {f: disc(5, 5, 3) for f in range(frames)}}
    assert score_video("v", true, true).objects == ()
    assert len(score_video("v", true, true, keep_first_and_last=True).objects) == bool(frames)


def test_each_object_has_frames_of_its_own():
    """As in SA-V's validation set, where an object's folder begins at its first mask."""
    true = {1: {f: disc(5, 5, 3) for f in range(5)}, 2: {f: disc(9, 9, 3) for f in range(2, 5)}}
    found = score_video("v", {n: {f: disc(5, 5, 3) for f in range(5)} for n in true}, true)
    assert [one.frames for one in found.objects] == [3, 1]
    assert found.objects[0].jf == 1
    assert found.objects[1].j == j_and_f(disc(5, 5, 3), disc(9, 9, 3))[0]


def test_masks_survive_the_walk_in_tests():
    """The stand-in for pictures is right: numbers split and joined are the same."""
    picture = np.array([[[0, 1], [2, 1]]])
    again = sum(number * decode(masks[0]).astype(int) for number, masks in split(picture, [1, 2]).items())
    assert np.array_equal(again, picture[0])
