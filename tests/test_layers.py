"""Imports only go down: the architecture that the folders promise."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sam2_pipeline"
# What each place may import from the package, besides itself, `errors` and (for its version and public names) the root.
BELOW = {
    "errors": set(),
    "version": set(),
    "settings": set(),
    "config": {"settings"},
    "masklets": set(),
    "model": set(),
    "io": {"masklets"},
    "render": {"masklets"},
    "segment": {"model", "masklets"},
    "compat": {"segment", "io", "model", "masklets"},
    "pipeline": {"formats", "segment", "io", "model", "masklets", "config", "settings", "version"},
    "formats": {"io", "masklets"},
    "evaluation": {"formats", "io", "masklets"},
    "report": {"evaluation", "formats", "render", "io", "masklets"},
    "serve": {"formats", "pipeline", "segment", "io", "masklets", "config"},
    "torch_dataset": {"io", "masklets"},
    "onnx": {"segment", "model", "masklets"},
    "training": {"formats", "model", "masklets", "segment", "io", "config", "settings"},
    "protocols": {"evaluation", "formats", "training", "pipeline", "segment", "io", "masklets", "config", "settings"},
    "live": {"serve", "pipeline", "segment", "io", "render", "model", "masklets", "config", "settings"},
    "bench": {"version", "onnx", "pipeline", "segment", "io", "render", "model", "masklets", "config", "compat"},
}
TOP = {"__init__", "__main__", "cli", "commands", "demo", "doctor"}


def imports_of(path: Path) -> set[str]:
    """The places in the package that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("sam2_pipeline.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if place in TOP:
        return
    upward = imports_of(path) - BELOW[place] - {place, "errors"}
    assert not upward, f"{place} must not import {sorted(upward)}"


@pytest.mark.parametrize("place", ["io", "masklets", "formats", "evaluation", "render", "report"])
def test_no_torch_where_there_are_no_networks(place: str) -> None:
    for path in (PACKAGE / place).rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not [name for name in names if name.split(".")[0] == "torch"], path
