"""Saying what became of each video, once: from what workers report, and from the commits of those that cannot report any more."""

import dataclasses
import io
from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq

from sam2_pipeline.io.commits import commits_of, committed_units
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.work import Commit, WorkUnit
from sam2_pipeline.pipeline.actor import Outcome, Task
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.pipeline.video import Done, Failure

COLUMNS = ["video_id", "uri", "status", "error_type", "error_message", "masklet_count", "annotated_frame_count", "wall_s"]


class Teller:
    """Says ``video_done`` or ``video_failed`` for every video of ``tasks`` that gets a committed row.

    A worker that is terminated, or that dies between its commit and its answer, leaves rows of which it says nothing: those
    are read from the tables, when the rest of their unit comes in, or by `rest`.
    """

    def __init__(self, reporter: Reporter, storage: Storage, tasks: Sequence[Task]) -> None:
        self._reporter, self._storage = reporter, storage
        self._untold = {task.unit.unit_id: task.unit for task in tasks}

    def unit(self, outcome: Outcome) -> None:
        """A unit is committed."""
        unit = self._untold.pop(outcome.unit_id, None)
        self._say(outcome.unit_id, outcome.done)
        told = {video.video_id for video in outcome.done}
        if unit is not None and len(told) < len(unit.videos):
            self._say(unit.unit_id, (video for video in self._stored(unit) if video.video_id not in told))

    def rest(self) -> None:
        """The run is over, or interrupted: what is committed, and was not told of.

        Raises:
            StorageError: the output cannot be read.
        """
        for unit_id in sorted(committed_units(self._storage) & self._untold.keys()):
            self._say(unit_id, self._stored(self._untold.pop(unit_id)))

    def _stored(self, unit: WorkUnit) -> list[Done]:
        return [video for commit in commits_of(self._storage, unit) for video in _rows(self._storage, commit)]

    def _say(self, unit_id: str, videos: Iterable[Done]) -> None:
        for video in videos:
            if video.failure is None:
                self._reporter.note("video_done", unit_id=unit_id, **dataclasses.asdict(video))
            else:
                failure = video.failure
                message = f"failed: {failure.video_id}: {failure.error_type}: {failure.error_message}"
                self._reporter.say("video_failed", message, important=True, **dataclasses.asdict(failure))


def _rows(storage: Storage, commit: Commit) -> list[Done]:
    """The videos of a commit, as its worker would have told of them."""
    found = []
    for part in (part for part in commit.parts if part.table == "videos"):
        for row in pq.read_table(io.BytesIO(storage.read_bytes(part.path)), columns=COLUMNS).to_pylist():
            failure = None
            if row["status"] == "failed":
                failure = Failure(row["video_id"], row["uri"], row["error_type"], row["error_message"])
            found.append(Done(row["video_id"], row["masklet_count"], row["annotated_frame_count"], row["wall_s"], failure))
    return found
