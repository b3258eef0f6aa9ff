"""The prompts of a run: read, checked against the videos they name, and handed out by video."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sam2_pipeline.config import JobConfig, is_remote
from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.probe import probe_video
from sam2_pipeline.io.prompts_table import PromptRow, check_prompts, read_prompts
from sam2_pipeline.io.urls import forbidden
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoInfo, VideoRef

PROBES_AT_ONCE = 4
SHOWN = 5


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts by video id, a SHA-256 over them, and what was left out, with reasons."""

    by_video: dict[str, tuple[Prompt, ...]]
    sha256: str
    skipped: tuple[str, ...] = ()


def load_prompts(config: JobConfig, videos: Sequence[VideoRef]) -> PromptSet | None:
    """The prompts that ``config`` names, checked against ``videos``; None for automatic masklets.

    Raises:
        ConfigError: the file cannot be read, or holds rows that fit no video, unless ``prompts.on_error`` is ``skip``.
    """
    url = config.prompts.file
    if url is None:
        return None
    options = config.storage_options_for(url)
    rows = read_prompts(url, options)
    problems = _problems(rows, videos, config)
    if problems and config.prompts.on_error == "error":
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise ConfigError(f"{url}: {'; '.join(list(problems.values())[:SHOWN])}{more}")
    by_video: dict[str, list[Prompt]] = {}
    for row in rows:
        if row.line not in problems and row.prompt is not None:
            by_video.setdefault(row.video_id, []).append(row.prompt)
    if not by_video:
        raise ConfigError(
            f"{url}: no usable prompt is left: {'; '.join(list(problems.values())[:SHOWN]) or 'the table is empty'}"
        )
    prompts = {video_id: tuple(by_video[video_id]) for video_id in sorted(by_video)}
    return PromptSet(prompts, _sha256(prompts), tuple(problems.values()))


def _sha256(by_video: dict[str, tuple[Prompt, ...]]) -> str:
    """Of the prompts themselves, so that the same table as CSV and as Parquet counts as the same."""
    digest = hashlib.sha256()
    for video_id, prompts in by_video.items():
        for prompt in prompts:
            box = None if prompt.box_xyxy is None else prompt.box_xyxy.tolist()
            mask = None if prompt.mask is None else prompt.mask.to_coco()
            points = [prompt.points_xy.tolist(), prompt.point_labels.tolist()]
            digest.update(json.dumps([video_id, prompt.object_id, prompt.frame_index, points, box, mask]).encode() + b"\n")
    return digest.hexdigest()


def _problems(rows: Sequence[PromptRow], videos: Sequence[VideoRef], config: JobConfig) -> dict[int, str]:
    """What is wrong, by line. A video that cannot be opened gets its failed row later and says nothing against its prompts."""
    named = {row.video_id for row in rows}
    refs = [video for video in videos if video.video_id in named]
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        infos = dict(zip((video.video_id for video in refs), pool.map(lambda video: probe(video, config), refs)))
    sizes = {video_id: (info.width, info.height, info.frame_count) for video_id, info in infos.items() if info is not None}
    unreadable = {video_id for video_id, info in infos.items() if info is None}
    problems: dict[int, str] = {}
    for row in rows:
        fit = row.video_id in unreadable and row.problem is None
        found = [] if fit else check_prompts([row], sizes)
        if found:
            problems[row.line] = "; ".join(found)
    return problems


def probe(video: VideoRef, config: JobConfig) -> VideoInfo | None:
    """Size and length of a video, of a remote one from its header alone; None if it cannot be opened."""
    options = config.storage_options_for(video.uri)
    limits = config.limits
    if forbidden(video.uri, config.sources.schemes):
        return None
    try:
        if is_remote(video.uri):
            return probe_video(video.uri, storage_options=options)
        with open_video(video.uri, max_pixels=limits.max_pixels, max_duration_s=limits.max_duration_s) as source:
            return source.info
    except VideoError:
        return None
