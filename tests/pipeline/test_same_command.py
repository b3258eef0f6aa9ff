"""One command for a folder, a bucket, and a cluster that is there already; and as a job, as README writes it."""

import os
import shlex
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from fakes import write_clip
from faulty_proxy import s3_process
from pages import blocks
from small_cluster import small_cluster
from videos import moving_shapes, write_video

from sam2_pipeline import cli
from sam2_pipeline.io.dataset import MaskletDataset

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
JOBS = find_spec("aiohttp_cors") is not None  # which only ray[default] brings
COMMAND = """
import sys
from fakes import FakeFactory
from sam2_pipeline import cli
from sam2_pipeline.pipeline import prepare
prepare.ModelFactory = lambda config: FakeFactory()
sys.exit(cli.main(sys.argv[1:]))
"""
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def places():
    """A store and a cluster of two nodes that takes jobs; both are told of by the environment, as an operator would."""
    pytest.importorskip("moto.server")
    with pytest.MonkeyPatch.context() as patch, s3_process() as server:
        found = {"AWS_ENDPOINT_URL": f"http://{server}", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        found["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a job's "python" is this one, active or not
        for name, value in (KEYS | found).items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        with small_cluster(nodes=2, jobs=JOBS) as cluster:
            yield cluster
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def _run(source: str, output: str, ray: str) -> None:
    """The command; nothing else in it differs from place to place."""
    arguments = [
        "--set",
        "units.videos_per_unit=2",
        "--set",
        "annotate.fps=6",
        "--workers",
        "2" if ray != "off" else "1",
        "--quiet",
    ]
    # In a process of its own: in this one, earlier tests may have made up Ray's mind about tokens.
    ran = subprocess.run([sys.executable, "-c", COMMAND, "run", source, output, "--ray", ray, *arguments], check=False)
    assert ran.returncode == 3  # one video is broken


def _tables(output: str) -> dict[str, pd.DataFrame]:
    dataset = MaskletDataset(output)
    tables = {"videos": dataset.videos(), "masklets": dataset.masklets(), "masks": dataset.masks()}
    keys = ["video_id", "masklet_id", "frame_index"]
    # where a video lies, and what error messages say of that, is all that may differ
    aside = ["uri", "wall_s", "unit_id", "error_message"]
    return {
        name: table.to_pandas().sort_values([key for key in keys if key in table.column_names]).reset_index(drop=True)
        .drop(columns=aside, errors="ignore")
        for name, table in tables.items()
    }  # fmt: skip


def test_the_same_command_for_a_folder_a_bucket_and_a_cluster(places, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", places.address)  # which is what "auto" finds
    bucket = f"b-{uuid.uuid4().hex}"
    fs = fsspec.filesystem("s3")
    fs.call_s3("create_bucket", Bucket=bucket)
    for number in range(5):
        write_clip(tmp_path / "in" / f"{number}.mp4", frames=3 + number, brightness=20 * number)
    (tmp_path / "in" / "broken.mp4").write_bytes(b"no video")
    for file in (tmp_path / "in").iterdir():
        fs.pipe_file(f"{bucket}/in/{file.name}", file.read_bytes())
    outputs = {"folder": str(tmp_path / "out"), "bucket": f"s3://{bucket}/out", "cluster": f"s3://{bucket}/cluster/out"}
    _run(str(tmp_path / "in"), outputs["folder"], "off")
    _run(f"s3://{bucket}/in", outputs["bucket"], "off")
    _run(f"s3://{bucket}/in", outputs["cluster"], "auto")
    folder, *others = (_tables(output) for output in outputs.values())
    assert len(folder["videos"]) == 6 and len(folder["masklets"]) == 10
    for other in others:
        for name, table in folder.items():
            pd.testing.assert_frame_equal(table, other[name])
    for output in outputs.values():
        assert cli.main(["verify", output]) == 0


@pytest.mark.skipif(not JOBS, reason="`ray job` needs ray[default], which the extra `cluster` installs")
def test_a_job_as_readme_submits_it(places, tmp_path):
    """The command line of README, with small things in the place of large ones; the embedded model does the work."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.mp4", moving_shapes(3), fps=8)
    (line,) = (b.replace("\\\n", " ") for b in blocks((ROOT / "README.md").read_text(), "bash") if b.startswith("ray job submit"))
    small = {
        "s3://bucket/videos": str(tmp_path / "in"),
        "s3://bucket/masklets": str(tmp_path / "out"),
        "sam2.1_hiera_large": "sam2_pipeline_small",
    }
    words = [small.pop(word, word) for word in shlex.split(line)]
    assert not small and words[:3] == ["ray", "job", "submit"]
    settings = ["generate.points_per_side=2", "generate.crop_grids=[]", "generate.pred_iou_thresh=-1", "generate.max_objects=2"]
    settings += ["generate.stability_score_thresh=0", "generate.max_mask_share=1", "clean.min_component_area=0"]
    more = [*(f"--set={setting}" for setting in settings), "--image-size", "128"]
    environment = os.environ | {"RAY_ADDRESS": places.dashboard, "PYTHONUNBUFFERED": "1"}
    ran = subprocess.run([*words, *more], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "1 videos: 1 ok, 0 failed" in ran.stdout and "succeeded" in ran.stdout
    dataset = MaskletDataset(tmp_path / "out")
    assert dataset.masklets().num_rows >= 1 and dataset.masks().num_rows == 2 * dataset.masklets().num_rows  # 6 of 8 a second
    assert cli.main(["verify", str(tmp_path / "out")]) == 0
