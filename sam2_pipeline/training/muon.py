"""Muon (Jordan et al., 2024): momentum whose steps are made orthogonal, for the weights of linear layers and convolutions.

The rule of `torch.optim.Muon`, which knows matrices only, and treats one after the other. A small model has over a hundred, so
launching the work takes a GPU's host longer than the work; here matrices of about one shape are treated together.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, as published
_ITERATIONS = 5
_MOMENTUM = 0.95
_GRAIN = 64  # see `orthogonal`
_UPDATE_RMS = 0.2  # of an update's entries, times the rate: that of AdamW's


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more, of which all but the first count as one. Rates and weight decay mean what they
    mean for AdamW."""

    def __init__(self, params: list[dict[str, Any]], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            updates = orthogonal([direction.flatten(1) for direction in self._directions(parameters)])
            torch._foreach_mul_(updates, [-_UPDATE_RMS * max(update.shape) ** 0.5 for update in updates])
            torch._foreach_mul_(updates, group["lr"])  # which may be a tensor (see `Optimizer.keep_rates_on`)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, [x.view(p.shape) for x, p in zip(updates, parameters, strict=True)])

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


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About the nearest (semi-)orthogonal matrix of each, by the Newton-Schulz iteration in bfloat16.

    Matrices lie on their longer side, and get rows and columns of zeros up to a multiple of 64: the iteration leaves these as
    they are, and then few shapes are left.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for number, matrix in enumerate(matrices):
        low, high = sorted(-(-side // _GRAIN) * _GRAIN for side in matrix.shape)
        alike.setdefault((low, high), []).append(number)
    found: list[Tensor] = list(matrices)
    for (low, high), numbers in alike.items():
        lying = [m.mT if m.shape[0] > m.shape[1] else m for m in (matrices[number] for number in numbers)]
        padded_GMN = torch.stack([F.pad(m, (0, high - m.shape[1], 0, low - m.shape[0])) for m in lying])
        for number, m, whole in zip(numbers, lying, _orthogonal(padded_GMN), strict=True):
            cut = whole[: m.shape[0], : m.shape[1]].to(m.dtype)
            found[number] = (cut if matrices[number].shape == m.shape else cut.mT).contiguous()
    return found


def _orthogonal(lying_GMN: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    x = lying_GMN.bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
