"""What the pages below docs/ say is so: Python runs, commands and settings exist, YAML is what it claims, errors are real."""

import ast
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pages import ROOT, blocks, check_command, commands, small_clip, small_names, small_run
from safetensors.torch import save_file

import sam2_pipeline as sp
from sam2_pipeline.compat import build
from sam2_pipeline.masklets.schema import TABLES

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {str(page.relative_to(ROOT / "docs")): page.read_text() for page in PAGES}


ONNX = "howto/export-onnx.md"  # its Python needs an export: tests/onnx_export has one


def having(language: str) -> list[str]:
    return [name for name, text in TEXTS.items() if blocks(text, language)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo leaves, in small: a clip, and tables of its masklets."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "demo" / "videos").mkdir(parents=True)
    small_clip(folder / "demo" / "videos" / "synthetic_000000.mp4", frames=6)
    small_run(folder, folder / "demo" / "videos", folder / "out")
    return folder


@pytest.fixture
def place(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name, and small models."""
    small_names(tmp_path, monkeypatch, frames=6)
    for name in ("demo", "out"):
        (tmp_path / name).symlink_to(demo / name)
    (tmp_path / "further").mkdir()
    for name in ("before", "further/weights"):
        save_file({"bias": torch.ones(3, dtype=torch.float16)}, tmp_path / f"{name}.safetensors")
    model, make = sp.load_model(), build.make_model
    monkeypatch.setattr(
        build, "make_model", lambda config, _file, *rest, **given: make(config, None, *rest, **given, model=model)
    )
    return tmp_path


@pytest.mark.parametrize("name", [name for name in having("python") if name != ONNX])
def test_python_runs(name: str, place: Path) -> None:
    names: dict = {}
    for block in blocks(TEXTS[name], "python"):
        exec(compile(block, name, "exec"), names)


@pytest.mark.parametrize("name", having("{ .python .peer }"))
def test_code_of_others_is_python(name: str) -> None:
    for block in blocks(TEXTS[name], "{ .python .peer }"):
        ast.parse(block)


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if commands(text)])
def test_commands_parse(name: str) -> None:
    for words in commands(TEXTS[name]):
        check_command(words)


def test_inline_settings_exist() -> None:
    """`--set key=value` within the text, too."""
    found = {match for text in TEXTS.values() for match in re.findall(r"--set '?([a-z_.]+=[^\s'`]+)", text)}
    assert len(found) >= 10
    for setting in found:
        if not setting.startswith(("data.", "optim.", "run.", "model.freeze", "model.checkpoint")):  # those of train
            check_command(["run", "videos/", "out/", "--set", setting.replace("=...", "=1")])


@pytest.mark.parametrize("name", having("sql"))
def test_queries_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    for query in blocks(TEXTS[name], "sql"):
        for folder, table in re.findall(r"'(\S+)/(\w+)/\*\.parquet'", query):
            (tmp_path / folder / table).mkdir(parents=True, exist_ok=True)
            pq.write_table(TABLES[table].empty_table(), tmp_path / folder / table / "unit-0-0.parquet")
        assert duckdb.sql(query).columns


def test_the_rayjob_runs_a_command_that_exists() -> None:
    [text] = blocks(TEXTS["howto/kubernetes.md"], "yaml")
    job = yaml.safe_load(text)
    assert job["kind"] == "RayJob"
    script, *words = job["spec"]["entrypoint"].removeprefix("python ").split()
    assert (ROOT / script).is_file()
    check_command(["run", *words])
    groups = [job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert len(images) == 1, "head and workers run the same image"


def test_files_that_pages_name_exist() -> None:
    named = {
        match for text in TEXTS.values() for match in re.findall(r"\b(?:configs|jobs|notebooks)/\w+\.(?:yaml|py|ipynb)\b", text)
    }
    assert named and all((ROOT / name).is_file() for name in named), named


# ------------------------------------------------------------------------------------------------------------- errors


def literals() -> list[str]:
    """Every text of the package's source, with … for what is filled in."""
    found = []
    for path in (ROOT / "sam2_pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(piece.value) if isinstance(piece, ast.Constant) else "…" for piece in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_errors_are_real() -> None:
    """Each message of the page is one that the source holds."""
    source = literals()
    quoted = blocks(TEXTS["troubleshooting.md"], "{ .text .error }")
    assert len(quoted) >= 20
    for message in quoted:
        pattern = re.compile(".*".join(re.escape(piece) for piece in message.strip().split("…")), re.DOTALL)
        assert any(pattern.search(text) for text in source), message
