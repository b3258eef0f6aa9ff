"""Pieces of run-length codes are the components, holes and outlines of the masks drawn; cleaning is what brute force does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from sam2_pipeline.masklets.clean import CleanRules, clean, clean_frame
from sam2_pipeline.masklets.components import Pieces
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.quality import is_jump, shape_of, temporal_iou
from sam2_pipeline.masklets.rle import Rle, decode, encode

CORNERS = np.ones((3, 3))  # pixels touch by sides and corners
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
AREAS = st.integers(0, 15)


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(label of every pixel, from 1; areas)."""
    labels, number = ndimage.label(mask, CORNERS)
    return labels, np.bincount(labels.ravel(), minlength=number + 1)[1:]


def cleaned(mask: np.ndarray, rules: CleanRules) -> np.ndarray:
    """Cleaning as its definition says it, pixel by pixel."""
    labels, areas = components(mask)
    keep = areas >= rules.min_component_area
    if len(areas) and not keep.any():
        largest = np.flatnonzero(areas == areas.max()) + 1
        keep[min(largest, key=lambda label: np.flatnonzero((labels == label).T)[0]) - 1] = True
    mask = np.isin(labels, np.flatnonzero(keep) + 1)
    if mask.any():
        labels, areas = components(~mask)
        mask = mask | np.isin(labels, np.flatnonzero(areas < rules.max_hole_area) + 1)
    return mask


@given(MASKS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_components(mask, background):
    rle, kind = encode(mask), ~mask if background else mask
    pieces = Pieces.of(rle.runs(), rle.height, rle.width, background=background)
    _, areas = components(kind)
    assert pieces.number == pieces.labels[0] == len(areas)
    assert sorted(pieces.areas) == sorted(areas)
    np.testing.assert_array_equal(pieces.runs(), encode(kind).runs())
    padded = np.pad(kind, 1)
    outline = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    border = sum(int(side.sum()) for side in (kind[0], kind[-1], kind[:, 0], kind[:, -1]))
    assert pieces.outline() == (outline, border)


def test_one_component_of_a_snake_and_of_a_comb():
    """Shapes that part and meet again, so that labels have to travel far."""
    comb = np.zeros((9, 40), bool)
    comb[:, ::2] = comb[0] = True
    assert shape_of(encode(comb)).num_components == shape_of(encode(comb.T)).num_components == 1
    comb[0] = False
    assert shape_of(encode(comb)).num_components == 20


@given(MASKS, AREAS, AREAS)
@settings(max_examples=200, deadline=None)
def test_cleaned_equals_brute_force(mask, component, hole):
    rules = CleanRules(component, hole)
    found = clean(encode(mask), rules)
    np.testing.assert_array_equal(decode(found), cleaned(mask, rules))
    assert clean(found, rules) == found, "cleaning once is enough"


def test_the_limits_themselves():
    mask = np.zeros((8, 20), bool)
    mask[1:7, 1:7] = True
    mask[3:5, 3:5] = False  # a hole of 4 pixels
    mask[2, 10:13] = True  # a component of 3
    rle = encode(mask)
    assert clean(rle, CleanRules(3, 4)) == rle
    assert clean(rle, CleanRules(4, 0)).area == rle.area - 3
    assert clean(rle, CleanRules(0, 5)).area == rle.area + 4
    assert clean(rle, CleanRules(100, 0)).area == 32, "the largest stays, however small"
    assert clean(rle, CleanRules()) is rle
    empty = Rle.empty(8, 20)
    assert clean(empty, CleanRules(200, 200)) == empty


def frame_of(masks: dict[int, np.ndarray]) -> FrameMasks:
    return FrameMasks(3, 0.125, {n: MaskletFrame(3, 0.125, encode(mask), 0.9, 1.0, 0.8) for n, mask in masks.items()})


@given(hnp.arrays(np.int8, (9, 11), elements=st.integers(0, 3)), AREAS, AREAS)
@settings(max_examples=100, deadline=None)
def test_masks_that_share_no_pixel_share_none_afterwards(owner, component, hole):
    frame = frame_of({n: owner == n for n in (1, 2, 3)})
    rules = CleanRules(component, hole)
    apart, alone = clean_frame(frame, rules, disjoint=True), clean_frame(frame, rules)
    drawn = {n: decode(mask.rle) for n, mask in apart.masks.items()}
    assert np.sum(list(drawn.values()), axis=0, dtype=int).max() <= 1
    for number, mask in frame.masks.items():
        assert alone.masks[number].rle == clean(mask.rle, rules)
        assert not (drawn[number] & ~decode(alone.masks[number].rle)).any(), "never more than it would get alone"
        if not rules.off:
            assert apart.masks[number].raw_area == mask.rle.area


def test_a_frame_keeps_all_but_its_masks():
    frame = frame_of({7: np.eye(5, dtype=bool), 9: np.zeros((5, 5), bool)})
    assert clean_frame(frame, CleanRules()) is frame
    found = clean_frame(frame, CleanRules(200, 200))
    assert (found.frame_index, found.timestamp_s, list(found.masks)) == (3, 0.125, [7, 9])
    assert found.masks[7].rle.area == 25 and found.masks[7].raw_area == 5 and found.masks[7].predicted_iou == 0.9
    assert found.masks[9].rle.area == 0


@pytest.mark.parametrize(
    ("rows", "columns", "touch"),
    [
        (slice(None), slice(None), 1.0),  # the whole picture
        (slice(2, 4), slice(2, 4), 0.0),
        (slice(0, 2), slice(2, 4), 0.25),  # one of four sides
        (slice(0, 2), slice(0, 2), 0.5),
    ],
)
def test_touching_the_border(rows, columns, touch):
    mask = np.zeros((6, 8), bool)
    mask[rows, columns] = True
    assert shape_of(encode(mask)).border_touch == touch


def test_an_empty_mask_has_no_shape():
    empty, full = Rle.empty(4, 4), encode(np.ones((4, 4), bool))
    shape = shape_of(empty)
    assert (shape.area, shape.num_components, shape.border_touch) == (0, 0, None)
    assert temporal_iou(empty, empty, (0, 0)) is None
    assert temporal_iou(empty, full, (0, 16)) == 0 and temporal_iou(full, full, (16, 16)) == 1
    assert is_jump((10, 21)) and is_jump((21, 10)) and not is_jump((10, 20)) and not is_jump((0, 20))
