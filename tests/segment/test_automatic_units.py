"""Grids, crops, boxes and suppression of the automatic masks, against the reference's exact numbers."""

import numpy as np
import pytest
import torch
from golden.goldens import load
from scipy import ndimage

from sam2_pipeline.model.config import find_config
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.segment.candidates import near_crop_edge
from sam2_pipeline.segment.clean import fill_holes, remove_sprinkles, small_components
from sam2_pipeline.segment.generate_options import GenerateOptions, crop_boxes, point_grid
from sam2_pipeline.segment.nms import suppress

UNITS = load("units").meta["units"]
ARRAYS = load("units").arrays


def test_point_grid() -> None:
    np.testing.assert_allclose(point_grid(3), UNITS["point_grid_3"], rtol=0, atol=1e-15)


@pytest.mark.parametrize("case", UNITS["crop_boxes"], ids=lambda c: f"{c['image_hw']}")
def test_crop_boxes(case: dict) -> None:
    boxes, layers = [], []
    for layer in range(case["n_layers"] + 1):
        found = crop_boxes(*case["image_hw"], 2**layer, case["overlap_ratio"])
        boxes += [list(box) for box in found]
        layers += [layer] * len(found)
    assert boxes == case["boxes_xyxy"] and layers == case["layers"]


def test_near_crop_edge() -> None:
    case = UNITS["near_crop_edge"]
    x1, y1 = case["image_box"][2:]
    near = near_crop_edge(np.array(case["boxes_in_crop"]), tuple(case["crop_box"]), y1, x1)
    assert near.tolist() == case["near"]


def test_suppression_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]])
    scores = np.array([0.5, 0.9, 0.1, 0.3, 0.3])
    # 0 and 1 overlap by 0.9; boxes without area suppress nobody (0 / 0), and equal scores keep their order.
    assert suppress(boxes, scores, 0.7).tolist() == [1, 3, 4, 2]
    assert suppress(boxes, scores, 0.95).tolist() == [1, 0, 3, 4, 2]


def test_layers_of_the_data_engine() -> None:
    layers = GenerateOptions().layers()
    assert [(crops, len(points)) for crops, points in layers] == [(1, 1024), (2, 256), (4, 16)]


@pytest.mark.parametrize("area", [1, 3, 8, 40])
def test_small_components_against_scipy(area: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(area).standard_normal((3, 60, 70)), (0, 1, 1))
    region = noise > 0.1
    expected = np.zeros_like(region)
    for n, picture in enumerate(region):
        labels, _ = ndimage.label(picture, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        expected[n] = picture & (sizes[labels] <= area)
    assert expected.any() and not (expected == region).all()
    np.testing.assert_array_equal(small_components(torch.from_numpy(region), area).numpy(), expected)


def test_holes_are_filled_with_the_references_logit() -> None:
    logits = torch.full((1, 20, 20), 5.0)
    logits[0, 3:5, 3:5] = -1.0  # 4 pixels: a hole
    logits[0, 10:14, 10:14] = -1.0  # 16 pixels: a shape
    filled = fill_holes(logits, 8)
    assert (filled[0, 3:5, 3:5] == 0.1).all() and (filled[0, 10:14, 10:14] == -1.0).all()
    assert fill_holes(logits, 0) is logits


@pytest.mark.parametrize("area", [1, 4, 8])
def test_holes(area: int) -> None:
    logits = torch.from_numpy(ARRAYS["holes_in"])
    filled = fill_holes(logits.flatten(0, -3), area).view_as(logits)
    np.testing.assert_array_equal(filled.numpy(), ARRAYS[f"holes_out_{area}"])


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
def test_suppression(threshold: str) -> None:
    kept = suppress(ARRAYS["nms_boxes"], ARRAYS["nms_scores"], float(threshold))
    assert kept.tolist() == UNITS["nms_keep_in_order"][threshold]


def test_picture_postprocessing() -> None:
    """Holes up to 6 and sprinkles up to 5 pixels of the low-resolution masks, then resizing."""
    options = GenerateOptions(mask_threshold=0.0)
    logits = torch.from_numpy(ARRAYS["holes_in"]).reshape(-1, 24, 32)
    mended = fill_holes(logits, 6, options.mask_threshold, options.mask_threshold + 10)
    mended = remove_sprinkles(mended, logits > 0, 5, options.mask_threshold - 10)
    resized = resize_maps(mended[None], (40, 60)).numpy()
    np.testing.assert_allclose(resized, ARRAYS["postprocess_masks"].reshape(resized.shape), atol=1e-5)


def test_thresholds_that_suit_the_model() -> None:
    official, small = find_config("sam2.1_hiera_tiny"), find_config(None)
    assert GenerateOptions.for_model(official) == GenerateOptions()
    suited = GenerateOptions.for_model(small, pred_iou_thresh=None, stability_score_thresh=0.7, max_objects=None)
    assert (suited.pred_iou_thresh, suited.stability_score_thresh, suited.max_objects) == (small.good_iou, 0.7, None)
