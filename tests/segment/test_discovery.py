"""Objects that appear later, get lost, or live between two cuts: with an oracle in place of the network, to the frame."""

import numpy as np
import pytest
from colour_oracle import SIDE, film, of_colour, oracle, picture, propose, where
from golden.synthetic_inputs import synthetic_frame

import sam2_pipeline.segment.discover as discovering
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.identity import IdentityOptions
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, encode
from sam2_pipeline.segment.automatic import propose_masks
from sam2_pipeline.segment.cuts import CutOptions
from sam2_pipeline.segment.discover import DiscoverOptions, find_new
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.segment.masklet_generator import MaskletGenerator

FRAMES = 12
RED = {t: (2 + t, 2) for t in range(FRAMES)}
GREEN = {t: (20, 20 - t) for t in range(5, FRAMES)}  # late
EVERY_QUARTER = DiscoverOptions(every_s=4 / 16)  # every fourth frame of sixteen a second


def source(images) -> ArrayFrames:
    return ArrayFrames(images, fps=16)


def courses(masklets) -> list[dict[int, tuple[int, int]]]:
    return [{f.frame_index: place for f in m.frames if (place := where(f.rle)) is not None} for m in masklets]


@pytest.fixture
def late() -> ArrayFrames:
    return source(film({"red": RED, "green": GREEN}, FRAMES))


def test_by_default_the_first_frame_alone_is_searched(monkeypatch, late):
    generator, [] = oracle(monkeypatch)
    [red] = generator.generate(late)
    assert courses([red]) == [RED] and red.seed.shot_index is red.seed.parent_masklet_id is None


def test_a_late_object_gets_a_masklet_from_its_first_frame_to_its_last(monkeypatch, late):
    generator, opened = oracle(monkeypatch, discover=EVERY_QUARTER)
    stream = generator.stream(late)
    arrived = list(stream)
    assert [(seed.masklet_id, seed.prompt.frame_index) for seed in stream.seeds] == [(0, 0), (1, 8)]
    masklets = generator.generate(late)
    assert courses(masklets) == [RED, GREEN]
    assert [[f.frame_index for f in m.frames] for m in masklets] == [list(range(FRAMES))] * 2
    # Forward with what there is, then back from the birth, with the late one alone and no further than to the start.
    walked = opened[0].walked
    assert [frame for frame, _ in walked] == [*range(FRAMES), *reversed(range(8))]
    assert [ids for _, ids in walked] == [()] + [(0,)] * 8 + [(0, 1)] * 3 + [(1,)] * 8
    assert sum(len(frame.masks) for frame in arrived) == 2 * FRAMES  # one mask on every frame, none twice


def test_nothing_is_found_twice(monkeypatch):
    generator, _ = oracle(monkeypatch, discover=DiscoverOptions(every_s=1 / 16))
    assert courses(generator.generate(source(film({"red": RED, "green": GREEN}, FRAMES)))) == [RED, GREEN]


@pytest.mark.parametrize("backward", [True, False])
def test_annotating_fewer_frames_changes_no_mask(monkeypatch, late, backward):
    generator, _ = oracle(monkeypatch, discover=EVERY_QUARTER, backward=backward)
    every, some = generator.generate(late), generator.generate(late, annotate_fps=16 / 3)
    for dense, sparse in zip(every, some, strict=True):
        assert [f.frame_index for f in sparse.frames] == [0, 3, 6, 9]
        assert [f.rle for f in sparse.frames] == [dense.frames[i].rle for i in (0, 3, 6, 9)]
    assert courses(every)[1] == (GREEN if backward else {t: GREEN[t] for t in range(8, FRAMES)})


def test_an_empty_beginning(monkeypatch):
    generator, _ = oracle(monkeypatch, discover=EVERY_QUARTER)
    assert courses(generator.generate(source(film({"green": GREEN}, FRAMES)))) == [GREEN]


def test_no_more_objects_than_asked_for(monkeypatch, late):
    generator, _ = oracle(monkeypatch, generate=GenerateOptions(max_objects=1), discover=EVERY_QUARTER)
    assert courses(generator.generate(late)) == [RED]


def test_lost_objects_rest_until_they_are_seen_on_a_keyframe(monkeypatch):
    away = {t: place for t, place in RED.items() if t < 2 or t >= 7}
    generator, opened = oracle(monkeypatch, discover=EVERY_QUARTER, lost_after_s=2 / 16)
    masklets = generator.generate(source(film({"red": away, "blue": dict.fromkeys(range(FRAMES), (20, 20))}, FRAMES)))
    red, blue = courses(masklets)
    assert blue == dict.fromkeys(range(FRAMES), (20, 20))
    # Last seen on frame 1: it rests from frame 4 on, but 4 and 8 are keyframes. It came on 7, and is found on 8.
    assert [frame for frame, ids in opened[0].walked if 0 not in ids] == [0, 5, 6, 7]
    assert red == {t: place for t, place in away.items() if t != 7}
    assert [f.frame_index for f in masklets[0].frames] == list(range(FRAMES))
    with pytest.raises(ConfigError, match=r"needs discover\.every_s"):
        MaskletGenerator(None, lost_after_s=1.0)


@pytest.fixture
def two_shots() -> ArrayFrames:
    """Red goes on after the cut, to all looks; green comes late in the second shot."""
    first = film({"red": {t: (2, 2 + t) for t in range(8)}}, 8)
    second = film({"red": dict.fromkeys(range(8), (20, 20)), "green": dict.fromkeys(range(3, 8), (2, 2))}, 8, ground=(0, 0, 140))
    for image in second:
        image[of_colour(image, (0, 0, 140)) & (np.arange(SIDE) >= 16)] = 200
    return source(first + second)


def test_nothing_crosses_a_cut(monkeypatch, two_shots):
    generator, opened = oracle(monkeypatch, discover=EVERY_QUARTER, cuts=CutOptions(), identity=IdentityOptions())
    stream = generator.stream(two_shots)
    list(stream)
    assert stream.shot_count == 2 == len(opened)
    masklets = generator.generate(two_shots)
    assert courses(masklets) == [
        {t: (2, 2 + t) for t in range(8)},
        dict.fromkeys(range(8, 16), (20, 20)),
        dict.fromkeys(range(11, 16), (2, 2)),
    ]
    assert [(m.masklet_id, m.seed.shot_index, m.seed.prompt.frame_index) for m in masklets] == [(0, 0, 0), (1, 1, 8), (2, 1, 12)]
    assert all([f.frame_index for f in m.frames] == list(range(16)) for m in masklets)
    assert {frame for frame, _ in opened[1].walked} == set(range(8, 16))  # forward and backward


def test_cuts_are_ignored_unless_asked_for(monkeypatch, two_shots):
    generator, opened = oracle(monkeypatch)
    stream = generator.stream(two_shots)
    list(stream)
    assert stream.shot_count is None and [seed.shot_index for seed in stream.seeds] == [None] and len(opened) == 1


def test_without_discovery_every_shot_is_searched_at_its_beginning(monkeypatch, two_shots):
    generator, _ = oracle(monkeypatch, cuts=CutOptions())
    assert [(m.seed.shot_index, m.seed.prompt.frame_index) for m in generator.generate(two_shots)] == [(0, 0), (1, 8)]


@pytest.mark.parametrize("backward", [True, False])
def test_prompts_hold_for_their_shots(monkeypatch, two_shots, backward):
    def point(object_id, frame, x, y):
        return Prompt(object_id, frame, np.array([[x, y]]), np.array([1]))

    prompts = [point(7, 3, 4, 7), point(9, 12, 4, 4), point(7, 10, 22, 22)]
    generator, _ = oracle(monkeypatch, cuts=CutOptions(), backward=backward)
    red, green = generator.generate(two_shots, prompts)
    assert [(m.masklet_id, m.seed.object_id, m.seed.shot_index, m.seed.prompt) for m in (red, green)] == [
        (0, 7, 0, prompts[0]),
        (1, 9, 1, prompts[1]),
    ]
    where_red = {t: (2, 2 + t) for t in range(8)} | dict.fromkeys(range(8, 16), (20, 20))
    where_green = dict.fromkeys(range(11, 16), (2, 2))
    if not backward:
        where_red = {t: place for t, place in where_red.items() if 3 <= t < 8 or t >= 10}
        where_green = {t: place for t, place in where_green.items() if t >= 12}
    assert courses([red, green]) == [where_red, where_green]
    assert all([f.frame_index for f in m.frames] == list(range(16)) for m in (red, green))


def block(left: int, top: int, width: int, height: int) -> Rle:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return encode(mask)


@pytest.mark.parametrize(
    ("tracked", "new"),
    [
        ([], True),
        ([block(0, 0, 0, 0)], True),  # one that is not visible
        ([block(4, 4, 8, 6)], False),  # nearly the same
        ([block(4, 4, 8, 3)], True),  # a part of it
        ([block(2, 2, 9, 12)], False),  # most of it is inside
        ([block(0, 0, SIDE, SIDE - 4)], True),  # inside of the surroundings
        ([block(0, 0, SIDE, SIDE - 4), block(4, 4, 8, 7)], False),
    ],
)
def test_what_is_new(monkeypatch, tracked, new):
    monkeypatch.setattr(discovering, "propose_masks", propose)
    image = picture({"red": (4, 4)})
    assert bool(find_new(None, image, tracked, GenerateOptions(), DiscoverOptions())) is new


def test_covered_points_are_not_asked_for(model):
    """With the network: of the points of the grid those that are covered give no masks, and the others give what they gave."""
    anything = {"pred_iou_thresh": -1, "stability_score_thresh": 0, "box_nms_thresh": 1, "crop_nms_thresh": 1}
    options = GenerateOptions(points_per_side=3, crop_grids=((2, 2),), multimask=False, **anything)
    image = synthetic_frame(0, 90, 120, seed=2)
    whole, covered = propose_masks(model, image, options), np.zeros((90, 120), bool)
    covered[:, :70] = True
    rest = propose_masks(model, image, options, covered_HW=covered)
    free = {p.point_xy for p in whole if p.point_xy[0] >= 70}
    assert {p.point_xy for p in rest} <= free and rest
    assert propose_masks(model, image, options, covered_HW=np.ones((90, 120), bool)) == []


@pytest.mark.parametrize("wrong", [{"every_s": 0.0}, {"max_overlap": 0.0}, {"surroundings": 1.5}])
def test_impossible_options(wrong):
    with pytest.raises(ConfigError, match="discover"):
        DiscoverOptions(**wrong)
