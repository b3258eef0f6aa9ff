"""Who learns, and how fast: frozen groups, learning rates by depth, warm-up and cosine; and a slow copy of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.training.settings import FREEZABLE, OptimSection

_BETAS = (0.9, 0.999)
_TRUNK = "image_encoder.trunk."
_DECODER = ("sam_mask_decoder.",)
_PROMPTS = ("sam_prompt_encoder.", "mask_downsample.")


def group_of(name: str) -> str:
    """Which of `FREEZABLE` a parameter belongs to; all that has to do with remembering is memory."""
    if name.startswith("image_encoder."):
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


def make_optimizer(model: Sam2, optim: OptimSection) -> torch.optim.AdamW:
    """AdamW over what is not frozen. Each group carries ``base_lr``, which `set_learning_rate` scales.

    Biases, norms and learned embeddings do not decay.
    """
    depth = len(model.image_encoder.trunk.blocks)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = optim.trunk_lr * optim.layer_decay ** (depth - _layer(name)) if name.startswith(_TRUNK) else optim.lr
            groups.setdefault((rate, _decays(name, parameter)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": optim.weight_decay if decays else 0.0}
            for (rate, decays), parameters in groups.items()
        ],
        betas=_BETAS,
        fused=model.device.type == "cuda",
    )


def _layer(name: str) -> int:
    """Depth in the trunk: 0 for what comes before the blocks, then 1, 2, ..."""
    parts = name.removeprefix(_TRUNK).split(".")
    return int(parts[1]) + 1 if parts[0] == "blocks" else 0


def _decays(name: str, parameter: Tensor) -> bool:
    embedding = ("embed" in name and "patch_embed" not in name) or name.endswith("_token.weight") or "tokens" in name
    return parameter.ndim > 1 and not embedding and "tpos_enc" not in name and not name.startswith("no_")


def share_of_rate(optim: OptimSection, step: int) -> float:
    """What part of its learning rate each parameter gets at a step: a linear warm-up, then half a cosine."""
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    progress = min((step - optim.warmup) / max(optim.steps - optim.warmup, 1), 1.0)
    return optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, optim: OptimSection, step: int) -> float:
    """Sets the rates for a step; gives the share."""
    share = share_of_rate(optim, step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share
    return share


class SlowCopy:
    """Exponential moving average of the weights: what is evaluated and released.

    It follows fast at first, ``(1 + step) / (ramp + step)``, for a random start is nothing to remember.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: int) -> None:
        self.decay, self.ramp = decay, ramp
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (self.ramp + step))
        state = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [state[name] for name in self.weights], 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
