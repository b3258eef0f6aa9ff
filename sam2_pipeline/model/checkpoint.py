"""Models by name, and weights into models: `build_model`, `load_model`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.config import EMBEDDED, MODEL_NAMES, MODELS, find_config
from sam2_pipeline.model.download import fetch_checkpoint
from sam2_pipeline.model.hf_layout import is_hf_layout, to_meta_layout
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.model.weights_file import read_weights

_COMPUTE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EMBEDDED_WEIGHTS = Path(__file__).parent / "weights" / f"{EMBEDDED.name}.safetensors"  # float16; see the model card beside it
_SHOWN = 3  # keys of each kind that an error message lists


def build_model(
    name: str, *, image_size: int | None = None, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Sam2:
    """A model with random weights, in eval mode.

    Args:
        name: one of `MODEL_NAMES`, or its Hugging Face spelling.
        image_size: side of the square network input, a multiple of 32 from 128 on; None is the model's own (1024).
        device: where the weights live.
        dtype: what the verbs compute in; the weights stay float32.

    Raises:
        ConfigError: an unknown name, or an impossible size, device or dtype.
    """
    return Sam2(find_config(name, image_size), _checked(dtype)).to(_pick_device(device)).eval()


def load_model(
    name: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    offline: bool = False,
) -> Sam2:
    """A model with its weights, in eval mode.

    Args:
        name: one of `MODEL_NAMES`, or its Hugging Face spelling; None: the embedded model, or with a checkpoint the one that its
            weights are of.
        checkpoint: a path or any fsspec URL of Meta's ``.pt``, a plain state dict, safetensors, or weights in the layout of
            Hugging Face ``transformers``; None: what the package holds for the embedded model, for the others an official
            checkpoint from the cache, else downloaded from Meta.
        image_size: side of the square network input, a multiple of 32 from 128 on; None is the model's own (1024; of the embedded
            model 288, which two processors follow as a video is filmed).
        device: None is CUDA, else MPS, else the CPU.
        dtype: what the verbs compute in; None is bfloat16 on CUDA and float32 elsewhere.
        compile: compile the image encoder (``torch.compile``): a slow first frame, faster ones after.
        offline: nobody waits for a frame: with ``image_size`` None it is what jobs take (of the embedded model 384).

    Raises:
        CheckpointError: the weights cannot be had, read, or fitted to the model.
        ConfigError: an unknown name, or an impossible size, device or dtype.
    """
    config = None if name is None and checkpoint is not None else find_config(name, image_size, offline=offline)
    where = _pick_device(device)
    compute = _checked(dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32))
    if checkpoint is None:
        assert config is not None
        checkpoint = EMBEDDED_WEIGHTS if config.name == EMBEDDED.name else fetch_checkpoint(config)
    state = read_weights(checkpoint)
    if is_hf_layout(state):
        state = to_meta_layout(state, str(checkpoint))
    config = config or find_config(_recognise(state, str(checkpoint)), image_size, offline=offline)
    with torch.device("meta"):  # random weights would be overwritten at once
        model = Sam2(config, compute)
    _check_fit(model, state, str(checkpoint))
    model = model.to_empty(device=where).eval()
    model.load_state_dict(state, strict=True)
    if compile:
        model.image_encoder.compile()  # in place: the state dict keeps its keys
    return model


def weights_sha256(model: Sam2) -> str:
    """A hash of the weights: of sorted names, dtypes, shapes and bytes, whatever the device or the image size."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pick_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # an unknown device, or one that this machine or PyTorch build lacks
        raise ConfigError(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from error


def _checked(dtype: torch.dtype) -> torch.dtype:
    if dtype not in _COMPUTE_DTYPES:
        raise ConfigError(f"dtype is {dtype}, expected one of {', '.join(map(str, _COMPUTE_DTYPES))}")
    return dtype


def _recognise(state: Mapping[str, Tensor], source: str) -> str:
    """The name of the model that weights are of."""
    name = _name_of(state)
    if name is None:
        raise CheckpointError(
            f"{source} holds {len(state)} tensors ({_some(list(state))}) of none of the known models: {', '.join(MODEL_NAMES)}"
        )
    return name


def _name_of(state: Mapping[str, Tensor]) -> str | None:
    """The model whose trunk and version show in the keys and shapes."""
    position = state.get("image_encoder.trunk.pos_embed")
    if position is None or position.ndim != 4:
        return None
    prefix = "image_encoder.trunk.blocks."
    blocks = len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})
    seen = ("2.1" if "no_obj_embed_spatial" in state else "2.0", position.shape[1], position.shape[-1], blocks)
    for config in MODELS.values():
        trunk = config.trunk
        if seen == (config.version, trunk.embed_dim, trunk.position_grid, sum(trunk.stage_depths)):
            return config.name
    return None


def _check_fit(model: Sam2, state: Mapping[str, Tensor], source: str) -> None:
    """Raises `CheckpointError` unless ``state`` has just the model's keys and shapes, and finite numbers."""
    wanted = model.state_dict()
    missing, unexpected = [key for key in wanted if key not in state], [key for key in state if key not in wanted]
    misshaped = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(problems.values()):
        said = "; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in problems.items() if keys)
        name = _name_of(state)
        hint = f"; these seem to be weights of {name}" if name not in (None, model.config.name) else ""
        raise CheckpointError(f"{source} does not fit {model.config.name} ({len(wanted)} tensors): {said}{hint}")
    unfit = [key for key, tensor in state.items() if tensor.layout != torch.strided or not tensor.is_floating_point()]
    if unfit:
        raise CheckpointError(f"{source}: {len(unfit)} tensors are not dense floating point numbers: {_some(unfit)}")
    # A sum is much cheaper than a look at every number, and finite only if they all are.
    doubtful = [key for key, tensor in state.items() if not tensor.sum().isfinite()]
    broken = [key for key in doubtful if not state[key].isfinite().all()]
    if broken:
        raise CheckpointError(f"{source}: {len(broken)} tensors hold NaN or infinite numbers: {_some(broken)}")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
