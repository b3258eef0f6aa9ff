"""A durable count of the attempts at a unit, so that a video that takes its worker down is found out.

A worker that starts on a unit creates ``_run/attempts/unit-<id>/<k>.json``, exclusively, and writes into it which videos it is
working on. It removes the marker when it fails in an orderly way, and the driver removes those of committed units. What is
left are attempts that died: the video that ``max_attempts`` of them name is not tried again. The watchdog, when it ends a
worker, leaves in the marker only the video that hung, and why.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage

FOLDER = "_run/attempts"
NO_REASON = "killed or crashed without a word"


class Attempt:
    """One try at one unit. ``deaths`` holds, per video id, why each of the earlier tries died that were on it."""

    def __init__(self, storage: Storage, attempt_id: str, marker: str, deaths: Mapping[str, Sequence[str]]) -> None:
        self.attempt_id, self.marker, self.deaths = attempt_id, marker, deaths
        self._storage = storage
        self._current: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def working_on(self, video_id: str) -> Iterator[None]:
        """Record durably, for the time of a ``with`` block, that this attempt is at ``video_id``, perhaps beside others.

        Not so after an exception, which ends the attempt anyway.
        """
        with self._lock:
            self._current.add(video_id)
            self._write()
        yield
        # not left to the next video: another unit's may take this process down before that
        with self._lock:
            self._current.discard(video_id)
            self._write()

    def _write(self) -> None:
        write_marker(self._storage, self.marker, self.attempt_id, sorted(self._current))

    def withdraw(self) -> None:
        """Forget the attempt: it ended in an orderly way and says nothing against its videos."""
        self._storage.delete([self.marker])


def begin_attempt(storage: Storage, unit_id: str) -> Attempt:
    """Take the next free number for an attempt at this unit."""
    attempt_id = uuid.uuid4().hex[:12]
    earlier = _markers(storage, unit_id)
    number = max(earlier, default=0)
    while True:
        number += 1
        marker = f"{_folder(unit_id)}/{number:04d}.json"
        if storage.create_exclusive(marker, _content(attempt_id, [])):
            break
    deaths: dict[str, list[str]] = {}
    for name in earlier.values():
        content = _read(storage, name)
        for video_id in content["video_ids"]:
            deaths.setdefault(video_id, []).append(content["reasons"].get(video_id, NO_REASON))
    return Attempt(storage, attempt_id, marker, deaths)


def write_marker(
    storage: Storage, marker: str, attempt_id: str, video_ids: Sequence[str], reasons: Mapping[str, str] | None = None
) -> None:
    """Say in an attempt's marker which videos would be to blame if it died now; with ``reasons``: why it has, by video id."""
    storage.write_bytes(marker, _content(attempt_id, video_ids, reasons))


def forget_attempts(storage: Storage, unit_ids: Iterable[str] | None = None) -> None:
    """Remove every marker of these units, or of all."""
    wanted = None if unit_ids is None else set(unit_ids)
    markers = _all_markers(storage)
    storage.delete([name for unit_id, names in markers.items() if wanted is None or unit_id in wanted for name in names])


def forgive_last_attempts(storage: Storage, unit_ids: Iterable[str]) -> None:
    """Remove the last marker of each unit, unless it gives reasons: an earlier run ended with it in flight, which is no fault
    of its video."""
    wanted = set(unit_ids)
    last = [max(names) for unit_id, names in _all_markers(storage).items() if unit_id in wanted]
    storage.delete([name for name in last if not _read(storage, name)["reasons"]])


def _folder(unit_id: str) -> str:
    return f"{FOLDER}/unit-{unit_id}"


def _markers(storage: Storage, unit_id: str) -> dict[int, str]:
    return {int(name.rsplit("/", 1)[1].removesuffix(".json")): name for name, _ in storage.list(_folder(unit_id))}


def _all_markers(storage: Storage) -> dict[str, list[str]]:
    units: dict[str, list[str]] = {}
    for name, _ in storage.list(FOLDER, recursive=True):
        units.setdefault(name.split("/")[-2].removeprefix("unit-"), []).append(name)
    return units


def _content(attempt_id: str, video_ids: Sequence[str], reasons: Mapping[str, str] | None = None) -> bytes:
    content = {"attempt_id": attempt_id, "video_ids": video_ids, "reasons": reasons or {}, "at": time.time()}
    return json.dumps(content).encode()


def _read(storage: Storage, name: str) -> dict[str, Any]:
    blameless: dict[str, Any] = {"video_ids": [], "reasons": {}}
    try:
        return blameless | json.loads(storage.read_bytes(name))
    except (StorageError, ValueError, TypeError):
        return blameless  # removed, or cut short, in the meantime: it counts against nobody
