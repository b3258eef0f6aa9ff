"""Attention as the image trunk, the mask decoder and the memory attention use it.

Shapes: N batch, T map tokens, L other tokens, E inner width, h heads of width e, X = h * L.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.layers import eager_on_cpu, learns_on_cpu
from sam2_pipeline.model.learning import learns_on_gpu
from sam2_pipeline.model.linear import Linear

# `_attend_narrow_values` holds so many scores at a time (16 MB), and looks at so many keys beforehand.
_SCORES_AT_ONCE = 2**22
_SAMPLED_KEYS = 256
_PLAIN_KEYS, _FEW = 2048, 16  # see `dot_product_attention`


def dot_product_attention(q_NhQe: Tensor, k_NhKe: Tensor, v_NhKe: Tensor, bias_QK: Tensor | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(e) + bias) v``, by PyTorch's fused kernels. In training on a CPU these are slower than the plain
    form on the way back, above all in bfloat16; where its scores would fill the memory they are used all the same. On a GPU they
    are slower where queries or keys are few, which fill a corner of the kernels' tiles."""
    if learns_on_cpu(q_NhQe):
        plain = k_NhKe.shape[-2] <= _PLAIN_KEYS
    else:
        plain = learns_on_gpu(q_NhQe) and min(q_NhQe.shape[-2], k_NhKe.shape[-2]) <= _FEW
    if not plain:
        return F.scaled_dot_product_attention(q_NhQe, k_NhKe, v_NhKe, attn_mask=bias_QK)
    with torch.autocast(q_NhQe.device.type, enabled=False):  # which would make it a softmax in float32
        scores = q_NhQe * q_NhQe.shape[-1] ** -0.5 @ k_NhKe.mT
        return (scores if bias_QK is None else scores + bias_QK).softmax(dim=-1) @ v_NhKe


class Attention(nn.Module):
    """Multi-head attention with projections to an inner width; the batch of queries or of keys may be 1, shared by the others.

    Between few tokens and a whole map, the projections of the map are folded into those of the tokens, which is exact:
    (m W_k) (t W_q)^T = m (t W_q W_k^T)^T. With L tokens and h heads the map then meets L x h vectors in all, where each of its
    projections has E columns. The bias of the keys adds the same to all scores of a query, so softmax does not see it.
    In training nothing is folded, every parameter has its gradient; and compilers and exporters see the plain form.
    """

    def __init__(self, dim: int, inner_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = Linear(dim, inner_dim)
        self.k_proj = Linear(dim, inner_dim)
        self.v_proj = Linear(dim, inner_dim)
        self.out_proj = Linear(inner_dim, dim)

    def _heads(self, x_NTE: Tensor) -> Tensor:
        N, T, E = x_NTE.shape
        return x_NTE.reshape(N, T, self.num_heads, E // self.num_heads).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q`` ``[N or 1, Tq, D]``, ``k`` and ``v`` ``[N or 1, Tk, D]``, to ``[N, Tq, D]``."""
        E = self.q_proj.out_features
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            few_queries, few_keys = (x.shape[1] * self.num_heads < E for x in (q, k))
            if few_queries and k.shape[1] >= E and k.shape[0] == q.shape[0]:
                return self._tokens_read_map(q, k, v)
            if k.shape[0] == 1 < q.shape[0]:  # one map for all: their queries may as well come from one row
                return self.forward(q.flatten(0, 1)[None], k, v).view(q.shape)
            if few_keys and q.shape[1] >= E:
                return self._map_reads_tokens(q, k, v)
        q, k, v = self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        N = max(q.shape[0], k.shape[0])
        q, k, v = (x.expand(N, -1, -1, -1) for x in (q, k, v))
        x = dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def _tokens_read_map(self, q_NLD: Tensor, k_NTD: Tensor, v_NTD: Tensor) -> Tensor:
        """Few queries, many keys: neither keys nor values are projected."""
        q_NhLe = self._heads(self.q_proj(q_NLD))
        h, L, e = q_NhLe.shape[1:]
        of_keys_heD, of_values_heD = (linear.operands()[0].unflatten(0, (h, e)) for linear in (self.k_proj, self.v_proj))
        folded_NXD = (q_NhLe * e**-0.5 @ of_keys_heD).flatten(1, 2)
        weights_NXT = (folded_NXD @ k_NTD.mT).softmax(dim=-1)
        read_NhLD = (weights_NXT @ v_NTD).unflatten(1, (h, L))
        x = (read_NhLD @ of_values_heD.mT).transpose(1, 2).flatten(2)
        return self.out_proj(x + self.v_proj.bias)  # the weights of a query add up to 1

    def _map_reads_tokens(self, q_NTD: Tensor, k_NLD: Tensor, v_NLD: Tensor) -> Tensor:
        """Many queries, few keys: the queries are not projected, and what they read has its final width at once."""
        k_NhLe, v_NhLe = self._heads(self.k_proj(k_NLD)), self._heads(self.v_proj(v_NLD))
        h, L, e = k_NhLe.shape[1:]
        k_NhLe = k_NhLe * e**-0.5
        (of_queries, bias), (of_result, _) = self.q_proj.operands(), self.out_proj.operands()
        assert bias is not None
        folded_NXD = (k_NhLe @ of_queries.unflatten(0, (h, e))).flatten(1, 2)
        bias_NX1 = (k_NhLe @ bias.view(h, e, 1)).flatten(1, 2)
        values_NXD = (v_NhLe @ of_result.T.unflatten(0, (h, e))).flatten(1, 2)
        scores_NXT = folded_NXD @ q_NTD.mT + bias_NX1
        weights_NXT = scores_NXT.unflatten(1, (h, L)).softmax(dim=2).flatten(1, 2)
        return torch.add(weights_NXT.mT @ values_NXD, self.out_proj.bias)


def attend(q_NQE: Tensor, k_NKE: Tensor, v_NKC: Tensor) -> Tensor:
    """Single-head ``softmax(q k^T / sqrt(E)) v``, ``[N, Q, C]``, where values may be narrower than keys (C < E)."""
    narrow = v_NKC.shape[-1] < q_NQE.shape[-1]
    if narrow and eager_on_cpu(q_NQE) and q_NQE.dtype == torch.float32 and not torch.is_grad_enabled():
        return torch.stack([_attend_narrow_values(q, k, v) for q, k, v in zip(q_NQE, k_NKE, v_NKC, strict=True)])
    return dot_product_attention(q_NQE[:, None], k_NKE[:, None], v_NKC[:, None])[:, 0]


def _attend_narrow_values(q_QE: Tensor, k_KE: Tensor, v_KC: Tensor) -> Tensor:
    """The same block by block: PyTorch's fused CPU kernel wants values as wide as the keys, its general path the Q x K matrix.

    A softmax may subtract any number near a row's largest score. The largest score of a sample of the keys is nearly always
    near enough; where it is not, a weight overflows, and all keys are looked at.
    """
    q_QE = q_QE * q_QE.shape[-1] ** -0.5
    keys_at_once = max(_SCORES_AT_ONCE // len(q_QE), 1)
    blocks = k_KE.split(keys_at_once)
    sample = k_KE[:: -(-len(k_KE) // _SAMPLED_KEYS)]
    attended = _attend_shifted(q_QE, blocks, v_KC, (q_QE @ sample.T).amax(dim=1))
    if not attended.isfinite().all():
        largest_Q = torch.stack([(q_QE @ keys.T).amax(dim=1) for keys in blocks]).amax(dim=0)
        attended = _attend_shifted(q_QE, blocks, v_KC, largest_Q)
    return attended


def _attend_shifted(q_QE: Tensor, blocks: Sequence[Tensor], v_KC: Tensor, shift_Q: Tensor) -> Tensor:
    """``softmax(q k^T) v`` by weights ``exp(q k^T - shift)``: infinite or NaN where one overflows.

    The shift rides along in the product as one more channel, and the sum of the weights comes out as one more value.
    """
    q_QE = torch.cat((q_QE, -shift_Q[:, None]), dim=1)
    v_KC = torch.cat((v_KC, v_KC.new_ones(len(v_KC), 1)), dim=1)
    weighted = q_QE.new_zeros(len(q_QE), v_KC.shape[1])
    for k, v in zip(blocks, v_KC.split(len(blocks[0])), strict=True):
        k = torch.cat((k, k.new_ones(len(k), 1)), dim=1)
        weighted.addmm_((q_QE @ k.T).exp_(), v)
    return weighted[:, :-1] / weighted[:, -1:]
