"""NumPy does what PyTorch does."""

import numpy as np
import pytest
import torch

from sam2_pipeline.model import layers
from sam2_pipeline.onnx import arrays
from sam2_pipeline.segment.clean import fill_holes


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(7, 13), (20, 30), (90, 31), (3, 100), (1, 1)])
def test_resizing(size: tuple[int, int], antialias: bool) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 20, 30)).astype(np.float32)
    expected = layers.resize_maps(torch.from_numpy(maps), size, antialias=antialias).numpy()
    np.testing.assert_allclose(
        arrays.resize_maps(maps, size, antialias), expected, atol=2e-5
    )  # PyTorch computes the shares in float32


@pytest.mark.parametrize("max_area", [0, 1, 8])
def test_holes(max_area: int) -> None:
    logits = np.random.default_rng(1).normal(0.6, 1, size=(3, 24, 32)).astype(np.float32)
    np.testing.assert_array_equal(arrays.fill_holes(logits, max_area), fill_holes(torch.from_numpy(logits), max_area).numpy())


def test_bfloat16() -> None:
    rounded = torch.randn(5, 7).to(torch.bfloat16)
    bits = arrays.to_bfloat16(rounded.float().numpy())
    assert bits.dtype == np.uint16
    np.testing.assert_array_equal(arrays.from_bfloat16(bits), rounded.float().numpy())
