"""Who learns, and how fast: frozen groups, learning rates by depth, warm-up and cosine; and a slow copy of the weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.training.muon import Muon
from sam2_pipeline.training.settings import FREEZABLE, OptimSection

_BETAS = (0.9, 0.999)
_TRUNK = "image_encoder.trunk."
_ENCODER = ("image_encoder.", "sam_mask_decoder.conv_s0.", "sam_mask_decoder.conv_s1.")
_DECODER = ("sam_mask_decoder.",)
_PROMPTS = ("sam_prompt_encoder.", "mask_downsample.")


def group_of(name: str) -> str:
    """Which of `FREEZABLE` a parameter belongs to; all that has to do with remembering is memory.

    The decoder's two convolutions that are applied to a picture, and not to a prompt, are part of the image encoder.
    """
    if name.startswith(_ENCODER):
        return "image_encoder"
    return "decoder" if name.startswith(_DECODER) else "prompt_encoder" if name.startswith(_PROMPTS) else "memory"


def freeze(model: Sam2, groups: Iterable[str]) -> None:
    """Takes the groups out of training.

    Raises:
        ConfigError: nothing would be left to train.
    """
    chosen = set(groups)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) not in chosen)
    if chosen >= set(FREEZABLE):
        raise ConfigError(f"model.freeze is all of {', '.join(FREEZABLE)}, expected that something is left to train")


class Optimizer:
    """Several optimizers of torch that step together, each over parameters of its own. Groups carry ``base_lr``, which
    `set_learning_rate` scales."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def keep_rates_on(self, device: torch.device) -> None:
        """Rates as tensors there: a CUDA graph reads them, where numbers would be part of it."""
        for group in self.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def make_optimizer(model: Sam2, optim: OptimSection, beside: nn.Module | None = None) -> Optimizer:
    """AdamW over what is not frozen, or Muon over its matrices and AdamW over the rest; and over a module ``beside`` the model.

    Biases, norms and learned embeddings do not decay, and are none of Muon's. On a GPU, its steps may be recorded.
    """
    depth = len(model.image_encoder.trunk.blocks)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in (*model.named_parameters(), *(() if beside is None else beside.named_parameters())):
        if parameter.requires_grad:
            rate = optim.trunk_lr * optim.layer_decay ** (depth - _layer(name)) if name.startswith(_TRUNK) else optim.lr
            decays = _decays(name, parameter)
            muon = optim.kind == "muon" and decays
            groups.setdefault((muon, rate, decays), []).append(parameter)

    def of(kind: bool) -> list[dict[str, Any]]:
        return [
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": optim.weight_decay if decays else 0.0}
            for (muon, rate, decays), parameters in groups.items()
            if muon == kind
        ]

    parts: list[torch.optim.Optimizer] = []
    if plain := of(False):
        on_gpu = model.device.type == "cuda"
        parts.append(torch.optim.AdamW(plain, betas=_BETAS, fused=on_gpu, capturable=on_gpu))
    if matrices := of(True):
        parts.append(Muon(matrices))
    return Optimizer(parts)


def _layer(name: str) -> int:
    """Depth in the trunk: 0 for what comes before the blocks, then 1, 2, ..."""
    parts = name.removeprefix(_TRUNK).split(".")
    return int(parts[1]) + 1 if parts[0] == "blocks" else 0


def _decays(name: str, parameter: Tensor) -> bool:
    embedding = ("embed" in name and "patch_embed" not in name) or name.endswith("_token.weight") or "tokens" in name
    return parameter.ndim > 1 and not embedding and "tpos_enc" not in name and not name.startswith("no_")


def set_learning_rate(optimizer: Optimizer, share: float) -> None:
    """Gives every group that share of its rate."""
    for group in optimizer.param_groups:
        rate = group["base_lr"] * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class SlowCopy:
    """Exponential moving average of the weights: what is evaluated and released.

    It follows fast at first, ``(1 + step) / (ramp + step)``, for a random start is nothing to remember.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: int) -> None:
        self.decay, self.ramp = decay, ramp
        self.followed = model.state_dict()
        self.weights = {name: tensor.detach().clone() for name, tensor in self.followed.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (self.ramp + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self.followed.values()), 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
