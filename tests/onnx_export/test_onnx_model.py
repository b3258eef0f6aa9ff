"""What exported files are and say, in every precision, and that they run where there is no torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from golden.synthetic_inputs import synthetic_frame

from sam2_pipeline import Prompt, __version__
from sam2_pipeline.errors import CheckpointError, ConfigError
from sam2_pipeline.model.checkpoint import weights_sha256
from sam2_pipeline.model.memory_batch import MemoryBatch
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.agreement import measure_agreement
from sam2_pipeline.onnx.export import export_onnx
from sam2_pipeline.onnx.files import PARTS, Facts, part_path
from sam2_pipeline.onnx.model import Features, Memories, OnnxModel, load_model
from sam2_pipeline.onnx.precision import finish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the export that they share takes a minute

HEIGHT, WIDTH = 90, 160


def features_of(model: OnnxModel, pictures: int) -> Features:
    random = np.random.default_rng(pictures)
    return model.encode_frames(random.normal(size=(pictures, 3, 256, 256)).astype(np.float32))


@pytest.mark.parametrize(("pictures", "rows", "maps", "pointers"), [(1, 1, 1, 0), (2, 3, 1, 1), (1, 2, 7, 16)])
def test_any_number_of_objects_memories_and_pointers(
    model: OnnxModel, torch_model: Sam2, pictures: int, rows: int, maps: int, pointers: int
) -> None:
    random, features = np.random.default_rng(0), features_of(model, pictures)
    lanes = np.arange(rows) % pictures
    memory = Memories(
        random.normal(size=(rows, maps, 256, 64)).astype(np.float32),
        random.integers(0, 7, (rows, maps)),
        random.normal(size=(rows, pointers, 256)).astype(np.float32),
        random.random((rows, pointers)).astype(np.float32),
    )
    with torch.inference_mode():
        theirs = torch_model.encode_frames(
            torch.from_numpy(np.random.default_rng(pictures).normal(size=(pictures, 3, 256, 256))).float()
        )
        batch = MemoryBatch(*(torch.from_numpy(getattr(memory, name)) for name in Memories.__slots__))
        expected = torch_model.attend_memory(theirs, torch.from_numpy(lanes), batch)
    np.testing.assert_allclose(features.stride4_VCHW, theirs.stride4_VCHW.numpy(), atol=1e-3)
    np.testing.assert_allclose(model.attend_memory(features, lanes, memory), expected.numpy(), atol=1e-3)


def test_memories_are_rounded_as_the_reference_stores_them(model: OnnxModel) -> None:
    logits = np.random.default_rng(1).normal(size=(2, 64, 64)).astype(np.float32)
    memory = model.encode_memory(features_of(model, 1), np.zeros(2, int), logits, np.ones(2, np.float32), binarise=True)
    assert memory.shape == (2, 256, 64) and not (memory.view(np.uint32) & 0xFFFF).any()


def test_files_tell_what_they_are(folder: Path, model: OnnxModel, torch_model: Sam2) -> None:
    assert model.facts == Facts(torch_model.config, "fp32", weights_sha256(torch_model), __version__, "Apache-2.0")
    for part in PARTS:
        file = onnx.load(part_path(folder, part))
        onnx.checker.check_model(file)
        assert {entry.domain for entry in [*file.opset_import, *file.graph.node]} == {""}, "only standard operators"
        assert {entry.key: entry.value for entry in file.metadata_props}["sam2_pipeline.part"] == part
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{part}.onnx" for part in PARTS)


@pytest.mark.parametrize(("precision", "share", "least"), [("fp16", 0.55, 0.98), ("int8", 0.5, 0.8)])
def test_precisions(
    folder: Path, torch_model: Sam2, model: OnnxModel, tmp_path: Path, precision: str, share: float, least: float
) -> None:
    """Smaller files whose masks are nearly the same; finished here from the float32 ones, as a new trace would be."""
    for part in PARTS:
        draft = shutil.copy(part_path(folder, part), tmp_path / "draft")
        facts = Facts(model.config, precision, model.facts.weights_sha256, __version__, "Apache-2.0")
        finish(Path(draft), part_path(tmp_path, part), precision, facts.to_metadata(part))
    size = {where: sum(part_path(where, part).stat().st_size for part in PARTS) for where in (folder, tmp_path)}
    assert size[tmp_path] < share * size[folder]
    assert load_model(tmp_path, threads=1).facts.precision == precision
    frames = [synthetic_frame(t, HEIGHT, WIDTH, seed=2) for t in range(4)]
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[0, 20:50, 30:70] = masks[1, 40:80, 90:140] = masks[2, 5:30, 80:120] = True
    found = measure_agreement(torch_model, tmp_path, frames, masks)
    assert found["image"].ious.shape == (7,) and found["video"].ious.shape == (12,)
    assert least <= min(found["image"].ious.mean(), found["video"].ious.mean()) < 1, f"{precision}: {found}"


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
import numpy as np
import sam2_pipeline.onnx as onnx
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode

model = onnx.load_model(sys.argv[1], threads=1)
frames = list(np.load(sys.argv[2]))
segmenter = onnx.ImageSegmenter(model)
assert segmenter.predict(segmenter.embed(frames[0]), points=[[60, 40]], labels=[1]).masks().shape == (1, 3, 90, 160)
session = onnx.VideoSegmenter(model).open(frames)
session.prompt(Prompt(1, 1, points_xy=[[60, 40]], point_labels=[1]))
session.prompt(Prompt(2, 1, mask=encode(np.arange(160) > np.full((90, 1), 100))))
results = list(session.propagate()) + list(session.propagate(1, reverse=True))
assert [r.frame_index for r in results] == [1, 2, 1, 0] and results[-1].masks().shape == (2, 90, 160)
np.save(sys.argv[3], np.stack([r.logits_NHW for r in results]))
"""


def test_pictures_and_videos_without_torch(folder: Path, tmp_path: Path, torch_model: Sam2) -> None:
    from sam2_pipeline import VideoSegmenter
    from sam2_pipeline.masklets.rle import encode

    frames = [synthetic_frame(t, HEIGHT, WIDTH, seed=2) for t in range(3)]
    np.save(tmp_path / "frames.npy", np.stack(frames))
    places = [str(folder), str(tmp_path / "frames.npy"), str(tmp_path / "logits.npy")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = VideoSegmenter(torch_model).open(frames)
    session.prompt(Prompt(1, 1, points_xy=np.array([[60, 40]]), point_labels=np.array([1])))
    session.prompt(Prompt(2, 1, mask=encode(np.arange(WIDTH) > np.full((HEIGHT, 1), 100))))
    results = list(session.propagate()) + list(session.propagate(1, reverse=True))
    expected = np.stack([r.logits_NHW.numpy() for r in results])
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-3 * np.abs(expected[expected > -1000]).max())


def test_folders_that_hold_no_model(folder: Path, tmp_path: Path, model: OnnxModel) -> None:
    with pytest.raises(CheckpointError, match=r"image_encoder\.onnx is missing"):
        load_model(tmp_path)
    for part in PARTS:
        shutil.copy(part_path(folder, part), part_path(tmp_path, part))
    part_path(tmp_path, "mask_prompt").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"mask_prompt\.onnx cannot be loaded"):
        load_model(tmp_path)
    shutil.copy(part_path(folder, "memory_encoder"), part_path(tmp_path, "mask_prompt"))
    with pytest.raises(CheckpointError, match="expected mask_prompt in format 1"):
        load_model(tmp_path)
    file = onnx.load(part_path(folder, "mask_prompt"))
    other = Facts(model.config, "fp32", "another", __version__, "Apache-2.0")
    onnx.helper.set_model_props(file, other.to_metadata("mask_prompt"))
    onnx.save(file, part_path(tmp_path, "mask_prompt"))
    with pytest.raises(CheckpointError, match="parts of different models"):
        load_model(tmp_path)


def test_what_cannot_be_done(folder: Path, torch_model: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="precision is 'fp8', expected one of fp32, fp16, int8"):
        export_onnx(torch_model, tmp_path, "fp8")
    with pytest.raises(ConfigError, match="has no provider \\['MoonProvider'\\]"):
        load_model(folder, providers=["MoonProvider"])
    assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install 'sam2-pipeline\\[onnx\\]'"):
        load_model(folder)
