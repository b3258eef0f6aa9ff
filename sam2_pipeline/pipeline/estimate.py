"""`estimate`: how much work a run would be, from a listing and the headers of a sample. Writes nothing."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.manifest import plan_work, read_manifest
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.work import VideoInfo, VideoRef
from sam2_pipeline.pipeline.prepare import check_secrets
from sam2_pipeline.pipeline.prompts import PROBES_AT_ONCE, load_prompts, probe
from sam2_pipeline.pipeline.runfile import check_output, read_run
from sam2_pipeline.pipeline.timing import time_videos

PROBED = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """``hours`` and ``size_bytes`` are of all videos, extrapolated from those ``probed``; ``units`` are still to do.

    ``worker_hours`` is how long one worker on a ``device`` like this machine's has to do, by the first frames of the ``timed``
    videos; None if none was timed. Where objects are looked for again, or masklets judged, it is what that costs at most (see
    `walks`).
    """

    videos: int
    done: int
    to_do: int
    units: int
    hours: float
    size_bytes: float
    probed: int
    unreadable: int
    timed: int = 0
    worker_hours: float | None = None
    device: str | None = None


def estimate(config: JobConfig, num_timed: int = 0) -> Estimate:
    """What `run_job` with this configuration would have to do; the model is tried on ``num_timed`` videos.

    Raises:
        ConfigError: there is no such input, or the output holds something else.
        CheckpointError: the model that is to be timed has no weights here.
    """
    config = config.anchored()
    check_secrets(config)
    storage = Storage(config.output, config.storage_options_for(config.output))
    check_output(storage, read_run(storage), config)
    videos = list(list_videos(config.input, config.storage_options_for(config.input), config.max_videos, config.sources.schemes))
    done = {video_id for commit in list_commits(storage) for video_id in commit.video_ids}
    plan = plan_work(videos, planned=read_manifest(storage), done=done, videos_per_unit=config.videos_per_unit)
    step = max(1, len(videos) // PROBED)
    sample = videos[::step][:PROBED]
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        probed = list(zip(sample, pool.map(lambda video: probe(video, config), sample)))
    infos = [info for _, info in probed if info is not None]
    seconds = sum(info.duration_s for info in infos) * len(videos) / len(sample)
    sizes = [video.size_bytes for video in videos if video.size_bytes is not None]
    size_bytes = sum(sizes) * len(videos) / len(sizes) if sizes else 0.0
    found = Estimate(
        videos=len(videos),
        done=len(videos) - plan.num_videos,
        to_do=plan.num_videos,
        units=len(plan.units),
        hours=seconds / 3600,
        size_bytes=size_bytes,
        probed=len(sample),
        unreadable=len(sample) - len(infos),
    )
    readable = [(video, info) for video, info in probed if info is not None]
    return _with_timings(found, config, readable, num_timed) if num_timed and readable and found.to_do else found


def _with_timings(found: Estimate, config: JobConfig, readable: Sequence[tuple[VideoRef, VideoInfo]], num_timed: int) -> Estimate:
    """The estimate with the time that the model takes: for a video's first frame, and for each further one."""
    prompts = load_prompts(config, [video for video, _ in readable])
    chosen = [video for video, _ in readable if prompts is None or video.video_id in prompts.by_video]
    step = max(1, len(chosen) // num_timed)
    wanted = chosen[::step][:num_timed]
    timings = time_videos(config, [(video, None if prompts is None else prompts.by_video[video.video_id]) for video in wanted])
    if not timings:
        return found
    first_s = sum(timing.first_s for timing in timings) / len(timings)
    each_s = sum(timing.each_s * timing.frames for timing in timings) / max(1, sum(timing.frames for timing in timings))
    given = {} if prompts is None else prompts.by_video
    todo = [walks(config, info, None if prompts is None else given.get(video.video_id, ())) for video, info in readable]
    firsts, others = (sum(column) / len(todo) for column in zip(*todo))
    worker_s = found.to_do * (first_s * firsts + each_s * others)
    return replace(found, timed=len(timings), worker_hours=worker_s / 3600, device=timings[0].device)


def walks(config: JobConfig, info: VideoInfo, prompts: Sequence[Prompt] | None) -> tuple[int, int]:
    """How often a video of ``prompts`` (None: automatic masklets) costs what a first frame does, with the search for objects, and
    how many more frames are tracked: forward, backward to before the last object's birth, and both again if masklets are judged.

    At most so much: how many objects will appear is not known, so every keyframe is taken to be searched whole, and the last
    to bring a new object; cuts, after which a shot is searched anew, have yet to be found.
    """
    last = info.frame_count - 1
    if prompts is None:
        every_s = config.discover.every_s
        searches = 1 if every_s is None else 1 + int(last / (info.fps * every_s))
        born, latest = 0, 0 if every_s is None else int((searches - 1) * every_s * info.fps)
    elif not prompts:
        return 0, 0
    else:
        births: dict[int, int] = {}
        for prompt in prompts:
            births[prompt.object_id] = min(prompt.frame_index, births.get(prompt.object_id, last))
        searches, born, latest = 1, min(births.values()), max(births.values())
    forward, backward = last - born + 1, latest if config.tracking.backward else 0
    judged = forward + backward if config.judge.enabled else 0
    return searches, max(forward - searches, 0) + backward + judged
