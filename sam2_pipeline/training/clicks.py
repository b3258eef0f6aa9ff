"""Simulated prompts: clicks where the mask is wrong, boxes that are a little off (SAM 2 paper, section D.2.2).

Chance comes in as numbers in 0..1, one per row, so that a row's prompts do not depend on the rows beside it. Nothing here
waits for the GPU. Letters in names: N rows, S the side of the masks.
"""

import torch
from torch import Tensor

from sam2_pipeline.model.conventions import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, OBJECT
from sam2_pipeline.model.layers import constant

_BOX_NOISE = 0.1  # of the box's sides, at most


def first_clicks(truth_NSS: Tensor, draws_N: Tensor) -> tuple[Tensor, Tensor]:
    """A click anywhere on the object: points ``[N, 1, 2]`` and labels ``[N, 1]``; beside it where there is no object."""
    return correction_clicks(torch.zeros_like(truth_NSS), truth_NSS, draws_N)


def correction_clicks(predicted_NSS: Tensor, truth_NSS: Tensor, draws_N: Tensor) -> tuple[Tensor, Tensor]:
    """A click on some wrong pixel, all equally likely: points ``[N, 1, 2]`` (x, y) and labels ``[N, 1]``.

    A mask without fault gets a click on the background.
    """
    wrong = (predicted_NSS ^ truth_NSS).flatten(1)
    candidates = torch.where(wrong.any(dim=1, keepdim=True), wrong, ~truth_NSS.flatten(1))
    # Covers a truth that fills the picture and has been found exactly: any pixel will do.
    candidates = candidates | ~candidates.any(dim=1, keepdim=True)
    place = some_of(candidates, draws_N[:, None])
    side = truth_NSS.shape[-1]
    points = torch.stack((place % side, place // side), dim=-1).float()
    labels = torch.where(truth_NSS.flatten(1).gather(1, place), OBJECT, BACKGROUND)
    return points, labels


def some_of(candidates_NP: Tensor, draws_NK: Tensor) -> Tensor:
    """For every draw the place ``[N, K]`` of one of the row's candidates, all equally likely; the last place if it has none."""
    count = candidates_NP.cumsum(dim=1, dtype=torch.int32)
    rank = (draws_NK.double() * count[:, -1:]).int() + 1
    return torch.searchsorted(count, rank).clamp(max=candidates_NP.shape[1] - 1)


def boxes(truth_NSS: Tensor, draws_N4: Tensor) -> tuple[Tensor, Tensor]:
    """The objects' boxes with every side a little off, as points ``[N, 2, 2]`` and labels ``[N, 2]``.

    An object that is not there has no box: it gets the whole picture's.
    """
    side = truth_NSS.shape[-1]
    edges = []
    for occupied in (truth_NSS.any(dim=1), truth_NSS.any(dim=2)):  # columns, rows
        low = occupied.int().argmax(dim=1)
        high = side - 1 - occupied.flip(1).int().argmax(dim=1)
        edges.append(torch.stack((low, high), dim=1).float())
    corners = torch.stack(edges, dim=-1)  # [N, 2 corners, 2 axes]
    noise = (2 * draws_N4.view(-1, 2, 2) - 1) * _BOX_NOISE * (corners[:, 1:] - corners[:, :1])
    labels = constant((BOX_TOP_LEFT, BOX_BOTTOM_RIGHT), truth_NSS.device, torch.long).expand(len(truth_NSS), -1)
    return (corners + noise).clamp(0, side - 1), labels
