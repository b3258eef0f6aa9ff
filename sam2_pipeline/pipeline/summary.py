"""What an output holds and how its run went, read from the store alone: ``summary.json``, ``status``, and ``retry``."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.commits import list_commits
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.manifest import read_manifest
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.pipeline.progress import Snapshot
from sam2_pipeline.pipeline.video import Failure

SUMMARY_FILE = "_run/summary.json"
PROGRESS_FILE = "_run/progress.json"
# a driver writes its progress every ten seconds; one that has been silent for this long is taken for dead
SILENT_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished output, and the run that finished it."""

    videos: int
    ok: int
    failed: int
    masklets: int
    masks: int
    annotated_frames: int
    failures: tuple[Failure, ...]
    config_hash: str
    frames_this_run: int = 0
    wall_s_this_run: float = 0.0

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0


@dataclass(frozen=True, slots=True)
class Status:
    """A run as the store shows it, during the run or after."""

    videos: int
    done: int
    failed: int
    left: int
    running: bool
    frames_per_s: float | None
    eta_s: float | None
    failures: tuple[Failure, ...]


def summarise(storage: Storage, storage_options: dict[str, Any], config_hash: str) -> Summary:
    """Count what the commits of an output hold."""
    commits = list_commits(storage)
    rows = dict.fromkeys(("masklets", "masks"), 0)
    for commit in commits:
        for part in commit.parts:
            if part.table in rows:
                rows[part.table] += part.rows
    videos = MaskletDataset(storage.url, storage_options).videos(columns=["annotated_frame_count"])
    frames = sum(count or 0 for count in videos["annotated_frame_count"].to_pylist())
    failures = read_failures(storage, storage_options)
    total = sum(commit.num_videos for commit in commits)
    failed = sum(commit.num_failures for commit in commits)
    return Summary(total, total - failed, failed, rows["masklets"], rows["masks"], frames, failures, config_hash)


def read_failures(storage: Storage, storage_options: dict[str, Any]) -> tuple[Failure, ...]:
    """The failed rows of the videos table, in order of video id."""
    dataset = MaskletDataset(storage.url, storage_options)
    if not any(commit.num_failures for commit in dataset.commits):
        return ()
    columns = ["video_id", "uri", "error_type", "error_message"]
    failed = dataset.videos(columns=columns, filter=pc.field("status") == "failed")
    return tuple(Failure(**row) for row in failed.to_pylist())


def read_status(storage: Storage, storage_options: dict[str, Any]) -> Status:
    """Done, left and failed from manifest and commits; speed and ETA from the running driver's last word."""
    planned = {video.video_id for unit in read_manifest(storage) for video in unit.videos}
    commits = list_commits(storage)
    done = sum(commit.num_videos for commit in commits)
    failed = sum(commit.num_failures for commit in commits)
    failures = read_failures(storage, storage_options) if failed else ()
    word = _read_progress(storage)
    left = len(planned) - done
    running = left > 0 and word is not None and time.time() - word["at"] < SILENT_AFTER_S
    speed, eta = (word["frames_per_s"], word["eta_s"]) if running and word else (None, None)
    return Status(len(planned), done, failed, left, running, speed, eta, failures)


def write_summary(storage: Storage, summary: Summary) -> None:
    content = asdict(summary) | {"finished_at": time.time()}
    storage.write_bytes(SUMMARY_FILE, json.dumps(content, indent=2).encode())


def write_progress(storage: Storage, snapshot: Snapshot) -> None:
    storage.write_bytes(PROGRESS_FILE, json.dumps(asdict(snapshot) | {"at": time.time()}).encode())


def _read_progress(storage: Storage) -> dict[str, Any] | None:
    try:
        return json.loads(storage.read_bytes(PROGRESS_FILE))
    except (StorageError, ValueError):
        return None  # no run has got that far
