"""Triton kernels over many short rows, for training on a GPU: what PyTorch's own take most of a step for.

Its layer norm gives a row of 4 to 400 channels a block of threads of its own, and its sum over rows (the gradient of every bias)
uses few threads at a time: both are ten times slower than the memory that they read. Turning pairs of channels (RoPE) is a dozen
passes there, here one.

Every kernel takes a tile of ROWS x WIDTH entries at a time, WIDTH the next power of two of the channels C. What is computed is in
float32, whatever comes in or goes out.
"""

# As Triton has it: ROWS and WIDTH are known when a kernel is compiled, a name with _at is an address.
# mypy: disable-error-code="misc,no-untyped-def,attr-defined"

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # PyTorch without CUDA comes without it
    AVAILABLE = False
else:
    AVAILABLE = True

_TILE, _SUMMED_TILE = 2048, 8192  # entries
_PROGRAMS = 264  # that add rows up, each its share of them: two for every multiprocessor of a large GPU


def _tile(channels: int) -> dict[str, int]:
    width = 1 << (channels - 1).bit_length()
    return {"ROWS": max(_TILE // width, 1), "WIDTH": width}


def normalise(x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Layer norm of contiguous rows ``[..., C]``: the result in ``dtype``; and every row's mean and factor, ``[2, rows]``."""
    C = x.shape[-1]
    y, tile = torch.empty_like(x, dtype=dtype), _tile(C)
    rows = x.numel() // C
    moments = torch.empty(2, rows, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _normalise[(-(-rows // tile["ROWS"]),)](x, weight_C, bias_C, y, moments, rows, eps, C, **tile)
    return y, moments


def normalise_back(gradient: Tensor, x: Tensor, weight_C: Tensor, moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `normalise` for ``x``, in its own type, and for weight and bias, in float32; ``gradient`` is contiguous."""
    C = x.shape[-1]
    tile, rows, given = _tile(C), x.numel() // C, torch.empty_like(x)
    programs = min(-(-rows // tile["ROWS"]), _PROGRAMS)
    sums = torch.empty(2, programs, C, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _normalise_back[(programs,)](gradient, x, weight_C, moments, given, sums, rows, C, **tile)
    of_weight, of_bias = sums.sum(dim=1)
    return given, of_weight, of_bias


def sum_rows(x_RC: Tensor) -> Tensor:
    """Sums ``[C]``, float32, of contiguous rows."""
    rows, C = x_RC.shape
    width = min(1 << (C - 1).bit_length(), 64)
    tile = {"ROWS": _SUMMED_TILE // width, "WIDTH": width}
    programs = min(-(-rows // tile["ROWS"]), _PROGRAMS // 2)
    sums = torch.empty(programs, C, dtype=torch.float32, device=x_RC.device)
    with torch.cuda.device_of(x_RC):
        _sum_rows[(programs, -(-C // width))](x_RC, sums, rows, C, **tile)
    return sums.sum(dim=0)


def turn(x: Tensor, cos_TP: Tensor, sin_TP: Tensor, back: bool = False) -> Tensor:
    """Contiguous rows ``[..., T, 2 P]`` whose channels p and P + p are turned together, by the angle of their place; or back."""
    P = cos_TP.shape[1]
    y, tile, rows = torch.empty_like(x), _tile(P), x.numel() // (2 * P)
    with torch.cuda.device_of(x):
        _turn[(-(-rows // tile["ROWS"]),)](x, cos_TP, sin_TP, y, rows, len(cos_TP), -1.0 if back else 1.0, P, **tile)
    return y


if AVAILABLE:

    @triton.jit(do_not_specialize=("rows",))
    def _normalise(x_at, weight_at, bias_at, y_at, moments_at, rows, eps, C, ROWS: tl.constexpr, WIDTH: tl.constexpr):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        column = tl.arange(0, WIDTH)
        there, known = row < rows, column < C
        inside = there[:, None] & known[None, :]
        place = row[:, None] * C + column[None, :]
        x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(x, axis=1) / C
        apart = tl.where(inside, x - mean[:, None], 0.0)
        factor = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=1) / C + eps)
        weight = tl.load(weight_at + column, mask=known, other=0.0)
        bias = tl.load(bias_at + column, mask=known, other=0.0)
        y = apart * factor[:, None] * weight[None, :] + bias[None, :]
        tl.store(y_at + place, y.to(y_at.dtype.element_ty), mask=inside)
        tl.store(moments_at + row, mean, mask=there)
        tl.store(moments_at + rows + row, factor, mask=there)

    @triton.jit(do_not_specialize=("rows",))
    def _normalise_back(
        gradient_at,
        x_at,
        weight_at,
        moments_at,
        given_at,
        sums_at,
        rows,
        C,
        ROWS: tl.constexpr,
        WIDTH: tl.constexpr,
    ):
        program, programs = tl.program_id(0), tl.num_programs(0)
        column = tl.arange(0, WIDTH)
        known = column < C
        weight = tl.load(weight_at + column, mask=known, other=0.0)
        of_weight = tl.zeros((ROWS, WIDTH), tl.float32)
        of_bias = tl.zeros((ROWS, WIDTH), tl.float32)
        for block in range(program, tl.cdiv(rows, ROWS), programs):
            row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
            there = row < rows
            inside = there[:, None] & known[None, :]
            place = row[:, None] * C + column[None, :]
            x = tl.load(x_at + place, mask=inside, other=0.0).to(tl.float32)
            gradient = tl.load(gradient_at + place, mask=inside, other=0.0).to(tl.float32)
            mean = tl.load(moments_at + row, mask=there, other=0.0)
            factor = tl.load(moments_at + rows + row, mask=there, other=0.0)
            normal = tl.where(inside, (x - mean[:, None]) * factor[:, None], 0.0)
            weighted = gradient * weight[None, :]
            along = tl.sum(weighted * normal, axis=1) / C
            level = tl.sum(weighted, axis=1) / C
            given = (weighted - normal * along[:, None] - level[:, None]) * factor[:, None]
            tl.store(given_at + place, given.to(given_at.dtype.element_ty), mask=inside)
            of_weight += gradient * normal
            of_bias += gradient
        tl.store(sums_at + program * C + column, tl.sum(of_weight, axis=0), mask=known)
        tl.store(sums_at + (programs + program) * C + column, tl.sum(of_bias, axis=0), mask=known)

    @triton.jit(do_not_specialize=("rows",))
    def _sum_rows(x_at, sums_at, rows, C, ROWS: tl.constexpr, WIDTH: tl.constexpr):
        program, programs = tl.program_id(0), tl.num_programs(0)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        known = column < C
        sums = tl.zeros((ROWS, WIDTH), tl.float32)
        for block in range(program, tl.cdiv(rows, ROWS), programs):
            row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
            inside = (row < rows)[:, None] & known[None, :]
            sums += tl.load(x_at + row[:, None] * C + column[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(sums_at + program * C + column, tl.sum(sums, axis=0), mask=known)

    @triton.jit(do_not_specialize=("rows",))
    def _turn(x_at, cos_at, sin_at, y_at, rows, places, sign, P, ROWS: tl.constexpr, WIDTH: tl.constexpr):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        column = tl.arange(0, WIDTH)
        inside = (row < rows)[:, None] & (column < P)[None, :]
        first = row[:, None] * (2 * P) + column[None, :]
        angle = (row % places)[:, None] * P + column[None, :]
        a = tl.load(x_at + first, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x_at + first + P, mask=inside, other=0.0).to(tl.float32)
        cos = tl.load(cos_at + angle, mask=inside, other=0.0)
        sin = tl.load(sin_at + angle, mask=inside, other=0.0) * sign
        tl.store(y_at + first, (a * cos - b * sin).to(y_at.dtype.element_ty), mask=inside)
        tl.store(y_at + first + P, (a * sin + b * cos).to(y_at.dtype.element_ty), mask=inside)
