"""Pages of documentation as things to test: their code, their commands, and a folder in which their names mean small things."""

import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.models import synthetic_model
from golden.synthetic_inputs import synthetic_frame
from PIL import Image
from videos import write_video

import sam2_pipeline as sp
from sam2_pipeline.bench import cli as bench
from sam2_pipeline.cli import build_parser
from sam2_pipeline.config import JobConfig
from sam2_pipeline.pipeline.driver import run_job

ROOT = Path(__file__).parent.parent
EASY = sp.GenerateOptions(points_per_side=2, crop_grids=(), pred_iou_thresh=0.0, stability_score_thresh=0.0, max_objects=2)
_FENCE = re.compile(r"^( *)```([^\n`]+)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    """Code under a fence that says just ``language`` (or ``{ .language .class }``), indentation taken away."""
    found = [(indent, code) for indent, label, code in _FENCE.findall(text) if label.strip() == language]
    return ["".join(line.removeprefix(indent) for line in code.splitlines(keepends=True)) for indent, code in found]


def count_blocks(text: str) -> int:
    """How many there are, of any language."""
    return len(_FENCE.findall(text))


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``sam2-pipeline`` in the page's shell code, and of the jobs that take its arguments."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines for words in _commands_in(line)]


def _commands_in(line: str) -> Iterator[list[str]]:
    if "sam2-pipeline " in line and not line.lstrip().startswith("#"):
        yield shlex.split(line.split("sam2-pipeline ", 1)[1], comments=True)
    elif "jobs/auto_masklets.py " in line:
        yield ["run", *shlex.split(line.split("jobs/auto_masklets.py ", 1)[1], comments=True)]


def check_command(words: list[str]) -> None:
    """The command line takes these arguments; settings in them are known, and fit."""
    if words[0] == "bench":
        bench.build_parser().parse_args(words[1:])
        return
    options = build_parser().parse_args(words)
    if words[0] in ("run", "plan"):
        given = {"input": options.input, "output": options.output, "model.name": options.model}
        JobConfig.load(ROOT / options.config if options.config else None, options.set, given, {})


def small_clip(path: Path, frames: int) -> None:
    """A video of 512 x 400 pixels."""
    pictures = [np.asarray(Image.fromarray(synthetic_frame(t, 90, 120, seed=2)).resize((512, 400))) for t in range(frames)]
    write_video(path, pictures)


def small_names(folder: Path, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Makes ``folder`` the working directory, with the files that pages name, and models small."""
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)
    Image.fromarray(synthetic_frame(0, 400, 600)).save("truck.jpg")
    small_clip(folder / "clip.mp4", frames)
    small_clip(folder / "camera.mp4", frames=3)
    monkeypatch.setattr(sp, "open_stream", lambda url, open=sp.open_stream: open(folder / "camera.mp4"), raising=False)
    model = synthetic_model(image_size=128)
    real = sp.load_model
    monkeypatch.setattr(sp, "load_model", lambda name=None, **given: real(name, **given) if given else model, raising=False)
    monkeypatch.setattr(sp, "MaskletGenerator", partial(sp.MaskletGenerator, generate=EASY), raising=False)


def small_run(folder: Path, video: Path, output: Path) -> None:
    """Tables of masklets of a video, by a model of no training."""
    weights = folder / "weights.pt"
    torch.save({"model": synthetic_model(image_size=128).state_dict()}, weights)
    settings = ["generate.points_per_side=2", "generate.crop_grids=[]", "generate.pred_iou_thresh=0", "generate.max_objects=1",
                "generate.stability_score_thresh=0", "model.image_size=128", "annotate.fps=2"]  # fmt: skip
    given = {"input": str(video), "output": str(output), "model.checkpoint": str(weights), "ray.address": "off"}
    assert run_job(JobConfig.load(None, settings, given, {})).exit_code == 0
