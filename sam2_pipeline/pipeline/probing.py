"""How many frames the videos of a plan have, by their headers: in a process of its own, since what is in a file is not trusted.

Headers are read in parallel, of at most `PROBED` videos: with hundreds of thousands in a bucket, those spread over all sizes
say how many frames a byte of each kind of file holds, and the bytes, which the listing tells, do the rest.
"""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.probe import probe_length
from sam2_pipeline.io.urls import extension, forbidden
from sam2_pipeline.masklets.work import VideoRef

PROBED = 1000
AT_ONCE = 16  # nearly all of it is waiting for the store
PATIENCE_S = 60.0


def predict_frames(config: JobConfig, videos: Sequence[VideoRef]) -> list[VideoRef]:
    """The videos with the frames that each is expected to have; as they were if no header could be read."""
    return with_predictions(videos, probe_lengths(config, spread(videos, PROBED)) if videos else {})


def spread(videos: Sequence[VideoRef], count: int) -> list[VideoRef]:
    """At most ``count`` of the videos, evenly from the smallest to the largest."""
    if len(videos) <= count:
        return list(videos)
    ordered = sorted(videos, key=lambda video: (video.size_bytes or 0, video.video_id))
    return [ordered[number * (len(ordered) - 1) // max(count - 1, 1)] for number in range(count)]


def with_predictions(videos: Sequence[VideoRef], frames: Mapping[str, int]) -> list[VideoRef]:
    """The videos with the ``frames`` of those that were probed (by video id), and for the others what those let expect."""
    if not frames:
        return list(videos)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for video in videos:
        if video.video_id in frames and video.size_bytes:
            for kind in (extension(video.uri), "any"):
                counts[kind] += frames[video.video_id]
                sizes[kind] += video.size_bytes
    mean = sum(frames.values()) / len(frames)

    def expected(video: VideoRef) -> int:
        kind = extension(video.uri) if sizes[extension(video.uri)] else "any"
        if video.size_bytes is None or not sizes[kind]:
            return round(mean)
        return max(1, round(video.size_bytes * counts[kind] / sizes[kind]))

    return [dataclasses.replace(video, frames=frames.get(video.video_id) or expected(video)) for video in videos]


def probe_lengths(config: JobConfig, videos: Sequence[VideoRef], patience_s: float = PATIENCE_S) -> dict[str, int]:
    """Frames by video id, by the headers. What cannot be read, or not in time, is left out: its failed row will say why."""
    fit = [video for video in videos if not forbidden(video.uri, config.sources.schemes)]
    asked = [(video.video_id, video.uri, config.storage_options_for(video.uri)) for video in fit]
    request = json.dumps(asked).encode()  # by a pipe: storage options have no business on a command line
    command = [sys.executable, "-m", "sam2_pipeline.pipeline.probing"]
    try:
        ran = subprocess.run(
            command, input=request, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=patience_s, check=False
        )
        said = ran.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
    return dict(json.loads(line) for line in said.splitlines(keepends=True) if line.endswith(b"\n"))


def _answer(asked: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """Body of the process that `probe_lengths` starts: a line of JSON for each video, as it is read."""

    def probe(video_id: str, uri: str, storage_options: dict[str, Any]) -> None:
        length = probe_length(uri, storage_options=storage_options)
        sys.stdout.write(json.dumps([video_id, length]) + "\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for video in asked:
            pool.submit(probe, *video)  # a failure is no answer


if __name__ == "__main__":
    _answer(json.load(sys.stdin))
