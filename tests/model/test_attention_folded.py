"""Attention between few tokens and a whole map, with the map's projections folded away, equals the textbook's form."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_pipeline.model.attention import Attention


def textbook(layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Everything projected, in float64."""
    layer = layer.double()

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (layer.num_heads, -1)).transpose(1, 2)

    N = max(len(q), len(k))
    q, k, v = (heads(linear(x.double())).expand(N, -1, -1, -1) for linear, x in
               ((layer.q_proj, q), (layer.k_proj, k), (layer.v_proj, v)))  # fmt: skip
    x = layer.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).float()
    layer.float()
    return x


@pytest.mark.parametrize(
    "rows_q, queries, rows_k, keys",
    [(2, 8, 2, 400), (2, 400, 2, 8), (1, 400, 3, 8), (3, 8, 1, 400), (2, 8, 2, 8), (3, 20, 1, 99), (1, 30, 3, 20), (1, 7, 1, 99)],
)
def test_every_form_equals_the_textbooks(rows_q: int, queries: int, rows_k: int, keys: int) -> None:
    torch.manual_seed(0)
    layer = Attention(256, 128, 8)
    for linear in (layer.q_proj, layer.k_proj):
        torch.nn.init.normal_(linear.weight, std=0.15)  # sharp: scores of some tens
        torch.nn.init.normal_(linear.bias)
    q, k, v = torch.randn(rows_q, queries, 256), torch.randn(rows_k, keys, 256), torch.randn(rows_k, keys, 256)
    torch.testing.assert_close(layer(q, k, v), textbook(layer, q, k, v), rtol=0, atol=2e-5)


def test_in_training_every_parameter_has_a_gradient() -> None:
    torch.manual_seed(0)
    layer, q, k = Attention(256, 128, 8), torch.randn(2, 8, 256), torch.randn(2, 200, 256)
    with torch.enable_grad():
        read, written = layer(q, k, k), layer(k, q, q)
        (read.sum() + written.sum()).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    torch.testing.assert_close(layer(q, k, k), read, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer(k, q, q), written, rtol=0, atol=1e-5)
