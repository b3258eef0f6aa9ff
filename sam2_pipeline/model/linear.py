"""Linear layers that are faster in inference: `Linear` keeps its weight as the product reads it.

On a CPU that is oneDNN's order, in float32 or rounded to bfloat16: PyTorch's own path puts the weight in order again at every
call, and applies the activation in a second pass over the result. The operators used here are those of its compiler ("freezing"),
which calls them in the same way. Elsewhere under autocast it is the rounded weight: autocast rounds weights again at every call
where no gradient is asked, which on a GPU is two kernels of the three that a small layer takes. In training on a GPU, the
gradient of the bias is its own.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.kept import Kept, autocast_dtype
from sam2_pipeline.model.layers import eager_on_cpu
from sam2_pipeline.model.learning import learns_on_gpu, with_bias

Activation = Literal["none", "relu", "gelu"]

_FEWEST_ROWS = {None: 512, torch.bfloat16: 256}  # by autocast's type; below, little to gain, and a copy of the weight to pay
_FEWEST_SUMMED = 4096  # rows; below, PyTorch's sum is as fast
_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise")


def rounded(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors as autocast would round them."""
    return tuple(None if t is None else t.to(autocast_dtype(t) or t.dtype) for t in tensors)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, with a cheaper gradient of the bias on a GPU."""
    # Whether it is training comes first: a compiler that looks on would take what is asked of a size for a law.
    if bias is None or not learns_on_gpu(x) or x.numel() < _FEWEST_SUMMED * x.shape[-1]:
        return F.linear(x, weight, bias)
    return with_bias(F.linear(x, weight, bias.detach()), bias)


class Linear(nn.Linear):
    """`nn.Linear`, then an activation. In inference, the layer holds a second copy of its weight."""

    _rearranges = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._operands, self._packed = Kept(), Kept()

    def forward(self, input: Tensor, activation: Activation = "none") -> Tensor:
        if packs(input, self.weight):
            weight, bias = self._packed(self._pack, *self._sources())
            return torch.ops.mkldnn._linear_pointwise(input.to(weight.dtype), weight, bias, activation, [], "none")
        x = product(input, *self.operands())
        return x if activation == "none" else F.relu(x) if activation == "relu" else F.gelu(x)

    def operands(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as products take them here and now: under autocast rounded, but in training that is left to it."""
        if not self._rearranges and (torch.is_grad_enabled() or autocast_dtype(self.weight) is None):
            return self.weight, self.bias
        return self._operands(self._round, *self._sources())

    def _sources(self) -> list[Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def _arranged(self) -> tuple[Tensor, Tensor | None]:
        return self.weight, self.bias

    def _round(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = rounded(*self._arranged())
        assert weight is not None
        return weight, bias

    def _pack(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._round()
        return torch.ops.mkldnn._reorder_linear_weight(weight.detach()), bias


class PairedLinear(Linear):
    """A linear layer with its output channels ordered 0, 2, 4, ..., 1, 3, 5, ...: adjacent pairs become two halves."""

    _rearranges = True

    def _arranged(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = (x.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1) for x in (self.weight, self.bias))
        return weight, bias


class MLP(nn.Module):
    """Linear layers with an activation between them. Keys ``layers.0``, ``layers.1``, ... as in the checkpoints."""

    def __init__(self, dims: list[int], activation: Activation = "relu"):
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(dims))
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, self.activation)
        return self.layers[-1](x)


def packs(x: Tensor, weight: Tensor) -> bool:
    """Whether a product of these goes the fast way."""
    if not eager_on_cpu(x):
        return False
    rounded_to = autocast_dtype(x)
    return (
        weight.dtype == torch.float32
        and (x.dtype == torch.float32 if rounded_to is None else rounded_to == torch.bfloat16 and _IN_BFLOAT16)
        and x.numel() >= _FEWEST_ROWS[rounded_to] * x.shape[-1]
        and not torch.is_grad_enabled()
        and not weight.is_inference()  # such tensors do not tell when they change
        and _AVAILABLE
    )


_AVAILABLE = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
_IN_BFLOAT16 = _AVAILABLE and torch.ops.mkldnn._is_mkldnn_bf16_supported()
