"""Videos and lists that somebody made to do harm: each costs its own row, and nothing is written beside the output."""

import ast
import struct
from pathlib import Path

import pytest
import videos
from fakes import FakeFactory

from sam2_pipeline import cli
from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter

PACKAGE = Path(__file__).parents[2] / "sam2_pipeline"
SHAPES = videos.moving_shapes(4)


def _run(source, output) -> dict[str, dict]:
    options = {"input": str(source), "output": str(output), "ray.address": "off"}
    run_job(JobConfig.load(options=options), factory=FakeFactory(), reporter=Reporter("quiet"))
    return {row["video_id"]: row for row in MaskletDataset(output).videos().to_pylist()}


def test_claims_without_measure_are_refused_by_the_default_limits(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    videos.write_video(folder / "fine.mp4", SHAPES)
    videos.write_video(folder / "ten-hours.mp4", SHAPES, times=[0.0, 1.0, 2.0, 36_000.0])
    small = videos.write_video(tmp_path / "small.avi", SHAPES, codec="rawvideo", pix_fmt="yuv420p").read_bytes()
    for name, side in (("16k", 16_000), ("100k", 100_000)):
        (folder / f"{name}.avi").write_bytes(small.replace(struct.pack("<ii", 64, 48), struct.pack("<ii", side, side)))
    rows = _run(folder, tmp_path / "out")
    assert rows["fine"]["status"] == "ok"
    said = {
        "ten-hours": "expected at most 14400",
        "16k": "expected at most 67108864",
        "100k": "FFmpeg cannot read it",  # which has a limit of its own
    }
    for name, says in said.items():
        assert (rows[name]["status"], rows[name]["error_type"]) == ("failed", "VideoError")
        assert says in rows[name]["error_message"], rows[name]["error_message"]


def test_names_lead_nowhere(tmp_path):
    (tmp_path / "in").mkdir()
    videos.write_video(tmp_path / "in" / "a.mp4", SHAPES)
    (tmp_path / "in" / "list.csv").write_text('url,video_id\na.mp4,../../evil\n"a.mp4",/tmp/evil\n')
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    rows = _run(tmp_path / "in" / "list.csv", tmp_path / "out")
    assert {row["status"] for row in rows.values()} == {"ok"} and len(rows) == 2
    for format in ("davis", "sav", "yolo"):
        cli.main(["export", str(tmp_path / "out"), str(tmp_path / "out" / "deeper" / format), "--format", format, "--quiet"])
    cli.main(["render", str(tmp_path / "out"), str(tmp_path / "out" / "deeper" / "overlays"), "--quiet"])
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    assert not list(Path("/tmp").glob("evil*"))
    written = [path for path in (tmp_path / "out").rglob("*evil*") if "deeper" not in path.parts]
    assert written == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_from_elsewhere_is_unpickled(path):
    """Pickles pass between our own processes, in these files; tensors are loaded without."""
    ours = {"pipeline/cluster.py", "pipeline/ray_worker.py", "pipeline/watchdog.py", "pipeline/timing.py"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, keywords = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in ("pickle.load", "pickle.loads"):
            assert str(path.relative_to(PACKAGE)) in ours
        if name in ("torch.load", "torch.hub.load"):
            assert keywords.get("weights_only") == "True"
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False"
        assert name not in ("yaml.load", "yaml.unsafe_load", "shelve.open", "marshal.loads")
