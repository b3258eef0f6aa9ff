"""The documentation builds without a warning, needs nothing from elsewhere, and has what is generated from the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, count_blocks

from sam2_pipeline.cli import build_parser
from sam2_pipeline.masklets.schema import TABLES

pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install .[docs]")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "WARNING" not in ran.stderr
    return folder


def test_pages_need_nothing_from_elsewhere(site: Path) -> None:
    """Fonts, scripts and pictures are the site's own; only links that a reader follows lead away."""
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 18
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link)[^>]*?(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text())
        assert not loaded, (page, loaded)


def test_every_fence_became_a_block(site: Path) -> None:
    """A label that MkDocs does not understand leaves a line of text."""
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "python.md":  # which has docstrings, too
            place = page.relative_to(ROOT / "docs").with_suffix("")
            html = (site / ("" if page.stem == "index" else place) / "index.html").read_text()
            assert html.count("<pre") == count_blocks(page.read_text()), page


def test_every_verb_and_column_is_there(site: Path) -> None:
    commands = (site / "reference" / "commands" / "index.html").read_text()
    verbs = next(action for action in build_parser()._actions if action.dest == "==SUPPRESS==" and action.choices).choices
    assert len(verbs) >= 15 and all(f'<h2 id="{verb}"' in commands for verb in verbs)
    tables = (site / "reference" / "tables" / "index.html").read_text()
    for schema in TABLES.values():
        assert all(f"<code>{name}</code>" in tables for name in schema.names)


def test_settings_tell_their_defaults(site: Path) -> None:
    settings = re.sub(r"<[^>]+>", "", (site / "reference" / "settings" / "index.html").read_text())
    assert re.search(r"generate\.points_per_side\s+whole number, from 1 up to 256\s+32", settings)
    assert re.search(r"tracking\.fill_hole_area\s+whole number, from 0\s+8\s+background components", settings)
    assert "optim.kind" in settings


def test_docstrings_became_a_reference(site: Path) -> None:
    reference = (site / "reference" / "python" / "index.html").read_text()
    for name in ("load_model", "ImageSegmenter", "PromptedSession", "MaskletDataset", "Prompt", "run_job", "ConfigError"):
        assert re.search(rf'<h[2-6] id="sam2_pipeline\.[\w.]+\.{name}"', reference), name
