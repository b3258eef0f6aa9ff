"""Every configuration exports, and onnxruntime agrees with PyTorch on a picture and a short video. Minutes each: `-m scale`."""

from pathlib import Path

import pytest
import torch
from random_weights import enliven

from sam2_pipeline import MODEL_NAMES
from sam2_pipeline.model.checkpoint import build_model
from sam2_pipeline.onnx.agreement import measure_agreement
from sam2_pipeline.onnx.export import export_onnx
from sam2_pipeline.training.synthetic import SceneOptions, make_scene

SIZE, FRAMES = 256, 3


@pytest.mark.scale
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_configuration(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(name, image_size=SIZE)
    with torch.no_grad():
        enliven(model.state_dict())
    export_onnx(model, tmp_path)
    scene = make_scene(11, SceneOptions(size=(SIZE, SIZE), frames=FRAMES, objects=(3, 3), late=0, parts=0))
    found = measure_agreement(model, tmp_path, [scene.frame(t) for t in range(FRAMES)], scene.masks(0)[:3])
    assert {task: len(one.ious) for task, one in found.items()} == {"image": 7, "video": 9}
    for task, one in found.items():
        assert one.ious.min() >= 0.999 and one.logit_difference < 1e-3, (task, one)
