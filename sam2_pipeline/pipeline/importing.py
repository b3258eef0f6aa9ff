"""What others annotated, into our tables: units, commits and a record as of a run, so that it can be resumed and verified."""

import json
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sam2_pipeline import __version__
from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.io.commits import commit_unit, list_commits, sweep_orphans
from sam2_pipeline.io.manifest import plan_work, read_manifest, write_manifest
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, VIDEOS
from sam2_pipeline.masklets.work import Commit, VideoRef, WorkUnit
from sam2_pipeline.pipeline.runfile import RUN_FILE, check_free, read_run
from sam2_pipeline.pipeline.summary import Summary, summarise, write_summary


def import_masks(
    source: MaskSource,
    output: Storage,
    *,
    fps: float | None = None,
    places: Callable[[str], str | None] | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Writes every video of ``source``; run again, it continues. A video that cannot be read gives a failed row.

    Args:
        fps: frames a second of the videos, where the annotations do not know it better.
        places: where the video of an id is; default: where the format has it.
        on_video: told after every unit how many videos are done, and of how many.

    Raises:
        ConfigError: the output holds something else.
        StorageError: it cannot be written to.
    """
    record = {"input": source.url, "imported": {"reader": type(source).__name__, "fps": fps}}
    _check(output, record)
    output.check_exclusive()
    where = places or source.video_url
    videos = [VideoRef(video_id, where(video_id) or "", None) for video_id in source.video_ids]
    done = {video_id for commit in list_commits(output) for video_id in commit.video_ids}
    plan = plan_work(videos, planned=read_manifest(output), done=done)
    _write_record(output, record)
    write_manifest(output, plan.added)
    finished = len(done)
    for unit in plan.units:
        _import_unit(unit, source, output, fps)
        finished += len(unit.videos)
        on_video(finished, len(videos))
    sweep_orphans(output)
    summary = summarise(output, output.options, "")
    write_summary(output, summary)
    return summary


def _check(output: Storage, record: dict[str, Any]) -> None:
    run = read_run(output)
    if run is None:
        check_free(output)
    elif any(run.get(key) != value for key, value in record.items()):
        raise ConfigError(f"{output.url} holds masklets of {run['input']}, or with other settings; choose another output")


def _write_record(output: Storage, record: dict[str, Any]) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"schema_version": SCHEMA_VERSION, "package_version": __version__, "created_at": made} | record
    output.create_exclusive(RUN_FILE, json.dumps(content, indent=2).encode())


def _import_unit(unit: WorkUnit, source: MaskSource, output: Storage, fps: float | None) -> None:
    attempt_id, failures = uuid.uuid4().hex[:12], 0
    with UnitWriter(output, unit.unit_id, attempt_id, {"imported_from": source.url}) as writer:
        for ref in unit.videos:
            started = time.monotonic()
            row = dict.fromkeys(VIDEOS.names) | {"video_id": ref.video_id, "uri": ref.uri, "unit_id": unit.unit_id}
            row |= {"masklet_count": 0, "annotated_frame_count": 0, "package_version": __version__}
            try:
                video = _timed(source.load(ref.video_id), fps)
            except VideoError as error:
                failures += 1
                row |= {"status": "failed", "error_type": type(error).__name__, "error_message": str(error)}
                with closing(MaskSpool(ref.video_id)) as spool:
                    writer.add_video(row, spool, [])
                continue
            row |= _columns(video) | {"uri": ref.uri or video.uri, "wall_s": time.monotonic() - started}
            with closing(MaskSpool(ref.video_id)) as spool:
                for masklet in video.masklets:
                    for frame in masklet.frames:
                        spool.add(masklet.masklet_id, frame)
                spool.add_judgements({one.masklet_id: one.judgement for one in video.masklets if one.judgement is not None})
                writer.add_video(row, spool, [masklet.seed for masklet in video.masklets])
        parts = writer.finish()
    ids = tuple(ref.video_id for ref in unit.videos)
    commit_unit(output, Commit(unit.unit_id, attempt_id, parts, ids, len(ids), failures))


def _columns(video: AnnotatedVideo) -> dict[str, Any]:
    info = video.info
    facts = {name: getattr(info, name) for name in ("width", "height", "fps", "frame_count", "duration_s")}
    counts = {"masklet_count": len(video.masklets), "annotated_frame_count": len(video.frames)}
    attributes = json.dumps(dict(video.attributes)) if video.attributes else None
    return facts | counts | {"status": "ok", "codec": info.codec or None, "attributes": attributes}


def _timed(video: AnnotatedVideo, fps: float | None) -> AnnotatedVideo:
    """The video at another rate."""
    if fps is None:
        return video
    masklets = tuple(
        replace(masklet, frames=tuple(replace(frame, timestamp_s=frame.frame_index / fps) for frame in masklet.frames))
        for masklet in video.masklets
    )
    info = replace(video.info, fps=fps, duration_s=video.info.frame_count / fps)
    return replace(video, info=info, masklets=masklets)
