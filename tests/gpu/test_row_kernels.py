"""The Triton kernels of training on a CUDA device, against PyTorch's own operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_pipeline.model import learning
from sam2_pipeline.model.native import row_kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.skipif(not row_kernels.AVAILABLE, reason="there is no Triton"),
]

DEVICE = "cuda"
ROWS = 30001  # no multiple of any tile


def apart(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("channels", [4, 16, 48, 96, 128, 192, 384])
@pytest.mark.parametrize(("of", "into"), [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_layer_norm(channels: int, of: str, into: str) -> None:
    x = (2 * torch.randn(ROWS, channels, device=DEVICE) + 1).to(getattr(torch, of)).requires_grad_()
    weight, bias = (torch.randn(channels, device=DEVICE, requires_grad=True) for _ in range(2))
    upstream = torch.randn(ROWS, channels, device=DEVICE).to(getattr(torch, into))
    ours = learning.normalised(x, weight, bias, 1e-6, upstream.dtype)
    found = torch.autograd.grad(ours, (x, weight, bias), upstream)
    plain = F.layer_norm(x.float(), (channels,), weight, bias, 1e-6)
    expected = torch.autograd.grad(plain, (x, weight, bias), upstream.float())
    near = 1e-4 if of == into == "float32" else 1e-2
    assert ours.dtype == upstream.dtype and apart(ours, plain) < near
    assert all(apart(a, b) < near for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("channels", [1, 48, 100, 1536])
def test_sums_of_rows(channels: int) -> None:
    for rows in (1, 70, ROWS):
        x = torch.randn(rows, channels, device=DEVICE)
        assert (row_kernels.sum_rows(x) - x.double().sum(0)).abs().max() < 1e-3 * rows**0.5


def test_rotation_and_back() -> None:
    x = torch.randn(3, 2, 400, 128, device=DEVICE, requires_grad=True)
    angle = torch.rand(400, 64, device=DEVICE)
    a, b = x.chunk(2, dim=-1)
    plain = torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)
    ours, upstream = learning.turned(x, angle.cos(), angle.sin()), torch.randn_like(x)
    assert apart(ours, plain) < 1e-5
    [found], [expected] = (torch.autograd.grad(result, [x], upstream) for result in (ours, plain))
    assert apart(found, expected) < 1e-5
