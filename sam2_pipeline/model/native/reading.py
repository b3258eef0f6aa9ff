"""Tensors in and out of `read_maps.c`: attention of a frame's tokens to what one or several objects remember.

Shapes: N rows (objects), T = side^2 tokens, D channels of queries, C of memories, M maps, U keys without a place.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from sam2_pipeline.model.native.library import native

_LANES = 32  # queries that the kernel takes together
_FEWEST_MAPS = 2  # its tables cost about as much as the keys of one map
_SAMPLED_KEYS = 256
_ALIGNMENT = 64


def reads_natively(q_NTD: Tensor, maps: int) -> bool:
    """Whether the kernel can do this, and pays."""
    return (
        q_NTD.device.type == "cpu"
        and q_NTD.dtype != torch.float64
        and maps >= _FEWEST_MAPS
        and math.isqrt(q_NTD.shape[1]) ** 2 == q_NTD.shape[1]
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and native().library is not None
    )


def read_memory(
    q_NTD: Tensor,
    keys_NKC: Tensor,
    values_NKC: Tensor,
    projection: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    num_unplaced: int,
) -> Tensor:
    """``softmax(q k^T / sqrt(D)) v``, ``[N, T, C]``, where ``k`` is what ``projection`` and RoPE make of the keys.

    Infinite or NaN where a score is too far above those of a sample of the keys (see `attention.attend`).

    Args:
        q_NTD: queries, projected and turned; their channels are halves, not adjacent pairs.
        keys_NKC, values_NKC: whole maps of T tokens, then ``num_unplaced`` tokens that RoPE leaves alone.
        projection: weight ``[D, C]`` and bias ``[D]`` of the keys, in the queries' order of channels.
        tables: cosines and sines ``[T, D / 2]``.
    """
    queries = q_NTD * (math.log2(math.e) / q_NTD.shape[-1] ** 0.5)  # the kernel's exponentials are powers of two
    rows = zip(queries, keys_NKC.float(), values_NKC.float(), strict=True)
    return torch.stack([_read_row(q, k, v, projection, tables, num_unplaced) for q, k, v in rows])


def _read_row(
    q_TD: Tensor,
    keys_KC: Tensor,
    values_KC: Tensor,
    projection: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    num_unplaced: int,
) -> Tensor:
    placed = len(keys_KC) - num_unplaced
    few = torch.arange(0, placed, -(-placed // _SAMPLED_KEYS))
    shift_T = (q_TD @ _turned(torch.addmm(projection[1], keys_KC[few], projection[0].T), tables, few % len(q_TD)).T).amax(dim=1)
    unplaced_TU = q_TD @ torch.addmm(projection[1], keys_KC[placed:], projection[0].T).T
    if num_unplaced:
        shift_T = torch.maximum(shift_T, unplaced_TU.amax(dim=1))
    weighted_TC, total_T = _read_maps(q_TD, keys_KC[:placed], values_KC[:placed], projection, tables, shift_T)
    weights_TU = torch.exp2(unplaced_TU - shift_T[:, None])
    weighted_TC.addmm_(weights_TU, values_KC[placed:])
    return weighted_TC / (total_T + weights_TU.sum(dim=1))[:, None]


def _turned(keys_KD: Tensor, tables: tuple[Tensor, Tensor], places_K: Tensor) -> Tensor:
    cos, sin = (table[places_K] for table in tables)
    a, b = keys_KD.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def _read_maps(
    q_TD: Tensor,
    keys_PC: Tensor,
    values_PC: Tensor,
    projection: tuple[Tensor, Tensor],
    tables: tuple[Tensor, Tensor],
    shift_T: Tensor,
) -> tuple[Tensor, Tensor]:
    """(sum of the values, each times 2 to the power of its score less the shift, ``[T, C]``; sum of those weights ``[T]``)."""
    library, parallel = native().library, native().parallel
    assert library is not None
    (T, D), C = q_TD.shape, keys_PC.shape[1]
    side, pairs = math.isqrt(T), D // 4
    padded = -(-T // _LANES) * _LANES
    queries_DT = q_TD.new_zeros(D, padded)
    queries_DT[:, :T] = q_TD.T
    shift = shift_T.new_zeros(padded)
    shift[:T] = shift_T
    cos, sin = tables
    axes = [cos[:side, :pairs], sin[:side, :pairs], cos[::side, pairs:], sin[::side, pairs:]]
    columns = torch.cat((projection[0], projection[1][:, None]), dim=1).view(2, 2, pairs, C + 1)  # half, axis, pair, column
    given = [t.contiguous() for t in (*axes, columns[:, 0], columns[:, 1], keys_PC, values_PC, shift)]
    weighted, total = q_TD.new_empty(padded, C), q_TD.new_empty(padded)
    scratch_size = library.scratch_floats(side, side, pairs, C)

    def read(begin: int, end: int, threads: int) -> None:
        scratch = torch.empty(threads * scratch_size + _ALIGNMENT)
        aligned = scratch[-(scratch.data_ptr() // 4) % (_ALIGNMENT // 4) :]
        pointers = [t.data_ptr() for t in (*given, weighted, total, aligned)]
        sizes = side, side, pairs, C, len(keys_PC) // T
        library.read_maps(queries_DT.data_ptr(), padded, begin, end, *sizes, *pointers, threads, parallel)

    threads = min(torch.get_num_threads(), padded // _LANES)
    if threads == 1 or parallel is not None:
        read(0, padded, threads)
    else:
        step = -(-padded // (_LANES * threads)) * _LANES
        list(_pool(threads, os.getpid()).map(lambda begin: read(begin, min(begin + step, padded), 1), range(0, padded, step)))
    return weighted[:T], total[:T]


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads for the kernel, which holds no lock while it works. Threads do not survive a fork, hence the process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="read_maps")
