"""Files of weights, whoever made them, to ``{key: tensor}``. Nothing in a file is ever run.

Known kinds: what ``torch.save`` writes (a state dict, or a dictionary with one under ``model`` or ``state_dict``) and
safetensors. The kind is told from the first bytes, not from the name.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import safetensors.torch
import torch
from torch import Tensor

from sam2_pipeline.errors import CheckpointError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"
_WRAPPERS = ("model", "state_dict")
_HEAD = 64  # bytes that `kind_of` looks at


def kind_of(head: bytes) -> str | None:
    """``"torch"``, ``"safetensors"``, or None for bytes that begin no file of weights."""
    if head.startswith((_ZIP, _PICKLE)):
        return "torch"
    # A safetensors file begins with the length of its JSON header, little-endian in eight bytes.
    return "safetensors" if head[8:9] == b"{" else None


def describe_head(head: bytes) -> str:
    """What a file seems to be that holds no weights: for error messages."""
    if not head:
        return "it is empty"
    text = head[:40].decode("ascii", errors="replace").split("\n")[0].strip()
    what = "a web page" if text.lower().startswith(("<!doctype", "<html", "<?xml")) else "no file of weights"
    return f"it is {what}, it begins with {text!r}"


def read_weights(url: str | Path) -> dict[str, Tensor]:
    """The state dict in a file (a path or any fsspec URL), on the CPU.

    Raises:
        CheckpointError: no such file, or one that cannot be read as weights; the message says which.
    """
    source = str(url)
    data = _read_bytes(source)
    kind = kind_of(data[:_HEAD])
    if kind is None:
        raise CheckpointError(
            f"{source} is not a checkpoint: {describe_head(data[:_HEAD])}; expected a PyTorch file (.pt) or safetensors"
        )
    try:
        content = safetensors.torch.load(data) if kind == "safetensors" else _load_torch(data)
    except Exception as error:  # a damaged file can raise anything, and whatever it raises is the file's fault
        reason = str(error).strip().split("\n")[0].split(". ")[0][:200]
        raise CheckpointError(
            f"{source} cannot be read as a {kind} file of tensors ({len(data)} bytes; {type(error).__name__}: {reason}); "
            "it is truncated, damaged, or holds something other than tensors, none of which was run"
        ) from error
    return _state_dict(content, source)


def _read_bytes(source: str) -> bytes:
    try:
        filesystem, path = fsspec.url_to_fs(source)
        with filesystem.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {source}") from None
    except IsADirectoryError:
        raise CheckpointError(f"{source} is a folder, expected a file of weights") from None
    except Exception as error:  # every protocol has exceptions of its own
        raise CheckpointError(f"cannot read the checkpoint {source}: {type(error).__name__}: {error}") from error


def _load_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _state_dict(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict in ``content``, or below one of the usual keys."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in _WRAPPERS if key in content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate and all(isinstance(value, Tensor) for value in candidate.values()):
            return {str(key): value for key, value in candidate.items()}
    keys = f"a dictionary of {', '.join(map(repr, list(content)[:5])) or 'nothing'}" if isinstance(content, Mapping) else None
    raise CheckpointError(
        f"{source} holds no weights but {keys or type(content).__name__}; "
        f"expected tensors by name, or a dictionary with such under {' or '.join(map(repr, _WRAPPERS))}"
    )
