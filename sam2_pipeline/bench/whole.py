"""What only we can run: a video to tables beside the bare model, and the small model as fast as it goes."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from sam2_pipeline.bench import scene
from sam2_pipeline.bench.measure import FRAMES_A_TURN, HEIGHT, MEMORY_FULL, WIDTH, Result
from sam2_pipeline.config import JobConfig
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.model.checkpoint import build_model, weights_sha256
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.job import ModelFacts
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.render.video import write_video
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.tracking import TrackingOptions
from sam2_pipeline.segment.video import VideoSegmenter

SMALL_MODEL = "sam2_pipeline_small"


@dataclass(frozen=True)
class _Ready:
    """Hands a run the model that is there already: its loading is not what is measured."""

    model: Sam2

    def describe(self) -> ModelFacts:
        return ModelFacts(self.model.config.name, weights_sha256(self.model), str(self.model.device))

    def on(self, device: str) -> _Ready:
        return self

    def build(self, threads: int | None = None) -> tuple[MaskletGenerator, ModelFacts]:
        return MaskletGenerator(self.model, tracking=TrackingOptions()), self.describe()


def videos_to_tables(model: Sam2, frames: int, objects: int) -> Result:
    """Milliseconds a frame of a whole prompted run (planning, decoding, tracking, RLE, Parquet, commit) as ``tables``, and of
    tracking alone, on frames that are in memory, as ``model``; the ratio is the share of the model's speed that is left."""
    pictures = scene.moving_discs(frames, HEIGHT, WIDTH)
    clicks = scene.clicks(objects, HEIGHT, WIDTH)
    prompts = [Prompt(number, 0, click[None], np.array([1])) for number, click in enumerate(clicks)]

    def alone() -> int:
        return sum(1 for _ in VideoSegmenter(model, TrackingOptions()).track(pictures, prompts))

    def tables() -> int:
        with tempfile.TemporaryDirectory(prefix="sam2-pipeline-bench-") as folder:
            root = Path(folder)
            (root / "videos").mkdir()
            write_video(root / "videos" / "discs.mp4", pictures, fps=24)
            _write_prompts(root / "prompts.csv", clicks)
            given = {
                "input": str(root / "videos"), "output": str(root / "out"), "prompts.file": str(root / "prompts.csv"),
                "ray.address": "off",
            }  # fmt: skip
            started[:] = time.perf_counter(), time.process_time()
            summary = run_job(JobConfig.load(None, [], given), factory=_Ready(model), reporter=Reporter("quiet"))
            return summary.annotated_frames

    result = Result("videos to tables", {"tables": [], "model": []}, {"tables": [], "model": []})
    started = [0.0, 0.0]
    for name, work in (("model", alone), ("tables", tables), ("model", alone), ("tables", tables)):
        started[:] = time.perf_counter(), time.process_time()
        done = work()
        result.wall_ms[name].append((time.perf_counter() - started[0]) * 1e3 / done)
        result.cpu_ms[name].append((time.process_time() - started[1]) * 1e3 / done)
        result.agrees &= done == frames
    result.agreement = f"{frames} frames, {objects} objects; {len(result.wall_ms['tables'])} runs"
    return result


def _write_prompts(path: Path, clicks: np.ndarray) -> None:
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("video_id", "object_id", "frame_index", "points", "labels"))
        rows.writerows(("discs", number, 0, [[float(x), float(y)]], [1]) for number, (x, y) in enumerate(clicks))


def small_model(frames: int, name: str = SMALL_MODEL) -> Result:
    """Milliseconds a frame of our small model that follows one object, once its memory is full; random weights."""
    model = build_model(name)
    model.load_state_dict(scene.random_weights({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}))
    turns = -(-frames // FRAMES_A_TURN)
    pictures = scene.moving_discs(FRAMES_A_TURN * turns + MEMORY_FULL, HEIGHT, WIDTH)
    click = scene.clicks(1, HEIGHT, WIDTH)
    walk = VideoSegmenter(model, TrackingOptions()).track(pictures, [Prompt(0, 0, click, np.array([1]))])
    result = Result(f"{name}, {model.config.image_size} pixels, 1 object", {name: []}, {name: []})
    for _ in islice(walk, MEMORY_FULL):
        pass
    for _ in range(turns):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in islice(walk, FRAMES_A_TURN):
            pass
        result.wall_ms[name].append((time.perf_counter() - wall) * 1e3 / FRAMES_A_TURN)
        result.cpu_ms[name].append((time.process_time() - cpu) * 1e3 / FRAMES_A_TURN)
    rate = 1e3 / float(np.median(result.wall_ms[name])), 1e3 / float(np.median(result.cpu_ms[name]))
    result.agreement = f"{rate[0]:.1f} frames/s (per second of CPU time: {rate[1]:.1f}), {torch.get_num_threads()} threads"
    return result


def describe_whole(results: Sequence[Result]) -> Iterator[str]:
    """One line each, for people."""
    for result in results:
        times = ", ".join(f"{name} {float(np.median(times)):.0f} ms a frame" for name, times in result.wall_ms.items())
        ratio = result.ratio("cpu_ms")
        share = "" if ratio is None else f"; {ratio[0]:.0%} of the bare model's speed by CPU time"
        yield f"{result.task}: {times}{share}; {result.agreement}"
