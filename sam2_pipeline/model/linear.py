"""Linear layers that are faster in inference: `Linear` keeps its weight as the product reads it.

On a CPU in float32 that is oneDNN's order: PyTorch's own path puts the weight in order again at every call, and applies the
activation in a second pass over the result. The operators used here are those of its compiler ("freezing"), which calls them in
the same way. Under autocast it is the rounded weight: autocast rounds weights again at every call where no gradient is asked,
which on a GPU is two kernels of the three that a small layer takes.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.layers import eager_on_cpu

Activation = Literal["none", "relu", "gelu"]

_FEWEST_ROWS = 512  # below, there is little to gain, and a second copy of the weight to pay
_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise")


class Linear(nn.Linear):
    """`nn.Linear`, then an activation. In inference, the layer holds a second copy of its weight."""

    _packed: tuple[tuple[int, int], Tensor] | None = None
    _rounded: tuple[tuple[object, ...], tuple[Tensor, Tensor | None]] | None = None

    def forward(self, input: Tensor, activation: Activation = "none") -> Tensor:
        if packs(input, self.weight):
            return torch.ops.mkldnn._linear_pointwise(input, self._pack(), self.bias, activation, [], "none")
        x = F.linear(input, *self.operands())
        return x if activation == "none" else F.relu(x) if activation == "relu" else F.gelu(x)

    def operands(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as products take them here and now: under autocast, rounded to its type."""
        weight, bias, kind = self.weight, self.bias, self.weight.device.type
        if not _rounds(weight) or not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return weight, bias
        dtype = torch.get_autocast_dtype(kind)
        state = (dtype, *(None if t is None else (t.data_ptr(), t._version) for t in (weight, bias)))
        if self._rounded is None or self._rounded[0] != state:
            self._rounded = state, (weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype))
        return self._rounded[1]

    def _pack(self) -> Tensor:
        """The weight in order; anew after it was trained, loaded or moved."""
        state = (self.weight.data_ptr(), self.weight._version)
        if self._packed is None or self._packed[0] != state:
            self._packed = state, torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
        return self._packed[1]

    def __getstate__(self) -> dict[str, object]:  # what is kept can be made again, and oneDNN's can be neither copied nor stored
        return {name: value for name, value in self.__dict__.items() if name not in ("_packed", "_rounded")}


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
    return (
        eager_on_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _FEWEST_ROWS * x.shape[-1]
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not weight.is_inference()  # such tensors do not tell when they change
        and _AVAILABLE
    )


def _rounds(weight: Tensor) -> bool:
    return (
        weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not weight.is_inference()  # such tensors do not tell when they change
        and not torch.compiler.is_compiling()
    )


_AVAILABLE = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
