"""Muon (Jordan et al., 2024): momentum whose steps are made orthogonal, for the weights of linear layers and convolutions.

The rule of `torch.optim.Muon`, which knows matrices only, and treats one after the other. A small model has over a hundred, so
launching the work takes a GPU's host longer than the work; here the matrices of one shape are treated together.
"""

from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as published
_ITERATIONS = 5
_MOMENTUM = 0.95
_UPDATE_RMS = 0.2  # of an update's entries, times the rate: that of AdamW's


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more, of which all but the first count as one. Rates and weight decay mean what they
    mean for AdamW."""

    def __init__(self, params: list[dict[str, Any]], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                matrices_GMN = torch.stack(self._directions(parameters)).flatten(2)
                # The rate may be a tensor (see `Optimizer.keep_rates_on`).
                reach = -group["lr"] * _UPDATE_RMS * max(matrices_GMN.shape[1:]) ** 0.5
                updates = (orthogonal(matrices_GMN) * reach).view(-1, *shape).unbind()
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, updates)

    def _directions(self, parameters: list[Tensor]) -> list[Tensor]:
        """Gradients with Nesterov's momentum."""
        gradients: list[Tensor] = []
        momenta: list[Tensor] = []
        for parameter in parameters:
            assert parameter.grad is not None
            gradients.append(parameter.grad)
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momenta.append(state["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
        return list(torch._foreach_lerp(gradients, momenta, _MOMENTUM))


def orthogonal(matrices_GMN: Tensor) -> Tensor:
    """About the nearest (semi-)orthogonal matrix of each, in bfloat16, by the Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    x = matrices_GMN.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_GMN.dtype)
