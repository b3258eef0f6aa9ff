"""`estimate`: how much work a run would be, from a listing and the headers of a sample. Writes nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.manifest import plan_work, read_manifest
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.pipeline.prompts import PROBES_AT_ONCE, probe
from sam2_pipeline.pipeline.runfile import check_output, read_run

PROBED = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """``hours`` and ``size_bytes`` are of all videos, extrapolated from those ``probed``; ``units`` are still to do."""

    videos: int
    done: int
    to_do: int
    units: int
    hours: float
    size_bytes: float
    probed: int
    unreadable: int


def estimate(config: JobConfig) -> Estimate:
    """What `run_job` with this configuration would have to do.

    Raises:
        ConfigError: there is no such input, or the output holds something else.
    """
    config = config.anchored()
    storage = Storage(config.output, config.storage_options_for(config.output))
    check_output(storage, read_run(storage), config)
    videos = list(list_videos(config.input, config.storage_options_for(config.input), config.max_videos, config.sources.schemes))
    done = {video_id for commit in list_commits(storage) for video_id in commit.video_ids}
    plan = plan_work(videos, planned=read_manifest(storage), done=done, videos_per_unit=config.videos_per_unit)
    step = max(1, len(videos) // PROBED)
    sample = videos[::step][:PROBED]
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        infos = [info for info in pool.map(lambda video: probe(video, config), sample) if info is not None]
    seconds = sum(info.duration_s for info in infos) * len(videos) / len(sample)
    sizes = [video.size_bytes for video in videos if video.size_bytes is not None]
    size_bytes = sum(sizes) * len(videos) / len(sizes) if sizes else 0.0
    return Estimate(
        videos=len(videos),
        done=len(videos) - plan.num_videos,
        to_do=plan.num_videos,
        units=len(plan.units),
        hours=seconds / 3600,
        size_bytes=size_bytes,
        probed=len(sample),
        unreadable=len(sample) - len(infos),
    )
