"""Masks that points agree on: by hand, against one at a time, and on the model itself."""

import numpy as np
import pytest
import torch

from sam2_pipeline import load_model
from sam2_pipeline.segment.agreement import agree, mask_overlap, suppress_masks
from sam2_pipeline.segment.automatic import propose_masks
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.training.synthetic import SceneOptions, make_scene

# Four points on a picture of 8 x 8: two on its left half, one on its right one, one in a corner of that.
PLACES = torch.tensor([[1.0, 2.0], [2.0, 6.0], [5.0, 3.0], [7.0, 7.0]])


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of five masks, and the points that they came from."""
    left, right, corner = (torch.full((8, 8), -4.0) for _ in range(3))
    left[:, :4], right[:, 4:], corner[6:, 6:] = 4.0, 2.0, 6.0
    almost_left = left.clone()
    almost_left[0, :4] = -2.0
    return torch.stack((left, almost_left, right, corner, left)), torch.tensor([0, 1, 2, 3, 2])


def test_points_agree_on_what_most_of_them_see() -> None:
    logits, point = halves()
    iou = torch.tensor([0.9, 0.6, 0.8, 0.7, 0.3])
    seen, score = agree(logits, iou, point, PLACES, same_iou=0.8)
    # On the left half lie the points 0 and 1, which agree, and one more counts as against it: 2 of 3. Nobody else says what the
    # points 2 and 3 say, and the mask of the left half that came from point 2 is judged by the points on it.
    shares = torch.tensor([2 / 3, 2 / 3, 1 / 3, 1 / 2, 2 / 3])
    torch.testing.assert_close(score, iou * shares.sqrt())
    row = (0.9 * 4 + 0.6 * -2 + 0.3 * 4) / 1.8
    torch.testing.assert_close(seen[0, 0, :4], torch.full((4,), row))
    torch.testing.assert_close(seen[2:4], logits[2:4])


def test_an_empty_mask_is_worth_nothing_and_stays_empty() -> None:
    logits, point = halves()
    logits[3] = -1.0
    seen, score = agree(logits, torch.full((5,), 0.5), point, PLACES, same_iou=0.8)
    assert score[3] == 0 and score[0] > 0 and torch.equal(seen[3], logits[3])


def test_the_order_of_masks_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(1, 30, 4, 4, generator=rng), scale_factor=4, mode="bilinear")[0]
    iou, point = torch.rand(30, generator=rng), torch.randint(12, (30,), generator=rng)
    places, order = torch.rand(12, 2, generator=rng) * 16, torch.randperm(30, generator=rng)
    seen, score = agree(logits, iou, point, places, same_iou=0.3)
    seen_in_order, score_in_order = agree(logits[order], iou[order], point[order], places, same_iou=0.3)
    assert score.max() > 0
    torch.testing.assert_close(score_in_order, score[order])
    torch.testing.assert_close(seen_in_order, seen[order])


def test_overlap_of_masks() -> None:
    masks = torch.rand(6, 20, 24, generator=torch.Generator().manual_seed(1)) > 0.6
    masks[5] = False
    expected = [[((a & b).sum() / (a | b).sum()).nan_to_num().item() for b in masks] for a in masks]
    np.testing.assert_allclose(mask_overlap(masks).numpy(), expected, atol=1e-6)
    large = torch.nn.functional.interpolate(masks[None].float(), scale_factor=8)[0] > 0  # every second pixel is looked at
    np.testing.assert_allclose(mask_overlap(large).numpy(), expected, atol=1e-6)


def test_the_better_of_two_like_masks_stays() -> None:
    logits, _ = halves()
    assert suppress_masks(logits > 0, np.array([0.5, 0.9, 0.1, 0.2, 0.4]), 0.5) == [1, 3, 2]
    assert suppress_masks(logits > 0, np.array([0.5, 0.9, 0.1, 0.2, 0.4]), 0.9) == [1, 0, 3, 2]


@pytest.mark.parametrize("batch", [7, 64])
def test_masks_of_a_scene(batch: int) -> None:
    """What is kept is distinct, in order of its score, and the same whatever goes through the decoder together."""
    model, image = load_model(device="cpu"), make_scene(5, SceneOptions()).frame(0)
    options = {"points_per_side": 8, "crop_grids": (), "pred_iou_thresh": 0.4, "stability_score_thresh": 0.5}
    judged = options | {"agreement_iou": 0.8}
    found = propose_masks(model, image, GenerateOptions(**judged, points_per_batch=batch))
    scores = [one.score for one in found]
    assert len(found) > 1 and scores == sorted(scores, reverse=True) and min(scores) > 0.4
    assert all(one.score <= one.predicted_iou for one in found)
    whole = propose_masks(model, image, GenerateOptions(**judged, points_per_batch=1000))
    assert [one.box_xyxy for one in whole] == [one.box_xyxy for one in found]
    alone = propose_masks(model, image, GenerateOptions(**options))
    assert len(alone) > len(found) and all(one.score == one.predicted_iou for one in alone)


def test_nothing_to_agree_on() -> None:
    model, image = load_model(device="cpu"), np.zeros((64, 64, 3), np.uint8)
    options = GenerateOptions(points_per_side=2, crop_grids=(), pred_iou_thresh=1.0, agreement_iou=0.8)
    assert propose_masks(model, image, options) == []
