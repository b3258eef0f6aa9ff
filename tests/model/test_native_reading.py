"""The compiled attention to memories equals the plain form: maps, pointers, sizes, threads, and scores that overflow."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sam2_pipeline.model import memory_attention
from sam2_pipeline.model.memory_attention import RotaryAttention
from sam2_pipeline.model.native import library, reading
from sam2_pipeline.model.native.reading import read_memory, reads_natively
from sam2_pipeline.model.positions import rotary_tables

pytestmark = pytest.mark.skipif(library.native().library is None, reason=library.native().reason or "compiled")


def case(side: int, maps: int, unplaced: int, dim: int = 256, channels: int = 64, loud: float = 1.0) -> dict:
    draw = torch.Generator().manual_seed(side + maps)
    T = side * side

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    return {
        "q_NTD": loud * normal(2, T, dim),
        "keys_NKC": normal(2, maps * T + unplaced, channels),
        "values_NKC": normal(2, maps * T + unplaced, channels),
        "projection": (normal(dim, channels) / channels**0.5, 0.3 * normal(dim)),
        "tables": rotary_tables(dim, side, side),
        "num_unplaced": unplaced,
    }


def direct(q_NTD: Tensor, keys_NKC: Tensor, values_NKC: Tensor, projection, tables, num_unplaced: int) -> Tensor:
    """Every key made, turned, and compared, in float64."""
    q, keys, values, weight, bias, cos, sin = (t.double() for t in (q_NTD, keys_NKC, values_NKC, *projection, *tables))
    keys = keys @ weight.T + bias
    maps = (keys.shape[1] - num_unplaced) // len(cos)
    a, b = keys[:, : maps * len(cos)].unflatten(1, (maps, -1)).chunk(2, dim=-1)
    turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(1, 2)
    keys = torch.cat((turned, keys[:, maps * len(cos) :]), dim=1)
    return ((q @ keys.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ values).float()


@pytest.mark.parametrize("side, maps, unplaced", [(8, 2, 0), (8, 7, 64), (6, 3, 4), (16, 5, 12), (5, 9, 4), (8, 15, 4)])
def test_equals_the_direct_form(side: int, maps: int, unplaced: int) -> None:
    given = case(side, maps, unplaced)
    torch.testing.assert_close(read_memory(**given), direct(**given), rtol=0, atol=1e-5)


def test_other_widths() -> None:
    """Those of the small model, and channels that are no multiple of anything."""
    for dim, channels in ((128, 64), (64, 20)):
        given = case(8, 3, 4, dim, channels)
        torch.testing.assert_close(read_memory(**given), direct(**given), rtol=0, atol=1e-5)


def test_sharp_attention() -> None:
    """Scores of some hundreds: where the sample of keys is not enough the result says so, elsewhere it is right."""
    given = case(8, 4, 4, loud=40.0)
    found, expected = read_memory(**given), direct(**given)
    fine = found.isfinite().all(dim=-1)
    assert fine.float().mean() > 0.5
    torch.testing.assert_close(found[fine], expected[fine], rtol=0, atol=5e-3)


def test_an_overflow_shows() -> None:
    """A key that no sample saw, and that outshines them by more than float32 holds, must not give a plausible number."""
    given = case(8, 8, 0)
    given["keys_NKC"][:, 1] = 200 * given["q_NTD"][:, 1] @ given["projection"][0]
    assert not read_memory(**given).isfinite().all()


def test_the_layer_falls_back_on_the_plain_form() -> None:
    draw = torch.Generator().manual_seed(0)
    layer, tables = RotaryAttention(256, 64), rotary_tables(256, 8, 8)
    q, k = torch.randn(1, 64, 256, generator=draw), torch.randn(1, 8 * 64, 64, generator=draw)
    k[:, 1] *= 1000
    with torch.no_grad():
        found = layer(q, k, k, tables)
    with torch.enable_grad():
        expected = layer(q, k, k, tables)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-2)


def test_rounded_products_around_it_leave_it_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def reading(*given: Any) -> Tensor:
        taken.append((given[0].dtype, torch.is_autocast_enabled("cpu")))
        return read_memory(*given)

    monkeypatch.setattr(memory_attention, "read_memory", reading)
    draw = torch.Generator().manual_seed(0)
    layer, tables = RotaryAttention(256, 64), rotary_tables(256, 8, 8)
    q, k = torch.randn(1, 64, 256, generator=draw), torch.randn(1, 3 * 64, 64, generator=draw)
    with torch.no_grad():
        expected = layer(q, k, k, tables)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.q_proj(q).dtype == torch.bfloat16
            found = layer(q, k, k, tables)
    assert taken == [(torch.float32, False)] * 2
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("openmp", [True, False])
def test_threads_share_the_work(monkeypatch: pytest.MonkeyPatch, openmp: bool) -> None:
    """Those of PyTorch's OpenMP, or where that is not found, threads of our own."""
    if not openmp:
        monkeypatch.setattr(reading, "native", lambda: replace(library.native(), parallel=None))
    given = case(8, 3, 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = read_memory(**given)
        torch.set_num_threads(2)
        assert torch.equal(read_memory(**given), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch has threads of another kind")
def test_the_openmp_of_pytorch_is_found() -> None:
    assert library.native().parallel is not None


def test_where_it_is_used() -> None:
    q = torch.zeros(1, 64, 256)
    assert reads_natively(q, maps=2)
    assert not reads_natively(q, maps=1), "making the keys of one map is cheaper"
    assert not reads_natively(q.double(), maps=2) and not reads_natively(q[:, :40], maps=2)
    with torch.enable_grad():
        assert not reads_natively(q, maps=2), "it knows no gradients"


def test_a_compiler_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAM2_PIPELINE_CACHE", str(tmp_path))
    for command, reason in (("false", "false failed"), ("no-such-compiler", "no C compiler")):
        monkeypatch.setenv("CC", command)
        library.native.cache_clear()
        assert library.native().library is None and reason in library.native().reason
    monkeypatch.setenv("SAM2_PIPELINE_NATIVE", "0")
    library.native.cache_clear()
    assert "switched off" in library.native().reason
    monkeypatch.undo()
    library.native.cache_clear()
    assert library.native().library is not None
