"""What was annotated, into tables: one unit per video, the prompts beside them; saved again, a video replaces itself."""

import json
import uuid
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from sam2_pipeline import __version__
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.commits import commit_name, read_commit, replace_commit
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.manifest import make_unit, write_manifest
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.prompt_parts import prompts_name, write_prompt_part
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.masklet import MaskletSeed
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, VIDEOS
from sam2_pipeline.masklets.work import Commit, VideoRef
from sam2_pipeline.pipeline.job import ModelFacts
from sam2_pipeline.pipeline.runfile import RUN_FILE, check_free, read_run
from sam2_pipeline.pipeline.summary import summarise, write_summary
from sam2_pipeline.serve.session import Session, Track, digest


def check_place(output: Storage, source: str) -> None:
    """Refuses a place for annotations that holds something else, or annotations of other videos, with a ConfigError."""
    run = read_run(output)
    if run is None:
        check_free(output)
    elif "annotated" not in run:
        raise ConfigError(f"{output.url} holds the masklets of a run; choose another place for annotations by --output")
    elif run["input"] != source:
        raise ConfigError(f"{output.url} holds annotations of {run['input']}, not of {source}; choose another by --output")


def save(
    session: Session, video: Video, ref: VideoRef, output: Storage, source: str, config: JobConfig, model: ModelFacts
) -> int:
    """Writes the masklets of a session, which must be current; gives their number. The session's lock is held.

    Objects get masklet ids in the order of their numbers, as in a run with the same prompts.

    Raises:
        ConfigError: masks are missing or not those of the prompts.
        StorageError: the place failed; what was saved before still stands.
    """
    stale = session.stale()
    if stale:
        raise ConfigError(f"the masks of {', '.join(session.objects[n] for n in stale)} are not up to date: propagate first")
    objects = [number for number in sorted(session.objects) if session.prompts_of(number)]
    unit, attempt_id = make_unit([ref]), uuid.uuid4().hex[:12]
    _write_record(output, source)
    write_manifest(output, [unit])
    prompts = [prompt for number in objects for prompt in session.prompts_of(number)]
    facts = {"model": model.name, "weights_sha256": model.weights_sha256}
    row = dict.fromkeys(VIDEOS.names) | facts | _facts(video) | {"video_id": ref.video_id, "uri": ref.uri, "wall_s": 0.0}
    row |= {"unit_id": unit.unit_id, "size_bytes": ref.size_bytes, "device": model.device, "masklet_count": len(objects)}
    row |= {"config_hash": model.config_hash(config, digest(prompts))}
    with UnitWriter(output, unit.unit_id, attempt_id, facts) as writer, closing(MaskSpool(ref.video_id)) as spool:
        seeds = []
        for masklet_id, number in enumerate(objects):
            attributes = {"name": session.objects[number]}
            first = session.prompts_of(number)[0]
            seeds.append(MaskletSeed(masklet_id, "prompted", first, number, attributes))
            for frame in session.tracks[number].frames.values():
                spool.add(masklet_id, frame)
        row["annotated_frame_count"] = len(session.tracks[objects[0]].frames) if objects else 0
        writer.add_video(row, spool, seeds)
        parts = writer.finish()
    write_prompt_part(output, unit.unit_id, attempt_id, ref.video_id, prompts)
    name = commit_name(unit.unit_id)
    earlier = read_commit(output, name).attempt_id if output.exists(name) else None
    replace_commit(output, Commit(unit.unit_id, attempt_id, parts, (ref.video_id,), 1, 0))
    if earlier is not None:
        output.delete([prompts_name(unit.unit_id, earlier)])
    write_summary(output, summarise(output, output.options, ""))
    return len(objects)


def recall(session: Session, output: Storage) -> None:
    """Takes up the stored prompts, or without them those saved with masklets; and the saved masks that are theirs."""
    stored = session.load()
    if not output.exists(RUN_FILE):
        return
    dataset = MaskletDataset(output.url, output.options)
    rows = dataset.prompts(session.video_id).to_pylist()
    if not rows:
        return
    saved = Session(output, session.video_id, session.joint)
    saved.adopt(rows)
    masklets = {masklet.seed.object_id: masklet for masklet in dataset.video(session.video_id).masklets}
    if not stored:
        session.adopt(rows)
        session.objects = {n: masklets[n].seed.attributes.get("name", name) for n, name in session.objects.items()}
    for number in session.objects:
        if session.prompts_of(number) and session.digest(number) == saved.digest(number):
            frames = {frame.frame_index: frame for frame in masklets[number].frames}
            session.tracks[number] = Track(session.digest(number), frames, whole=True)


def _facts(video: Video) -> dict[str, Any]:
    info = video.info
    names = ("width", "height", "fps", "frame_count", "duration_s", "codec")
    return {name: getattr(info, name) for name in names} | {"status": "ok", "package_version": __version__}


def _write_record(output: Storage, source: str) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"schema_version": SCHEMA_VERSION, "package_version": __version__, "created_at": made}
    output.create_exclusive(RUN_FILE, json.dumps(content | {"input": source, "annotated": {}}, indent=2).encode())
