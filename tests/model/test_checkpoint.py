"""Weights from every kind of file into models, and one clear error for every file that holds none."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import safetensors.torch
import torch
from golden import goldens
from torch import Tensor

from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.checkpoint import EMBEDDED_WEIGHTS, build_model, load_model, weights_sha256
from sam2_pipeline.model.config import MODEL_NAMES, MODELS, find_config
from sam2_pipeline.model.hf_layout import meta_key, to_meta_layout
from sam2_pipeline.model.sam2 import Sam2

TOY = "sam2.1_hiera_toy"
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _toy_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model, made narrow: the same keys in a file of two megabytes."""
    tiny = MODELS["sam2.1_hiera_tiny"]
    toy = replace(tiny, name=TOY, trunk=replace(tiny.trunk, embed_dim=8), hidden_dim=64, memory_dim=16, feedforward_dim=64)
    monkeypatch.setitem(MODELS, TOY, toy)
    monkeypatch.setitem(MODELS, "sam2_hiera_toy", replace(toy, name="sam2_hiera_toy", version="2.0"))


@pytest.fixture
def model() -> Sam2:
    torch.manual_seed(7)
    return build_model(TOY, image_size=128)


@pytest.fixture
def state(model: Sam2) -> State:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def hf_state(state: State) -> State:
    """The state under the names of ``transformers``."""
    names = json.loads((goldens.HERE / "transformers_keys.json").read_text())
    points = torch.cat([state[f"sam_prompt_encoder.point_embeddings.{i}.weight"] for i in range(4)])
    return {name: points if name == "prompt_encoder.point_embed.weight" else state[meta_key(name)].clone() for name in names}


# ------------------------------------------------------------------------------------------------------------------ building


def test_build_model() -> None:
    model = build_model(TOY, image_size=160, dtype=torch.bfloat16)
    assert not model.training and model.config.image_size == 160 and model.compute_dtype == torch.bfloat16
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert build_model(TOY).config.image_size == 1024
    assert weights_sha256(model) != weights_sha256(build_model(TOY)), "weights are random"


def test_impossible_requests(state: State, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model 'sam2_hiera_huge'"):
        build_model("sam2_hiera_huge")
    with pytest.raises(ConfigError, match=r"dtype is torch\.int8, expected one of torch\.float32"):
        build_model(TOY, dtype=torch.int8)
    with pytest.raises(ConfigError, match="device 'gpu' cannot be used here"):
        build_model(TOY, device="gpu")
    with pytest.raises(ConfigError, match="image_size is 100"):
        load_model(checkpoint=saved(tmp_path / "a.pt", state), image_size=100)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device 'cuda' cannot be used here"):
            load_model(TOY, checkpoint=tmp_path / "a.pt", device="cuda")


# ------------------------------------------------------------------------------------------------------------------- formats

WRITERS: dict[str, Callable[[Path, State], object]] = {
    "meta.pt": lambda path, state: saved(path, {"model": state}),
    "training.pt": lambda path, state: saved(path, {"epoch": 3, "optimizer": {"lr": 0.1, "state": []}, "model": state}),
    "plain.pth": lambda path, state: saved(path, state),
    "wrapped.ckpt": lambda path, state: saved(path, {"state_dict": state, "note": "by hand"}),
    "legacy.pt": lambda path, state: saved(path, {"model": state}, _use_new_zipfile_serialization=False),
    "plain.safetensors": lambda path, state: safetensors.torch.save_file(state, path),
    "named_wrongly.pt": lambda path, state: safetensors.torch.save_file(state, path),
    "transformers.safetensors": lambda path, state: safetensors.torch.save_file(hf_state(state), path),
    "transformers.bin": lambda path, state: saved(path, hf_state(state)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_formats(kind: str, model: Sam2, state: State, tmp_path: Path) -> None:
    WRITERS[kind](tmp_path / kind, state)
    for name in (TOY, None):
        loaded = load_model(name, checkpoint=tmp_path / kind, image_size=128, device="cpu")
        assert loaded.config == model.config and not loaded.training
        assert weights_sha256(loaded) == weights_sha256(model)
    images = torch.zeros(1, 3, 128, 128)
    assert torch.equal(loaded.encode_frames(images).stride4_VCHW, model.encode_frames(images).stride4_VCHW)


def test_version_2_0_is_recognised(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.pt", {"model": build_model("sam2_hiera_toy").state_dict()})
    assert load_model(checkpoint=path, device="cpu").config.name == "sam2_hiera_toy"


def test_urls(model: Sam2, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)
    (tmp_path / "w.pt").write_bytes(buffer.getvalue())
    fsspec.filesystem("memory").pipe_file("/bucket/w.pt", buffer.getvalue())
    (tmp_path / "[odd]*name.pt").write_bytes(buffer.getvalue())
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (
        str(tmp_path / "[odd]*name.pt"),
        "memory://bucket/w.pt",
        f"file://{tmp_path}/w.pt",
        str(tmp_path / "w.pt"),
        "~/w.pt",
    ):
        assert weights_sha256(load_model(TOY, checkpoint=url, device="cpu")) == weights_sha256(model)


def test_other_precisions_become_float32(state: State, tmp_path: Path) -> None:
    halves = {key: tensor.bfloat16() for key, tensor in state.items()}
    loaded = load_model(checkpoint=saved(tmp_path / "half.pt", halves), device="cpu", dtype=torch.bfloat16)
    assert loaded.compute_dtype == torch.bfloat16
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, halves[key].float())
    assert load_model(checkpoint=tmp_path / "half.pt", device="cpu").compute_dtype == torch.float32


def test_weights_hash(model: Sam2, state: State) -> None:
    other = build_model(TOY, image_size=1024)
    other.load_state_dict(dict(reversed(state.items())))
    assert weights_sha256(other) == weights_sha256(model), "neither order nor image size matters"
    assert len(weights_sha256(model)) == 64
    other.no_obj_ptr[0, 0] += 1e-6
    assert weights_sha256(other) != weights_sha256(model)


def test_compile_is_for_the_image_encoder(model: Sam2, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    loaded = load_model(checkpoint=saved(tmp_path / "a.pt", state), image_size=128, device="cpu", compile=True)
    assert compiled == [loaded.image_encoder]
    assert set(loaded.state_dict()) == set(state)


# -------------------------------------------------------------------------------------------------------- transformers' names


def test_every_transformers_key_has_its_place() -> None:
    theirs = json.loads((goldens.HERE / "transformers_keys.json").read_text())
    renamed = to_meta_layout({key: torch.empty(shape, device="meta") for key, shape in theirs.items() if key != DOUBLE}, "file")
    assert {key: list(tensor.shape) for key, tensor in renamed.items()} == goldens.state_dict_shapes("sam2.1_hiera_tiny")


DOUBLE = "shared_image_embedding.positional_embedding"  # stored twice; either will do


@pytest.mark.parametrize("dropped", [DOUBLE, "prompt_encoder.shared_embedding.positional_embedding"])
def test_either_copy_of_the_positional_embedding_will_do(dropped: str, state: State) -> None:
    theirs = hf_state(state)
    del theirs[dropped]
    back = to_meta_layout(theirs, "file")
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def test_transformers_files_that_do_not_fit(state: State, tmp_path: Path) -> None:
    theirs = hf_state(state)
    theirs[DOUBLE] = theirs[DOUBLE] + 1
    with pytest.raises(CheckpointError, match=r"two different tensors for sam_prompt_encoder\.pe_layer"):
        load_model(checkpoint=saved(tmp_path / "two.pt", theirs))
    image_part = {key: value for key, value in hf_state(state).items() if not key.startswith("memory_")}
    with pytest.raises(CheckpointError, match=r"Sam2Model, which is the image part alone.*expected a Sam2VideoModel"):
        load_model(checkpoint=saved(tmp_path / "image.pt", image_part))
    strange = hf_state(state) | {"mask_decoder.extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: sam_mask_decoder\.extra\.weight"):
        load_model(TOY, checkpoint=saved(tmp_path / "strange.pt", strange))


# ----------------------------------------------------------------------------------------------------------------- bad files


class Hostile:
    """A pickle that would leave a file behind if it were run."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare pickle"])
def test_hostile_files_are_refused_and_never_run(how: str, state: State, tmp_path: Path) -> None:
    trace, path = tmp_path / "was_run", tmp_path / "hostile.pt"
    content = {"model": state, "extra": Hostile(trace)}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(Hostile(trace), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"hostile\.pt.*something other than tensors, none of which was run"):
        load_model(TOY, checkpoint=path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists(), "the bait works"


def bad_file(kind: str, path: Path, state: State) -> None:
    """Writes a file that is no good."""
    whole = io.BytesIO()
    if "safetensors" in kind:
        whole.write(safetensors.torch.save(state))
    else:
        torch.save({"model": state}, whole)
    data = whole.getvalue()
    contents: dict[str, bytes] = {
        "empty": b"",
        "web page": b"<!DOCTYPE html>\n<html><body>Please log in</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "truncated": data[: len(data) // 2],
        "truncated safetensors": data[: len(data) // 2],
        "short": data[:20],
        "damaged": data[:4] + bytes(len(data) - 4),
    }
    path.write_bytes(contents[kind])


@pytest.mark.parametrize(
    "kind, message",
    [
        ("empty", "is not a checkpoint: it is empty; expected a PyTorch file"),
        ("web page", "is not a checkpoint: it is a web page, it begins with '<!DOCTYPE html>'"),
        ("pointer", "is not a checkpoint: it is no file of weights, it begins with 'version https://git-lfs"),
        ("truncated", r"cannot be read as a torch file of tensors \(\d+ bytes.*truncated, damaged"),
        ("truncated safetensors", r"cannot be read as a safetensors file of tensors \(\d+ bytes.*truncated, damaged"),
        ("short", "cannot be read as a torch file of tensors"),
        ("damaged", "cannot be read as a torch file of tensors"),
    ],
)
def test_files_that_are_no_checkpoints(kind: str, message: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    bad_file(kind, path, state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(TOY, checkpoint=path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_places_without_a_file(tmp_path: Path) -> None:
    for place in (tmp_path / "none.pt", "memory://nowhere/none.pt"):
        with pytest.raises(CheckpointError, match=f"no checkpoint at {place}"):
            load_model(TOY, checkpoint=place)
    with pytest.raises(CheckpointError, match="is a folder, expected a file"):
        load_model(TOY, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint nosuch://x/y\.pt: ValueError"):
        load_model(TOY, checkpoint="nosuch://x/y.pt")


def test_files_of_something_else(state: State, tmp_path: Path) -> None:
    for content, said in (
        ({"epoch": 3, "optimizer": {}}, "a dictionary of 'epoch', 'optimizer'"),
        ([torch.zeros(1)], "list"),
        ({}, "a dictionary of nothing"),
        ({"model": 3}, "a dictionary of 'model'"),
    ):
        with pytest.raises(CheckpointError, match=f"holds no weights but {said}; expected tensors by name"):
            load_model(TOY, checkpoint=saved(tmp_path / "other.pt", content))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"archive\.zip cannot be read as a torch file"):
        load_model(TOY, checkpoint=tmp_path / "archive.zip")


def test_weights_that_do_not_fit(state: State, tmp_path: Path) -> None:
    wrong = {key: value for key, value in state.items() if not key.startswith("obj_ptr_proj")}
    wrong |= {f"extra.{i}": torch.zeros(1) for i in range(5)} | {"no_obj_ptr": torch.zeros(1, 3)}
    with pytest.raises(CheckpointError) as caught:
        load_model(TOY, checkpoint=saved(tmp_path / "wrong.pt", wrong))
    for said in (
        f"wrong.pt does not fit {TOY} (471 tensors)",
        "6 missing: obj_ptr_proj.layers.0.weight, obj_ptr_proj.layers.0.bias, obj_ptr_proj.layers.1.weight and 3 more",
        "5 unexpected: extra.0, extra.1, extra.2 and 2 more",
        "1 of another shape: no_obj_ptr is (1, 3) instead of (1, 64)",
    ):
        assert said in str(caught.value)
    with pytest.raises(CheckpointError, match=f"does not fit sam2_hiera_toy.*these seem to be weights of {TOY}"):
        load_model("sam2_hiera_toy", checkpoint=saved(tmp_path / "right.pt", state))
    unknown = {"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"holds 2 tensors \(layer.weight, layer.bias\) of none of the known models"):
        load_model(checkpoint=saved(tmp_path / "unknown.pt", unknown))


def test_weights_that_are_no_numbers(state: State, tmp_path: Path) -> None:
    for bad, message in (
        (torch.full((1, 64), torch.nan), "1 tensors hold NaN or infinite numbers: no_obj_ptr"),
        (torch.full((1, 64), torch.inf), "1 tensors hold NaN or infinite numbers: no_obj_ptr"),
        (torch.ones(1, 64, dtype=torch.int64), "1 tensors are not dense floating point numbers: no_obj_ptr"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_model(TOY, checkpoint=saved(tmp_path / "bad.pt", state | {"no_obj_ptr": bad}))
    large = state | {"no_obj_ptr": torch.full((1, 64), 6e4, dtype=torch.float16)}  # finite, though their sum is not
    load_model(TOY, checkpoint=saved(tmp_path / "large.pt", large), device="cpu")


def test_the_embedded_model_is_the_default() -> None:
    by_default, by_name = load_model(device="cpu"), load_model("sam2-pipeline-small", device="cpu")
    assert by_default.config is MODELS["sam2_pipeline_small"] and not by_default.training
    assert weights_sha256(by_default) == weights_sha256(by_name)
    assert load_model(checkpoint=EMBEDDED_WEIGHTS, image_size=128, device="cpu").config.name == "sam2_pipeline_small"
    assert EMBEDDED_WEIGHTS.stat().st_size <= 16e6


def test_jobs_give_the_embedded_model_a_larger_input() -> None:
    """Nobody waits for a frame there; a size that is asked for holds all the same."""
    by_name = load_model(device="cpu", offline=True)
    by_weights = load_model(checkpoint=EMBEDDED_WEIGHTS, device="cpu", offline=True)
    assert by_name.config.image_size == by_weights.config.image_size == MODELS["sam2_pipeline_small"].offline_size == 384
    assert load_model(image_size=128, device="cpu", offline=True).config.image_size == 128
    assert find_config("sam2.1_hiera_tiny", offline=True) is MODELS["sam2.1_hiera_tiny"]


def test_model_names() -> None:
    assert len(MODEL_NAMES) == 9 and MODEL_NAMES[-1] == "sam2_pipeline_small"
