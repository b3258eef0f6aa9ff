"""Small pieces that several networks of the model share."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.kept import autocast_dtype
from sam2_pipeline.model.learning import learns_on_gpu, normalised

_PIECE_TOKENS = 2048  # per thread, see `in_pieces`


def learned(*shape: int) -> nn.Parameter:
    """A learned embedding, small and random until weights are loaded."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def constant(values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A vector on the device, the same one for the same values: copying waits for the device, and no CUDA graph may hold that."""
    return _constant(tuple(values), device, dtype)


@lru_cache(maxsize=1024)
@torch.inference_mode(False)  # what was first needed in inference mode must serve training too
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)


def layer_norm(x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, rounds: bool) -> Tensor:
    """Layer norm over the last dimension. With ``rounds`` the result only goes into products, perhaps by way of an activation, so
    where autocast would round it there, in training on a GPU it is written rounded."""
    if learns_on_gpu(x):
        return normalised(x, weight_C, bias_C, eps, (autocast_dtype(x) if rounds else None) or torch.float32)
    return F.layer_norm(x, weight_C.shape, weight_C, bias_C, eps)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over channels; for ``rounds`` see `layer_norm`."""

    def __init__(self, channels: int, eps: float = 1e-5, rounds: bool = True):
        super().__init__(channels, eps)
        self.rounds = rounds

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.weight, self.bias, self.eps, self.rounds)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of an NCHW map (biased variance, eps 1e-6)."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x.permute(0, 2, 3, 1), self.weight, self.bias, self.eps, rounds=True).permute(0, 3, 1, 2)


def eager_on_cpu(x: Tensor) -> bool:
    """Whether to arrange work for a CPU's caches; compilers and exporters see the plain form, and arrange it themselves."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def learns(x: Tensor) -> bool:
    """Whether a gradient will be asked: what is fast forward may be slow on the way back."""
    return x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def learns_on_cpu(x: Tensor) -> bool:
    """Whether it will be asked of a CPU."""
    return learns(x) and x.device.type == "cpu"


def in_pieces(function: Callable[..., Tensor], x: Tensor, *others: Tensor, dim: int, step: int = 1) -> Tensor:
    """``function`` of tokens ``x`` ``[..., C]`` (and ``others``) that treats every ``step`` entries of ``dim`` on their own.

    On a CPU it is given one piece of its arguments after the other: what lies between its layers, often several times as
    wide as ``x``, then stays in the cache, where that of the whole would fill fresh memory each time.
    """
    if not eager_on_cpu(x):
        return function(x, *others)
    tokens_a_step = step * x.shape[:-1].numel() // x.shape[dim]
    length = step * max(1, _PIECE_TOKENS * torch.get_num_threads() // tokens_a_step)
    if length >= x.shape[dim]:
        return function(x, *others)
    return torch.cat([function(*pieces) for pieces in zip(*(t.split(length, dim) for t in (x, *others)), strict=True)], dim)


def resize_maps(maps_NCHW: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Bilinear resizing in float32, pixel centres aligned as everywhere in SAM 2."""
    return F.interpolate(maps_NCHW.float(), size=size, mode="bilinear", align_corners=False, antialias=antialias)
