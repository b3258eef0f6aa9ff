"""One worker or several: the same training."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sam2_pipeline.training.settings import TrainConfig
from sam2_pipeline.training.trainer import train

ROOT = Path(__file__).parent.parent.parent
SETTINGS = (
    "model.checkpoint=null",
    "data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.num_scenes=6", "data.frames=3",
    "data.max_stride=1", "data.objects=3", "prompts.corrections=1", "optim.steps=3", "optim.warmup=2", "optim.lr=1e-4",
    "optim.trunk_lr=1e-4", "run.log_every=1", "run.save_every=2",
)  # fmt: skip


def losses(folder: Path) -> list[list[float]]:
    with open(folder / "log.csv", newline="") as file:
        names = ("total", "focal", "dice", "iou", "presence", "norm")
        return [[float(row[name]) for name in names] for row in csv.DictReader(file)]


def _work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.meeting", rank=rank, world_size=world)
    train(TrainConfig.load(None, [*SETTINGS, f"run.output={folder}"]))
    dist.destroy_process_group()


def test_two_workers_train_as_one(tmp_path):
    train(TrainConfig.load(None, [*SETTINGS, f"run.output={tmp_path / 'one'}"]))
    mp.spawn(_work, (2, str(tmp_path / "two")), nprocs=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 3
    for a, b in zip(one, two):
        assert a == pytest.approx(b, rel=2e-3)


@pytest.mark.ray
def test_the_job_runs_on_ray(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "jobs" / "train.py"),
        "--ray",
        "local",
        "--workers",
        "2",
        "--cpu",
        "--output",
        str(tmp_path),
    ]
    for setting in SETTINGS:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(tmp_path / "weights.safetensors") in done.stdout
    assert len(losses(tmp_path)) == 3
    said = done.stdout + done.stderr
    lines = ("sam2_pipeline_small from random weights", *(f"{step}/3 steps, loss" for step in (1, 2, 3)))
    assert {line: said.count(line) for line in lines} == dict.fromkeys(lines, 1)


@pytest.mark.ray
def test_several_workers_need_a_number_of_steps():
    """A clock of their own each would end the run at different steps."""
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--workers", "2", "--output", "out", "--set", "optim.minutes=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "optim.minutes is 1.0, expected null with 2 workers" in done.stderr


def test_workers_find_what_was_named_from_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    job = runpy.run_path(str(Path(__file__).parents[2] / "jobs/train.py"))
    names = ("model.checkpoint=weights.pt", "model.teacher=t.safetensors", "loss.pixels=1", "data.kind=davis", "data.root=videos")
    here = job["from_here"](TrainConfig.load(None, names))
    assert (here.model.checkpoint, here.data.root) == (str(tmp_path / "weights.pt"), str(tmp_path / "videos"))
    assert here.model.teacher == str(tmp_path / "t.safetensors")
    assert here.data.pictures is None
    assert job["from_here"](TrainConfig()).model.checkpoint == "pretrained", "which is no path"
    far = job["from_here"](TrainConfig.load(None, ["model.checkpoint=s3://bucket/weights.pt"]))
    assert far.model.checkpoint == "s3://bucket/weights.pt"
    stages = "stages=[{share: 0.5, data: {pictures: photos, batch: 4}}, {share: 0.5, prompts: {mask: 0.2}}]"
    first, second = job["from_here"](TrainConfig.load(None, [stages])).stages
    assert first["data"] == {"pictures": str(tmp_path / "photos"), "batch": 4} and second == {
        "share": 0.5,
        "prompts": {"mask": 0.2},
    }
