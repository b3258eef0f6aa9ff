"""Duplicates and parts of masklets over time, against masks that are decoded and counted."""

import numpy as np
import pytest

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.identity import IdentityOptions, identify, identify_masklets, overlaps_over_time
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode, share_inside

FRAMES = 6


def tube(left: int, top: int, width: int, height: int, frames=range(FRAMES), speed: int = 1) -> dict[int, np.ndarray]:
    """A rectangle that moves right; empty on the other frames."""
    masks = {}
    for t in range(FRAMES):
        masks[t] = np.zeros((24, 32), bool)
        if t in frames:
            masks[t][top : top + height, left + speed * t : left + speed * t + width] = True
    return masks


WHOLE, BETTER, WORSE = tube(2, 2, 16, 16), tube(2, 2, 12, 12), tube(2, 2, 12, 11)
PART, PIECE = tube(3, 3, 4, 4), tube(2, 2, 12, 12, frames=[0, 1])


def masklets(*tubes: dict[int, np.ndarray], scores=None, kinds=None) -> list[Masklet]:
    found = []
    for number, masks in enumerate(tubes):
        score = scores[number] if scores else 0.9
        frames = tuple(MaskletFrame(t, t / 24, encode(mask), score, 1.0, 1.0) for t, mask in masks.items())
        kind = kinds[number] if kinds else "auto"
        found.append(Masklet("v", MaskletSeed(number, kind, Prompt(number, 0, [[1, 1]], [1])), frames))
    return found


def survivors(given: list[Masklet], **options) -> list[tuple[int, int | None]]:
    """(number before, parent's new number) of the masklets that stay, which are numbered from 0."""
    stay = identify_masklets(given, IdentityOptions(**options))
    assert [m.masklet_id for m in stay] == list(range(len(stay)))
    return [(m.seed.prompt.object_id, m.seed.parent_masklet_id) for m in stay]


def test_overlaps_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    tubes = [{t: (rng.random((9, 13)) > 0.5) & (rng.random() > 0.3) for t in range(5)} for _ in range(4)]
    frames = [{n: encode(masks[t]) for n, masks in enumerate(tubes)} for t in range(5)]
    found = overlaps_over_time(range(4), frames)
    assert found.masklet_ids == (0, 1, 2, 3)
    volumes = [np.stack(list(masks.values())) for masks in tubes]
    for a in range(4):
        assert found.volume_N[a] == volumes[a].sum() and found.frames_N[a] == volumes[a].any(axis=(1, 2)).sum()
        for b in set(range(4)) - {a}:
            both, either = (volumes[a] & volumes[b]).sum(), (volumes[a] | volumes[b]).sum()
            assert found.iou_NN[a, b] == pytest.approx(both / either)
            assert found.share_inside_NN[a, b] == pytest.approx(both / volumes[a].sum())
            here = volumes[a].any(axis=(1, 2))
            assert found.iou_while_visible_NN[a, b] == pytest.approx(both / (volumes[a] | volumes[b])[here].sum())
    assert not found.iou_NN.diagonal().any()


def test_of_duplicates_the_better_one_stays():
    assert survivors(masklets(WORSE, BETTER, scores=[0.7, 0.9])) == [(1, None)]
    assert survivors(masklets(WORSE, BETTER, scores=[0.9, 0.7])) == [(0, None)]
    assert survivors(masklets(WORSE, BETTER)) == [(0, None)]  # equally good: the one that was there first
    assert survivors(masklets(WORSE, BETTER), merge_iou=0.95, part_share=None) == [(0, None), (1, None)]
    assert survivors(masklets(WORSE, BETTER), merge_iou=None, part_share=None) == [(0, None), (1, None)]


def test_a_piece_of_a_longer_masklet_goes_however_good_it_is():
    assert survivors(masklets(PIECE, BETTER, scores=[0.99, 0.5])) == [(1, None)]
    elsewhere = tube(2, 2, 12, 12, frames=[0, 1], speed=8)  # on its second frame it is somewhere else
    assert survivors(masklets(elsewhere, BETTER), part_share=None) == [(0, None), (1, None)]


def test_parts_and_wholes_both_stay_and_the_smallest_whole_is_the_parent():
    assert survivors(masklets(WHOLE, PART, BETTER)) == [(0, None), (1, 2), (2, 0)]
    # Numbers of parents are the new ones.
    assert survivors(masklets(PIECE, PART, BETTER, WHOLE)) == [(1, 1), (2, 2), (3, None)]
    half = tube(3, 3, 4, 4, speed=5)  # leaves the whole
    assert survivors(masklets(WHOLE, half)) == [(0, None), (1, None)]
    assert survivors(masklets(WHOLE, half), part_share=0.5) == [(0, None), (1, 0)]


def test_what_was_asked_for_is_not_merged():
    assert survivors(masklets(BETTER, BETTER, kinds=["prompted"] * 2)) == [(0, None), (1, None)]
    assert survivors(masklets(WHOLE, PART, kinds=["prompted"] * 2)) == [(0, None), (1, 0)]


def test_masklets_that_are_never_visible_are_left_alone():
    nothing = tube(0, 0, 0, 0)
    assert survivors(masklets(nothing, WHOLE, nothing)) == [(0, None), (1, None), (2, None)]
    assert identify([], overlaps_over_time([], []), {}, IdentityOptions()) == {}


def test_share_inside():
    masks = [encode(WHOLE[0]), encode(PART[0]), encode(np.zeros((24, 32), bool))]
    assert share_inside(masks[1:], masks[:1]).tolist() == [[1.0], [0.0]]
    assert share_inside(masks[:1], masks).tolist() == [[1.0, 16 / 256, 0.0]]
    assert share_inside([], masks).shape == (0, 3)


@pytest.mark.parametrize("wrong", [{"merge_iou": 0.0}, {"part_share": 1.1}])
def test_impossible_options(wrong):
    with pytest.raises(ConfigError, match="identity"):
        IdentityOptions(**wrong)
