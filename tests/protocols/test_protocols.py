"""What each protocol asks of a model, with one whose errors are known."""

import numpy as np
import pytest
from oracle import FRAMES, HEIGHT, WIDTH, OracleSegmenter, square, two_squares

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation.measures import jaccard
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.protocols.interactive import Effort, offline, online
from sam2_pipeline.protocols.prompted import play
from sam2_pipeline.protocols.prompting import next_click, prompt_whole, true_objects, visible_at_first
from sam2_pipeline.protocols.trial import check_protocol

EMPTY = Rle.empty(HEIGHT, WIDTH)


@pytest.fixture
def truth():
    return two_squares()


@pytest.fixture
def objects(truth):
    return true_objects(truth, 0.01)


@pytest.fixture
def oracle(truth):
    return OracleSegmenter(truth, FRAMES)


def spots(prompts) -> list[tuple]:
    return [(p.frame_index, *p.points_xy[0].tolist(), int(p.point_labels[0])) for p in prompts]


def test_objects_begin_where_they_are_visible_enough(truth):
    assert [(one.object_id, one.first) for one in true_objects(truth, 0.0)] == [(1, 0), (4, 2)]
    assert [(one.object_id, one.first) for one in true_objects(truth, 0.01)] == [(1, 0), (4, 3)]
    assert [one.object_id for one in true_objects(truth, 0.07)] == [1]
    assert visible_at_first(truth, 0.01) == {1} and visible_at_first(truth, 0.5) == set()
    assert true_objects({3: {0: EMPTY}}, 0.0) == [] and visible_at_first({}, 0.0) == set()


def test_the_first_click_is_the_objects_centre():
    prompt = next_click(7, 5, EMPTY, square(10, 20, 11))
    assert spots([prompt]) == [(5, 25, 15, 1)] and prompt.object_id == 7


def test_further_clicks_are_in_the_middle_of_the_larger_error():
    true = square(10, 20, 12)
    beside = decode(true).copy()
    beside[10:22, 29:32] = False  # lacks a strip 3 wide
    beside[30:39, 40:49] = True  # and has a square of 9 too much
    assert spots([next_click(1, 0, encode(beside), true)]) == [(0, 44, 34, 0)]
    beside[30:39, 40:49] = False
    [(_, x, y, label)] = spots([next_click(1, 0, encode(beside), true)])
    assert (x, label) == (30, 1) and 11 <= y <= 20
    assert next_click(1, 0, true, true) is None
    assert spots([next_click(1, 0, true, EMPTY)])[0][3] == 0  # what is not there is clicked away


def test_boxes_hold_the_outermost_pixels(truth):
    [one] = true_objects({1: {0: square(10, 20, 6)}}, 0.0)
    assert prompt_whole(one, "box").box_xyxy.tolist() == [20, 10, 25, 15]
    assert prompt_whole(one, "mask").mask == one.masks[0]
    [dot] = true_objects({1: {0: square(39, 63, 1)}}, 0.0)
    assert prompt_whole(dot, "box").box_xyxy.tolist() == [63, 39, 64, 40]


@pytest.mark.parametrize(("kind", "clicks"), [("mask", 0), ("box", 0), ("clicks", 1), ("clicks", 3)])
def test_every_object_is_prompted_once_and_tracked_from_there(oracle, objects, kind, clicks):
    played = play(oracle, None, objects, kind, clicks)
    assert {i: {p.frame_index for p in prompts} for i, prompts in played.prompts.items()} == {1: {0}, 4: {3}}
    assert [len(prompts) for prompts in played.prompts.values()] == [max(clicks, 1)] * 2
    assert {i: list(masks) for i, masks in played.masks.items()} == {1: list(range(8)), 4: list(range(3, 8))}
    if kind != "clicks":
        assert played.masks[4][3] == objects[1].masks[3]
    assert oracle.opened[0].walks == [(0, 7)]


def test_a_walk_ends_with_the_last_true_mask(oracle, truth):
    few = {i: {t: mask for t, mask in masks.items() if t in (0, 3, 5)} for i, masks in truth.items()}
    played = play(oracle, None, true_objects(few, 0.01), "mask", 0)
    assert oracle.opened[0].walks == [(0, 5)]
    assert {i: list(masks) for i, masks in played.masks.items()} == {1: [0, 3, 5], 4: [3, 5]}


def test_offline_clicks_where_the_whole_video_is_worst(oracle, objects):
    rounds = list(offline(oracle, None, objects, Effort(clicks=4, frames=3)))
    assert oracle.opened[0].changes == {"history_frames": None}
    assert oracle.opened[0].walks == [(0, 7)] * 3
    frames = [{i: sorted({p.frame_index for p in prompts}) for i, prompts in one.prompts.items()} for one in rounds]
    # Errors grow with the distance from the last prompt: first the end is worst, then what lies longest after a prompt.
    assert frames == [{1: [0], 4: [3]}, {1: [0, 7], 4: [3, 7]}, {1: [0, 6, 7], 4: [3, 6, 7]}]
    mean = [np.mean([jaccard(m, one.masks[t]) for one in objects for t, m in r.masks[one.object_id].items()]) for r in rounds]
    assert mean[0] < mean[1] < mean[2]


def test_offline_stops_where_nothing_is_left_to_correct(truth):
    steady = {1: {t: square(4, 4, 16) for t in range(3)}}
    oracle = OracleSegmenter(steady, 3)
    rounds = list(offline(oracle, None, true_objects(steady, 0.0), Effort(clicks=9, frames=8)))
    assert [len({p.frame_index for p in r.prompts[1]}) for r in rounds] == [1, 2, 3]


def test_online_clicks_where_the_mask_gets_bad_and_lets_the_past_be(oracle, objects):
    played = online(oracle, None, objects, Effort(clicks=5, frames=8))
    assert oracle.opened[0].walks == [(0, 7)]
    # A square of 16 has an IoU below 0.75 when it is off by 3, one of 12 by 2.
    assert sorted({p.frame_index for p in played.prompts[1]}) == [0, 3, 6]
    assert sorted({p.frame_index for p in played.prompts[4]}) == [3, 5, 7]
    off = {t: round(jaccard(mask, objects[0].masks[t]), 3) for t, mask in played.masks[1].items()}
    one, two = round(15 / 17, 3), round(14 / 18, 3)
    assert off == {0: 1, 1: one, 2: two, 3: 1, 4: one, 5: two, 6: 1, 7: one}
    assert list(played.masks[4]) == [3, 4, 5, 6, 7]


def test_online_stops_clicking_at_its_limit(oracle, objects):
    played = online(oracle, None, objects, Effort(clicks=1, frames=2))
    assert {i: len({p.frame_index for p in prompts}) for i, prompts in played.prompts.items()} == {1: 2, 4: 2}
    assert sum(len(prompts) for prompts in played.prompts.values()) == 4


def test_names_of_protocols():
    assert [check_protocol(name) for name in ("click", "clicks-1", "clicks-12", "mask", "automatic")] == [1, 1, 12, 0, 0]
    for wrong in ("clicks", "clicks-0", "masks", "click-3", ""):
        with pytest.raises(ConfigError, match="unknown protocol"):
            check_protocol(wrong)
    with pytest.raises(ConfigError, match="0 clicks on 8 frames"):
        Effort(clicks=0)
