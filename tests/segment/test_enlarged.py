"""Areas and boxes told from low-resolution logits are those of the enlarged masks, pixel for pixel."""

import numpy as np
import pytest
import torch
from golden.synthetic_inputs import smooth_noise

from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.segment import enlarged
from sam2_pipeline.segment.enlarged import measure_enlarged

LEVELS = (0.0, 1.0, -1.0)


def direct(logits: torch.Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    large = resize_maps(logits[:, None], size)[:, 0]
    areas = np.array([[int((mask > level).sum()) for mask in large] for level in LEVELS])
    boxes = np.zeros((len(logits), 4), int)
    for box, mask in zip(boxes, large > 0, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        if len(x):
            box[:] = int(x.min()), int(y.min()), int(x.max()), int(y.max())
    return areas, boxes


@pytest.mark.parametrize("size", [(90, 120), (200, 131), (48, 48), (47, 300), (20, 30), (20, 200), (1, 7)])
@pytest.mark.parametrize("cells", [3, 30])
@pytest.mark.parametrize("most_unclear", [0.0, enlarged._MOST_UNCLEAR, 1.0])
def test_equals_enlarging(size: tuple[int, int], cells: int, most_unclear: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether cells are looked at (1), or masks with any outline are enlarged (0), or the one or the other."""
    monkeypatch.setattr(enlarged, "_MOST_UNCLEAR", most_unclear)
    logits = torch.from_numpy(smooth_noise((6, 48, 48), 7, cells, 6.0))
    logits[1] -= 20  # empty
    logits[2] += 20  # full
    logits[3] = torch.where(torch.arange(48 * 48).view(48, 48) == 700, 5.0, -30.0)  # one speck
    found = measure_enlarged(logits, size, LEVELS)
    areas, boxes = direct(logits, size)
    np.testing.assert_array_equal(found.area_LN.numpy(), areas)
    np.testing.assert_array_equal(found.box_N4.numpy(), boxes)


def test_a_few_cells_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.from_numpy(smooth_noise((3, 48, 48), 8, 9, 6.0))
    whole = measure_enlarged(logits, (90, 120), LEVELS)
    monkeypatch.setattr(enlarged, "_MOST_UNCLEAR", 1.0)
    monkeypatch.setattr(enlarged, "_CELLS_TOGETHER", 50)
    parts = measure_enlarged(logits, (90, 120), LEVELS)
    assert torch.equal(parts.area_LN, whole.area_LN) and torch.equal(parts.box_N4, whole.box_N4)


def test_only_outlines_are_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the point of it: far fewer pixels than the picture has."""
    seen = []
    pixels = enlarged._Axis.pixels
    monkeypatch.setattr(enlarged, "_MOST_UNCLEAR", 1.0)
    monkeypatch.setattr(enlarged._Axis, "pixels", lambda axis, cells: seen.append(len(cells)) or pixels(axis, cells))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = (15 - ((y - 30) ** 2 + (x - 30) ** 2).sqrt())[None] * 3
    measure_enlarged(disc, (640, 640), LEVELS)
    assert 0 < sum(seen) / 2 < 0.1 * 64 * 64
