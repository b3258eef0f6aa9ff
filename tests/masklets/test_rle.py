"""Run-length masks agree with pycocotools, bit for bit, and refuse what pycocotools would trust."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets import rle as rle_module
from sam2_pipeline.masklets.rle import Rle, decode, encode, encode_batch, encode_columns, iou, merge

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = sizes.flatmap(lambda size: hnp.arrays(bool, size))
batches = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)).flatmap(lambda shape: hnp.arrays(bool, shape))


def reference(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


@given(masks)
def test_encode_equals_pycocotools(mask):
    found, expected = encode(mask), reference(mask)
    assert found.counts == expected["counts"]
    assert [found.height, found.width] == expected["size"]
    assert found.area == coco.area(expected) == mask.sum()
    assert found.bbox_xywh == tuple(coco.toBbox(expected))
    assert np.array_equal(decode(found), mask)


@given(batches)
def test_batches_and_columns_equal_one_by_one(masks_NHW):
    expected = [encode(mask) for mask in masks_NHW]
    assert encode_batch(masks_NHW) == expected
    assert encode_columns(np.ascontiguousarray(masks_NHW.transpose(0, 2, 1))) == expected
    assert encode_columns(masks_NHW.transpose(0, 2, 1)) == expected


def test_columns_are_not_copied(monkeypatch):
    masks_NWH = np.zeros((3, 8, 6), bool)
    seen = []
    monkeypatch.setattr(rle_module.coco, "encode", lambda array: seen.append(array) or [])
    encode_columns(masks_NWH)
    assert np.shares_memory(seen[0], masks_NWH)
    assert seen[0].shape == (6, 8, 3)
    assert seen[0].flags.f_contiguous


@given(masks)
def test_coco_round_trips(mask):
    mine = encode(mask)
    runs = mine.runs().tolist()
    assert Rle.from_coco(mine.to_coco()) == mine
    assert Rle.from_coco(json.loads(json.dumps(mine.to_coco()))) == mine
    assert Rle.from_coco(reference(mask)) == mine
    assert Rle.from_coco({"size": list(mask.shape), "counts": runs}) == mine
    assert Rle.from_coco({"size": [float(x) for x in mask.shape], "counts": [float(x) for x in runs]}) == mine


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=30).filter(any))
def test_uncompressed_runs_survive(runs):
    """Zero-length runs inside are legal COCO, and so are very long ones."""
    rle = Rle.from_coco({"size": [1, sum(runs)], "counts": runs})
    assert rle.runs().tolist() == runs
    expected = coco.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))
    assert rle.counts == expected["counts"]


@given(batches)
def test_iou_and_merge(masks_NHW):
    rles = encode_batch(masks_NHW)
    flat = masks_NHW.reshape(len(masks_NHW), -1)
    intersection = (flat[:, None] & flat[None]).sum(-1)
    union = (flat[:, None] | flat[None]).sum(-1)
    assert np.allclose(iou(rles, rles), intersection / np.maximum(union, 1))
    assert np.array_equal(decode(merge(rles)), masks_NHW.any(0))
    assert np.array_equal(decode(merge(rles, intersect=True)), masks_NHW.all(0))


def test_mixed_uint8_values_are_one_object():
    mask = np.array([[0, 1, 255], [7, 7, 0]], np.uint8)
    assert encode(mask) == encode(mask != 0)


def test_empty():
    empty = Rle.empty(480, 640)
    assert empty == encode(np.zeros((480, 640), bool))
    assert empty.area == 0
    assert empty.bbox_xywh == (0.0, 0.0, 0.0, 0.0)
    assert not decode(empty).any()
    assert encode_batch(np.zeros((0, 4, 4), bool)) == []
    assert iou([], [empty]).shape == (0, 1)
    assert repr(empty) == "Rle(480x640, area=0)"


@pytest.mark.parametrize(
    ("height", "width", "counts", "says"),
    [
        (0, 5, b"0", "0x5"),
        (4, -1, b"0", "4x-1"),
        (4, 4, b"", "not a compressed"),
        (4, 4, b"a", "not a compressed"),
        (4, 4, b"\x01\x02", "not a compressed"),
        (4, 4, b"8", "add up to 8, expected 4x4 = 16"),
        (4, 4, b"0O1", "negative"),
        (4, 4, b"oooooooooo1", "longer than any"),
    ],
)
def test_malformed_counts_are_refused(height, width, counts, says):
    with pytest.raises(ConfigError, match=says):
        Rle(height, width, counts)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ({"size": [4, 4]}, "expected size and counts"),
        ({"size": [4], "counts": [4]}, "expected \\[height, width\\]"),
        ({"size": [4, 4], "counts": [3.5, 12.5]}, "whole numbers"),
        ({"size": [4, 4], "counts": [17, -1]}, "whole numbers"),
        ({"size": [4, 4], "counts": [15]}, "add up to 15"),
        ({"size": "ab", "counts": "0"}, "expected numbers"),
        ({"size": [4, 4], "counts": "é"}, "ASCII"),
        ({"size": [4, 4], "counts": None}, "whole numbers|expected numbers"),
    ],
)
def test_malformed_coco_is_refused(mask, says):
    with pytest.raises(ConfigError, match=says):
        Rle.from_coco(mask)


def test_wrong_arrays_are_refused():
    with pytest.raises(ConfigError, match="float32, expected bool or uint8"):
        encode(np.zeros((3, 3), np.float32))
    with pytest.raises(ConfigError, match="shape"):
        encode(np.zeros((1, 3, 3), bool))
    with pytest.raises(ConfigError, match="shape"):
        encode_batch(np.zeros((3, 3), bool))
    with pytest.raises(ConfigError, match="0x3"):
        encode(np.zeros((0, 3), bool))
    with pytest.raises(ConfigError, match="expected one size"):
        iou([Rle.empty(2, 2)], [Rle.empty(2, 3)])
    with pytest.raises(ConfigError, match="at least one"):
        merge([])
