"""Attention as the mask decoder and the memory attention use it.

Shapes: N batch, q / k queries and keys, E inner width, h heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Block sizes of `_attend_narrow_values` on a CPU: a block of scores (512 x 1024 floats) stays in the cache.
_QUERY_BLOCK, _KEY_BLOCK = 512, 1024


class Attention(nn.Module):
    """Multi-head attention with projections to an inner width; the batch of keys may be 1 and is then shared by all queries."""

    def __init__(self, dim: int, inner_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def _heads(self, x_NTE: Tensor) -> Tensor:
        N, T, E = x_NTE.shape
        return x_NTE.reshape(N, T, self.num_heads, E // self.num_heads).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q`` ``[N, Tq, D]``, ``k`` and ``v`` ``[N or 1, Tk, D]``, to ``[N, Tq, D]``."""
        q, k, v = self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        N = max(q.shape[0], k.shape[0])
        q, k, v = (x.expand(N, -1, -1, -1) for x in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).flatten(2))


def attend(q_NQE: Tensor, k_NKE: Tensor, v_NKC: Tensor) -> Tensor:
    """Single-head ``softmax(q k^T / sqrt(E)) v``, ``[N, Q, C]``, where values may be narrower than keys (C < E)."""
    narrow = v_NKC.shape[-1] < q_NQE.shape[-1]
    if narrow and q_NQE.device.type == "cpu" and q_NQE.dtype == torch.float32 and not torch.is_grad_enabled():
        return torch.stack([_attend_narrow_values(q, k, v) for q, k, v in zip(q_NQE, k_NKE, v_NKC, strict=True)])
    return F.scaled_dot_product_attention(q_NQE[:, None], k_NKE[:, None], v_NKC[:, None])[:, 0]


def _attend_narrow_values(q_QE: Tensor, k_KE: Tensor, v_KC: Tensor) -> Tensor:
    """The same by blocks with a running softmax (Milakov & Gimelshein, 2018).

    PyTorch's fused CPU kernel wants values as wide as the keys, and its general path writes the whole Q x K matrix.
    """
    q_QE = q_QE * q_QE.shape[-1] ** -0.5
    out = v_KC.new_empty(q_QE.shape[0], v_KC.shape[1])
    for start in range(0, q_QE.shape[0], _QUERY_BLOCK):
        q = q_QE[start : start + _QUERY_BLOCK]
        largest, total = q.new_full((len(q), 1), -torch.inf), q.new_zeros(len(q), 1)
        weighted = q.new_zeros(len(q), v_KC.shape[1])
        for keys, values in zip(k_KE.split(_KEY_BLOCK), v_KC.split(_KEY_BLOCK), strict=True):
            scores = q @ keys.T
            before, largest = largest, torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
            scores.sub_(largest).exp_()
            shrink = (before - largest).exp_()
            total.mul_(shrink).add_(scores.sum(dim=-1, keepdim=True))
            weighted.mul_(shrink).addmm_(scores, values)
        torch.div(weighted, total, out=out[start : start + _QUERY_BLOCK])
    return out
