"""`sam2-pipeline export-onnx` and `bench --peer onnxruntime`, with the one export of these tests in the place of new ones."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from sam2_pipeline.bench.contestants import Ours
from sam2_pipeline.bench.measure import Sizes, measure
from sam2_pipeline.bench.onnx_peer import OnnxRuntime
from sam2_pipeline.cli import main
from sam2_pipeline.commands.onnx import named
from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.checkpoint import weights_sha256
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.files import PARTS, part_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the export that they share takes a minute


@pytest.fixture
def exported(folder: Path, torch_model: Sam2, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports copy the files of ``torch_model``, and check that it is asked for; gives the precisions they were made in."""
    precisions: list[str] = []

    def copy(model: Sam2, destination: str, precision: str = "fp32") -> list[Path]:
        assert model.config == torch_model.config and weights_sha256(model) == weights_sha256(torch_model)
        precisions.append(precision)
        Path(destination).mkdir(exist_ok=True)
        return [Path(shutil.copy(part_path(folder, part), destination)) for part in PARTS]

    monkeypatch.setattr("sam2_pipeline.onnx.export.export_onnx", copy)
    monkeypatch.setattr("sam2_pipeline.bench.onnx_peer.export_onnx", copy)
    return precisions


def test_the_command(exported: list[str], torch_model: Sam2, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"model": torch_model.state_dict()}, weights)
    arguments = [str(weights), str(tmp_path / "out"), "--image-size", "256", "--frames", "3"]
    assert main(["export-onnx", *arguments, "--precision", "fp16"]) == 0
    printed = capsys.readouterr().out
    assert exported == ["fp16"] and all(f"{part}.onnx" in printed for part in PARTS)
    found = re.findall(r"(image|video)  IoU (\S+) \(least (\S+)\) over (\d+) masks", printed)
    assert [(task, int(masks)) for task, _, _, masks in found] == [("image", 7), ("video", 9)]  # a click gives three
    assert all(float(least) >= 0.999 for _, _, least, _ in found)


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-onnx", "sam2_hiera_tinny", str(tmp_path / "out")]) == 2
    assert "unknown model 'sam2_hiera_tinny'" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["export-onnx", "sam2_hiera_tiny", str(tmp_path / "out"), "--frames", "-1"]) == 2


def test_names_and_checkpoints() -> None:
    assert named("facebook/sam2.1-hiera-tiny", None) == ("sam2.1_hiera_tiny", None)
    assert named("sam2_pipeline_small", "s3://bucket/weights.pt") == ("sam2_pipeline_small", "s3://bucket/weights.pt")
    assert named("trained/weights.safetensors", None) == (None, "trained/weights.safetensors")
    with pytest.raises(CheckpointError, match="unknown model 'sam2_hiera_tinny'"):
        named("sam2_hiera_tinny", None)
    with pytest.raises(ConfigError, match="unknown model"):
        named("weights.pt", "weights.pt")


def test_onnxruntime_takes_part_in_the_bench(exported: list[str], torch_model: Sam2) -> None:
    sizes = Sizes(image_size=256, rounds=3, frames=4, points_per_side=2, objects=(2,))
    results = list(measure([Ours(torch_model), OnnxRuntime(torch_model)], sizes))
    assert [result.task for result in results] == ["image encoder", "tracking 2 objects"]  # it proposes no masks
    assert all(result.agrees for result in results), [result.agreement for result in results]
