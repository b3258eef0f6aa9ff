"""The notebooks run from top to bottom, as they are, and show pictures; they are stored without outputs."""

import base64
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"01_image": 7, "02_video": 7, "03_dataset": 1}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    encoded = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(encoded) >= PICTURES[path.stem]
    for one in encoded:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB"))
        assert picture.shape[1] >= 320 and picture.std() > 5, "a picture that shows something"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert code[0].source.startswith("MODEL = None"), "the one cell that chooses the model comes first"
    assert not any("ipywidgets" in cell.source for cell in code)
