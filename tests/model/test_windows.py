"""The image trunk's windows where they do not fit the map: no padding is computed, and the result is that of padding."""

import pytest
import torch

from sam2_pipeline.model import hiera, layers
from sam2_pipeline.model.hiera import MultiScaleAttention, pool


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (20, 18), (6, 20), (8, 8)])
def test_windows_cut_at_the_border(monkeypatch, pooled, size):
    torch.manual_seed(0)
    attention = MultiScaleAttention(12, 24, 2, pooled).eval()
    x = torch.randn(2, *size, 12)
    with torch.no_grad():
        unpadded = attention(x, 8)
        monkeypatch.setattr(hiera, "eager_on_cpu", lambda x: False)
        padded = attention(x, 8)
    assert unpadded.shape == padded.shape == (2, size[0] // (2 if pooled else 1), size[1] // (2 if pooled else 1), 24)
    torch.testing.assert_close(unpadded, padded, atol=2e-6, rtol=1e-5)


def test_padding_takes_part():
    """As in the reference: a map of 6 x 6 in a window of 8 is not what it is in a window of its own size."""
    torch.manual_seed(0)
    attention = MultiScaleAttention(12, 12, 1, pooled=False).eval()
    x = torch.randn(1, 6, 6, 12)
    with torch.no_grad():
        assert (attention(x, 8) - attention(x, 6)).abs().max() > 1e-3


def test_gradients_agree(monkeypatch):
    torch.manual_seed(0)
    attention = MultiScaleAttention(12, 24, 2, pooled=True)
    x = torch.randn(1, 10, 12, 12)
    with torch.enable_grad():
        attention(x, 8).square().sum().backward()
        unpadded = [p.grad.clone() for p in attention.parameters()]
        attention.zero_grad()
        monkeypatch.setattr(hiera, "eager_on_cpu", lambda x: False)
        attention(x, 8).square().sum().backward()
    for ours, theirs in zip(unpadded, (p.grad for p in attention.parameters()), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [8, 10])
def test_training_on_a_cpu_takes_a_way_of_its_own_to_the_same(monkeypatch, size):
    torch.manual_seed(0)
    block = MultiScaleAttention(12, 24, 2, pooled=True)
    results = []
    for plain in (True, False):
        monkeypatch.setattr(layers, "eager_on_cpu", lambda x, plain=plain: plain)
        x = torch.randn(2, size, 12, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.enable_grad():
            y = block(x, 8)
            block.zero_grad()
            y.square().sum().backward()
        results.append((y, x.grad, *(p.grad.clone() for p in block.parameters())))
    for own, fused in zip(*results, strict=True):
        torch.testing.assert_close(own, fused, atol=1e-4, rtol=1e-4)


def test_pooling_sends_gradients_back_to_the_largest():
    x = torch.randn(1, 4, 6, 3, requires_grad=True)
    with torch.enable_grad():
        pooled = pool(x)
        pooled.sum().backward()
    torch.testing.assert_close(pooled, pool(x.detach()))
    assert x.grad.sum() == pooled.numel() and (x.grad[x.grad > 0] == 1).all()
