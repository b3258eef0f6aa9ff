"""The Python of the how-to page on ONNX runs, on a real export."""

from pathlib import Path

import pytest
from pages import ROOT, blocks, small_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the export that they share takes a minute


def test_python_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_names(tmp_path, monkeypatch, frames=6)
    (tmp_path / "exported").symlink_to(folder)
    names: dict = {}
    for block in blocks((ROOT / "docs" / "howto" / "export-onnx.md").read_text(), "python"):
        exec(compile(block, "export-onnx.md", "exec"), names)
    assert names["best"].shape == (400, 600) and names["masks"].shape == (1, 400, 512) and len(names["corrected"]) == 3
