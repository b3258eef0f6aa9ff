"""Taking up failed videos again: their rows leave their commits, so that the next run finds them undone."""

import hashlib
import io
import json
import uuid
from dataclasses import asdict, replace

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sam2_pipeline.io.commits import commit_name, list_commits
from sam2_pipeline.io.manifest import read_manifest
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import Commit, Part
from sam2_pipeline.pipeline.attempts import forget_attempts


def forget_failures(storage: Storage) -> list[str]:
    """Make the failed videos of an output undone, and return their ids.

    A failed video has a row in ``videos`` and none elsewhere, so only that part is written anew. Each commit is replaced in
    one step: interrupted halfway, some videos are undone and the others still failed.
    """
    forgotten = []
    for commit in list_commits(storage):
        if commit.num_failures:
            forgotten += _without_failures(storage, commit)
    undone = set(forgotten)
    touched = [unit.unit_id for unit in read_manifest(storage) if any(video.video_id in undone for video in unit.videos)]
    forget_attempts(storage, touched)
    return sorted(forgotten)


def _without_failures(storage: Storage, commit: Commit) -> list[str]:
    old = next(part for part in commit.parts if part.table == "videos")
    table = pq.read_table(io.BytesIO(storage.read_bytes(old.path)))
    failed = table.filter(pc.field("status") == "failed")["video_id"].to_pylist()
    kept = table.filter(pc.field("status") == "ok")
    if not kept.num_rows:
        storage.delete([commit_name(commit.unit_id)])
        return failed
    attempt_id = uuid.uuid4().hex[:12]
    buffer = io.BytesIO()
    pq.write_table(kept, buffer, compression="zstd")
    data = buffer.getvalue()
    name = f"videos/unit-{commit.unit_id}-{attempt_id}.parquet"
    storage.write_bytes(name, data)
    part = Part("videos", name, kept.num_rows, len(data), hashlib.sha256(data).hexdigest())
    video_ids = tuple(video_id for video_id in commit.video_ids if video_id not in set(failed))
    new = replace(
        commit,
        attempt_id=attempt_id,
        parts=(part, *(part for part in commit.parts if part is not old)),
        video_ids=video_ids,
        num_videos=len(video_ids),
        num_failures=0,
    )
    storage.write_bytes(commit_name(commit.unit_id), json.dumps(asdict(new), indent=1).encode())
    return failed
