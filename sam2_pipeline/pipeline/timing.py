"""How long the model takes for a video, from the first frames of a few: in a process of its own, which has a deadline."""

import dataclasses
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sam2_pipeline.errors as errors
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import CheckpointError, PipelineError, VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoRef

FRAMES = 12  # of each video, of which the first finds the objects
PATIENCE_S = 180.0

Prompts = tuple[Prompt, ...] | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a video took here: its first frame, and each of the ``frames`` after that."""

    first_s: float
    each_s: float
    frames: int
    device: str


def time_videos(config: JobConfig, videos: Sequence[tuple[VideoRef, Prompts]], patience_s: float = PATIENCE_S) -> list[Timing]:
    """Track the first frames of ``videos``; those that cannot be read, or that the deadline finds unfinished, are left out.

    Raises:
        ConfigError, CheckpointError: there is no such model, or it has no weights here.
    """
    request = pickle.dumps((config, list(videos)))  # by a pipe: storage options have no business on a command line
    command = [sys.executable, "-m", "sam2_pipeline.pipeline.timing"]
    try:
        ran = subprocess.run(command, input=request, stdout=subprocess.PIPE, timeout=patience_s, check=False)
        said, status = ran.stdout, ran.returncode
    except subprocess.TimeoutExpired as late:
        said, status = late.stdout or b"", 0
    answers = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    for answer in answers:
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
    if status:
        raise CheckpointError(f"the process that times the model ended with status {status}; its output is above")
    return [Timing(**answer) for answer in answers]


def _time_one(generator: Any, device: str, video: VideoRef, prompts: Prompts, config: JobConfig) -> Timing:
    limits = config.limits
    with open_video(
        video.uri,
        storage_options=config.storage_options_for(video.uri),
        max_pixels=limits.max_pixels,
        max_duration_s=limits.max_duration_s,
        max_bytes=limits.max_bytes,
    ) as source:
        marks = [time.monotonic()]
        with closing(iter(generator.stream(source, prompts))) as stream:
            for _ in stream:
                marks.append(time.monotonic())
                if len(marks) > FRAMES:
                    break
    frames = len(marks) - 2
    return Timing(marks[1] - marks[0], (marks[-1] - marks[1]) / frames if frames > 0 else 0.0, max(frames, 0), device)


def _answer(config: JobConfig, videos: Sequence[tuple[VideoRef, Prompts]]) -> None:
    """Body of the process that `time_videos` starts: a line of JSON for each video, as it is done."""
    from sam2_pipeline.pipeline.factory import ModelFactory

    try:
        generator, facts = ModelFactory(config).build()
    except PipelineError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        return
    for video, prompts in videos:
        try:
            timing = _time_one(generator, facts.device, video, prompts, config)
        except VideoError:
            continue  # it will have its failed row
        print(json.dumps(dataclasses.asdict(timing)), flush=True)


if __name__ == "__main__":
    _answer(*pickle.load(sys.stdin.buffer))
