"""Memory attention: the current frame reads what its objects remember (SAM 2 paper, section 4 "Memory attention").

Shapes: N rows (objects), V pictures, T = (S/16)^2 tokens, D = 256, K remembered tokens of C = 64 channels: first whole
maps of T tokens, then pointer tokens, which carry no place.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.attention import attend
from sam2_pipeline.model.kept import Kept
from sam2_pipeline.model.layers import LayerNorm, in_pieces
from sam2_pipeline.model.learning import learns_on_gpu, turned
from sam2_pipeline.model.linear import Linear, PairedLinear
from sam2_pipeline.model.native.reading import read_memory, reads_natively
from sam2_pipeline.model.positions import rotary_tables

_QUERY_POSITION_WEIGHT = 0.1


class RotaryAttention(nn.Module):
    """Single-head attention whose queries and keys are turned by axial RoPE.

    Three exact rewritings keep it lean. (1) RoPE turns adjacent pairs of channels; both projections give the pairs as two
    contiguous halves, which no dot product notices. (2) Values are projected *after* the
    attention: softmax(q k^T)(m W_v) W_o = (softmax(q k^T) m)(W_v W_o), so the large product has C columns and not D.
    (3) On a CPU the keys of whole maps are never made: see ``native/read_maps.c``.
    """

    def __init__(self, dim: int, key_dim: int):
        super().__init__()
        self.q_proj = PairedLinear(dim, dim)
        self.k_proj = PairedLinear(key_dim, dim)
        self.v_proj = Linear(key_dim, dim)
        self.out_proj = Linear(dim, dim)
        self._of_values = Kept()

    @staticmethod
    def _rotate(x_NTD: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
        """Turns every pair, in float32."""
        if learns_on_gpu(x_NTD):
            return turned(x_NTD, cos_TP, sin_TP)
        a, b = x_NTD.float().chunk(2, dim=-1)
        result = torch.cat((torch.addcmul(a * cos_TP, b, sin_TP, value=-1), torch.addcmul(a * sin_TP, b, cos_TP)), dim=-1)
        return result.to(x_NTD.dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, tables: tuple[Tensor, Tensor], num_unplaced: int = 0) -> Tensor:
        """``q`` ``[N, T, D]``, ``k`` and ``v`` ``[N, K, C]``; the last ``num_unplaced`` keys are not turned."""

        def turned_keys(maps_NMTC: Tensor) -> Tensor:
            return self._rotate(self.k_proj(maps_NMTC), *tables)

        q = self._rotate(self.q_proj(q), *tables)
        if v.shape[-1] < q.shape[-1] and reads_natively(q, (k.shape[1] - num_unplaced) // q.shape[1]):
            attended = self._read_natively(q, k, v, tables, num_unplaced)
            if attended.isfinite().all():
                return self._project_values(attended)
        maps, unplaced = k.split((k.shape[1] - num_unplaced, num_unplaced), dim=1)
        placed = in_pieces(turned_keys, maps.unflatten(1, (-1, q.shape[1])), dim=1).flatten(1, 2)
        k = torch.cat((placed, self.k_proj(unplaced)), dim=1)
        if v.shape[-1] >= q.shape[-1] or learns_on_gpu(q):  # there is no fast gradient where widths differ
            return self.out_proj(attend(q, k, self.v_proj(v)))
        return self._project_values(attend(q, k, v.to(q.dtype)))

    def _read_natively(self, q: Tensor, k: Tensor, v: Tensor, tables: tuple[Tensor, Tensor], num_unplaced: int) -> Tensor:
        """In float32, whatever the products around it are rounded to: nothing else is as fast."""
        with torch.autocast("cpu", enabled=False):
            weight, bias = self.k_proj.operands()
            assert bias is not None
            return read_memory(q.float(), k, v, (weight, bias), tables, num_unplaced)

    def _project_values(self, attended: Tensor) -> Tensor:
        out, values = self.out_proj, self.v_proj

        def joined() -> tuple[Tensor, Tensor | None]:
            return out.weight @ values.weight, out.weight @ values.bias + out.bias

        return F.linear(attended, *self._of_values(joined, out.weight, out.bias, values.weight, values.bias))


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to memory, feed-forward; pre-norm."""

    def __init__(self, dim: int, memory_dim: int, feedforward_dim: int):
        super().__init__()
        self.self_attn = RotaryAttention(dim, dim)
        self.cross_attn_image = RotaryAttention(dim, memory_dim)
        self.linear1 = Linear(dim, feedforward_dim)
        self.linear2 = Linear(feedforward_dim, dim)
        self.norm1 = LayerNorm(dim)
        self.norm2 = LayerNorm(dim)
        self.norm3 = LayerNorm(dim)

    def attend_self(self, x_NTD: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        normed = self.norm1(x_NTD)
        return x_NTD + self.self_attn(normed, normed, normed, tables)

    def attend_memory(
        self, x_NTD: Tensor, keys: Tensor, values: Tensor, tables: tuple[Tensor, Tensor], num_unplaced: int
    ) -> Tensor:
        x = x_NTD + self.cross_attn_image(self.norm2(x_NTD), keys, values, tables, num_unplaced)
        return in_pieces(self._feed, x, dim=1)

    def _feed(self, x_NTD: Tensor) -> Tensor:
        return x_NTD + self.linear2(self.linear1(self.norm3(x_NTD), "relu"))


class MemoryAttention(nn.Module):
    """The stack of layers."""

    def __init__(self, dim: int, memory_dim: int, feedforward_dim: int, num_layers: int):
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(dim, memory_dim, feedforward_dim) for _ in range(num_layers))
        self.norm = LayerNorm(dim, rounds=False)

    def forward(
        self,
        frames_VDHW: Tensor,
        positions_DHW: Tensor,
        lanes_N: Tensor,
        memory_NKC: Tensor,
        memory_positions_NKC: Tensor,
        num_pointer_tokens: int,
    ) -> Tensor:
        """Row n reads its memory with the eyes of picture ``lanes_N[n]``; gives ``[N, D, h, h]``."""
        _, D, H, W = frames_VDHW.shape
        tables = rotary_tables(D, H, W, frames_VDHW.device)
        x = (frames_VDHW + _QUERY_POSITION_WEIGHT * positions_DHW).flatten(2).transpose(1, 2)
        # Up to the first look at a memory all objects of a picture are the same row: do that part once per picture.
        x = cast(MemoryAttentionLayer, self.layers[0]).attend_self(x, tables)[lanes_N]

        def read(x_NTD: Tensor, memory_NKC: Tensor, positions_NKC: Tensor) -> Tensor:
            keys = memory_NKC + positions_NKC
            for index, layer in enumerate(cast(Sequence[MemoryAttentionLayer], self.layers)):
                if index:
                    x_NTD = layer.attend_self(x_NTD, tables)
                x_NTD = layer.attend_memory(x_NTD, keys, memory_NKC, tables, num_pointer_tokens)
            return self.norm(x_NTD)

        x = in_pieces(read, x, memory_NKC, memory_positions_NKC, dim=0)
        return x.transpose(1, 2).reshape(-1, D, H, W)
