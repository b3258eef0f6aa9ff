"""One export for all tests: tracing takes most of their time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden.models import synthetic_model

from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.export import export_onnx
from sam2_pipeline.onnx.model import OnnxModel, load_model


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def torch_model() -> Sam2:
    """The model of most golden cases: SAM 2.1 tiny at 256 pixels."""
    return synthetic_model()


@pytest.fixture(scope="package")
def folder(torch_model: Sam2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_onnx(torch_model, folder)
    return folder


@pytest.fixture(scope="package")
def model(folder: Path) -> OnnxModel:
    return load_model(folder, threads=1)
