"""What inference makes of weights, once: rounded, in another order, or multiplied with each other."""

from collections.abc import Callable

import torch
from torch import Tensor


class Kept:
    """What is made of parameters, once for all inference under one precision; anew after one of them was trained, loaded or
    moved. Where a gradient is asked, or a compiler looks on, it is made at every call. Copies and pickles begin empty."""

    def __init__(self) -> None:
        self._held: tuple[tuple[object, ...], tuple[Tensor, Tensor | None]] | None = None  # one thing, as threads may share it

    def __call__(self, make: Callable[[], tuple[Tensor, Tensor | None]], *sources: Tensor) -> tuple[Tensor, Tensor | None]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(source.is_inference() for source in sources):
            return make()  # tensors of inference mode do not tell when they change
        state = (autocast_dtype(sources[0]), *((source.data_ptr(), source._version) for source in sources))
        held = self._held
        if held is None or held[0] != state:
            self._held = held = state, make()
        return held[1]

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Kept, ()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What products on the tensor's device are rounded to at present; None where they are not."""
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else None
