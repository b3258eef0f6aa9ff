"""The bench measures what it says: turns, ratios, a gate that closes, JSON that holds it all."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from sam2_pipeline.bench import measure, scene
from sam2_pipeline.bench.cli import build_parser, chosen_contestants, main, make_model
from sam2_pipeline.bench.conditions import Conditions
from sam2_pipeline.bench.contestants import Ours, OursInFloat32
from sam2_pipeline.bench.measure import Result, Sizes
from sam2_pipeline.bench.profiling import profiled
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.rle import Rle, encode
from sam2_pipeline.model.sam2 import Sam2

TINY = Sizes(image_size=128, rounds=3, frames=3, points_per_side=2, objects=(1, 2))


@pytest.fixture(scope="module")
def model() -> Sam2:
    return make_model("sam2.1_hiera_tiny", None, 128)


class Twin(Ours):
    """We against ourselves, under another name."""

    name = "twin"


class Stranger(Ours):
    """Somebody whose masks are wrong."""

    name = "stranger"

    def track(self, *args: object) -> Iterator[torch.Tensor]:
        for logits in super().track(*args):  # type: ignore[arg-type]
            yield -logits

    def propose(self, picture: np.ndarray, points_per_side: int) -> list[Rle]:
        return super().propose(picture, points_per_side)[1:]


def test_a_contestant_agrees_with_itself(model: Sam2) -> None:
    results = list(measure.measure([Ours(model), Twin(model)], TINY))
    assert [r.task for r in results] == ["image encoder", "tracking 1 object", "tracking 2 objects", "automatic masks 2x2"]
    for result in results:
        assert result.agrees, result.agreement
        turns = 2 if "tracking" in result.task else 3  # of two frames
        assert {name: len(times) for name, times in result.wall_ms.items()} == {"sam2_pipeline": turns, "twin": turns}
        median, low, high = result.ratio() or (0, 0, 0)
        assert 0 < low <= median <= high
        assert set(result.extra_mib) == {"sam2_pipeline", "twin"}


def test_the_gate_closes_on_wrong_masks(model: Sam2) -> None:
    verdicts = {r.task: r.agrees for r in measure.measure([Ours(model), Stranger(model)], TINY)}
    assert verdicts["image encoder"] and not verdicts["tracking 1 object"] and not verdicts["automatic masks 2x2"]


def test_weights_make_masks_of_both_signs(model: Sam2) -> None:
    """With masks that are all or nothing, or objects that are absent, agreement would mean little."""
    pictures = torch.zeros(1, 3, 128, 128).uniform_(-2, 2, generator=torch.Generator().manual_seed(0))
    [logits] = Ours(model).track(pictures, np.array([[40.0, 50.0], [80.0, 70.0]]), 96, 128)
    assert all(0.01 < float((mask > 0).float().mean()) < 0.99 for mask in logits)


def test_the_decoder_is_no_louder_than_meant(model: Sam2) -> None:
    """Names such as cross_attn_token_to_image are not those of tokens: such weights made rounding grow into other masks."""
    weights = scene.random_weights({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    projection = weights["sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"]
    assert float(projection.std()) == pytest.approx(2.5 / projection.shape[1] ** 0.5, rel=0.05)
    assert float(weights["sam_mask_decoder.mask_tokens.weight"].std()) == pytest.approx(0.5, rel=0.1)


def test_the_ratio_is_the_peers_time_over_ours() -> None:
    result = Result("task", {"ours": [10, 10, 10], "peer": [20, 30, 40]}, {"ours": [1, 1, 1], "peer": [1, 1, 1]})
    assert (result.ratio() or (0,))[0] == 3 and (result.ratio("cpu_ms") or (0,))[0] == 1
    assert Result("alone", {"ours": [1.0]}).ratio() is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_pipeline.bench.peer.is_installed", lambda: False)
    file = tmp_path / "bench.json"
    threads = str(torch.get_num_threads())
    options = ["--quick", "--image-size", "128", "--frames", "3", "--objects", "1", "--threads", threads]
    assert main([*options, "--points", "2", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "tracking 1 object" in said and "of the bare model's speed" in said and "frames/s" in said
    found = json.loads(file.read_text())
    assert found["sizes"]["objects"] == [1] and found["contestants"] == ["sam2_pipeline"]
    tasks = ["image encoder", "tracking 1 object", "automatic masks 2x2", "videos to tables"]
    assert [r["task"] for r in found["results"]][:4] == tasks and found["processor"]
    assert all(r["agrees"] for r in found["results"])
    engine = found["results"][-1]
    assert "(times as long as off): bare" in said and engine["task"] == "automatic masklets" and engine["ratio_cpu_ms"] is None
    turns = {name: len(times) for name, times in engine["cpu_ms"].items()}
    assert turns == dict.fromkeys(["bare", "off", "cuts", "discovery", "verdicts"], 2)
    assert len(found["results"][1]["wall_ms"]["sam2_pipeline"]) == 2  # turns of two frames


def test_a_profile_names_parts_of_the_model_and_operators(model: Sam2) -> None:
    lines = profiled(model, lambda: model.encode_frames(torch.zeros(1, 3, 128, 128)))
    assert any(line.endswith("encode_frames") for line in lines) and any("aten::" in line for line in lines)
    assert not any("attend_memory" in line for line in lines), "what did not run is not there"
    assert model.encode_frames.__func__ is Sam2.encode_frames, "and the model is as it was"  # type: ignore[attr-defined]


BFLOAT16 = Conditions(torch.device("cpu"), torch.bfloat16)


def test_conditions_are_chosen_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Conditions.chosen("cpu", None) == Conditions() == measure.CPU
    assert Conditions.chosen("cuda:1", None) == Conditions(torch.device("cuda:1"), torch.bfloat16)
    assert Conditions.chosen("cuda", "float32").exact and not BFLOAT16.exact
    assert BFLOAT16.same_mask < Conditions().same_mask


@pytest.mark.parametrize(
    ("arguments", "devices", "said"),
    [
        (["--device", "cuda"], 0, "device is 'cuda', but PyTorch .* sees 0 CUDA devices"),
        (["--device", "cuda:1"], 1, "device is 'cuda:1', but PyTorch .* sees 1 CUDA devices"),
        (["--device", "tpu"], 1, "device is 'tpu', expected cpu, cuda or cuda:N"),
        (["--device", "cuda:x"], 1, "device is 'cuda:x', expected cpu, cuda or cuda:N"),
        (["--device", "cuda", "--profile"], 1, "--profile tells where CPU time goes"),
        (["--device", "cuda", "--peer", "onnxruntime"], 1, "--peer onnxruntime runs on the CPU in float32"),
        (["--dtype", "bfloat16", "--peer", "onnxruntime"], 0, "not with cpu and torch.bfloat16"),
        (["--peer", "float32"], 0, "--peer float32 is what another precision is compared with: add --dtype bfloat16"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], devices: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    with pytest.raises(ConfigError, match=said):
        main(["--quick", *arguments])


def test_bfloat16_surrounds_everyone_and_ends() -> None:
    model = make_model("sam2.1_hiera_tiny", None, 128, BFLOAT16)
    seen = []

    class Listening(Twin):
        def encode(self, image_13SS: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().encode(image_13SS)

    with BFLOAT16.applied():
        [encoder, *_] = measure.measure([Ours(model), Listening(model)], TINY, conditions=BFLOAT16)
    assert encoder.agrees and seen and all(seen)
    assert not torch.is_autocast_enabled("cpu")


def rounding(contestant: Ours) -> dict[str, set[bool]]:
    """Whether autocast was on in the image encoder and in the mask decoder, while the contestant tracks."""
    seen: dict[str, set[bool]] = {"trunk": set(), "transformer": set()}
    parts = {"trunk": contestant.model.image_encoder.trunk, "transformer": contestant.model.sam_mask_decoder.transformer}
    hooks = [
        part.register_forward_pre_hook(lambda *_, name=name: seen[name].add(torch.is_autocast_enabled("cpu")))
        for name, part in parts.items()
    ]
    pictures = torch.zeros(2, 3, 128, 128).uniform_(-2, 2, generator=torch.Generator().manual_seed(0))
    with BFLOAT16.applied():
        for _ in contestant.track(pictures, np.array([[40.0, 50.0]]), 96, 128):
            assert torch.is_autocast_enabled("cpu"), "between its turns all is as others want it"
    for hook in hooks:
        hook.remove()
    return seen


def test_on_a_cpu_we_round_what_other_commands_round() -> None:
    """Not the mask decoder, see `Sam2.precision`: with it, the bench would time what nobody runs."""
    model = make_model("sam2.1_hiera_tiny", None, 128, BFLOAT16)
    assert rounding(Ours(model)) == {"trunk": {True}, "transformer": {False}}
    exact = OursInFloat32(model)
    assert rounding(exact) == {"trunk": {False}, "transformer": {False}}
    [encoder, tracking, *_] = measure.measure([Ours(model), exact], TINY, conditions=BFLOAT16)
    assert encoder.agrees and tracking.agrees and "relative difference 0.0" not in encoder.agreement


def test_whom_the_bench_compares_with(model: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_pipeline.bench.peer.is_installed", lambda: True)
    monkeypatch.setattr("sam2_pipeline.bench.peer.PypiSam2", lambda ours: SimpleNamespace(name=f"sam2 of {ours.config.name}"))
    console = Console(record=True)

    def names(model: Sam2, *options: str) -> list[str]:
        return [c.name for c in chosen_contestants(build_parser().parse_args(options), model, console)]

    assert names(model) == ["sam2_pipeline", "sam2 of sam2.1_hiera_tiny"]
    assert names(model, "--peer", "float32") == ["sam2_pipeline", "in float32"]
    assert names(make_model("sam2_pipeline_small", None, 128)) == ["sam2_pipeline"]
    assert "PyPI's sam2 has no sam2_pipeline_small" in console.export_text()


def test_float32_is_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with Conditions().applied():
        assert not torch.backends.cudnn.allow_tf32
    with BFLOAT16.applied():
        assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_clocks_wait_for_the_device() -> None:
    happened = []

    class Waiting(Conditions):
        def wait(self) -> None:
            happened.append("wait")

    def walk() -> Iterator[int]:
        while True:
            happened.append("work")
            yield 0

    class Nobody:
        name = "nobody"

    measure._turns([Nobody()], "task", [walk()], 1, 2, lambda *_: ("", True), None, Waiting())  # type: ignore[list-item]
    assert happened == ["wait", "work", "wait"] * 3


def test_a_turn_of_several_steps_counts_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames are encoded in pairs: every second one seems to cost nothing."""
    now = [0.0]
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0]))

    def walk() -> Iterator[int]:
        for number in range(8):
            now[0] += 0.0 if number % 2 else 0.01
            yield number

    class Pairs:
        name = "pairs"

    result = measure._turns([Pairs()], "task", [walk()], 1, 3, lambda *_: ("", True), None, Conditions(), steps=2)  # type: ignore[list-item]
    assert result.wall_ms["pairs"] == result.cpu_ms["pairs"] == pytest.approx([5.0] * 3)


def test_rounding_decides_about_masks_at_the_threshold() -> None:
    """In bfloat16 one of eleven automatic masks may be missing; in float32 none."""
    squares = [encode(np.repeat(row[None], 4, axis=0)) for row in np.eye(11, dtype=bool)]
    assert measure._compare_masks([squares, squares[1:]], BFLOAT16)[1]
    assert not measure._compare_masks([squares, squares[1:]], Conditions())[1]
    assert not measure._compare_masks([squares, squares[3:]], BFLOAT16)[1]
