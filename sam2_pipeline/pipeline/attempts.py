"""A durable count of the attempts at a unit, so that a video that takes its worker down is found out.

A worker that starts on a unit creates ``_run/attempts/unit-<id>/<k>.json``, exclusively, and writes into it which videos it is
working on. It removes the marker when it fails in an orderly way, and the driver removes those of committed units. What is
left are attempts that died: the video that ``max_attempts`` of them name is not tried again.
"""

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage

FOLDER = "_run/attempts"


class Attempt:
    """One try at one unit. ``deaths`` counts, per video id, the earlier tries that died while on it."""

    def __init__(self, storage: Storage, attempt_id: str, marker: str, deaths: Counter[str]) -> None:
        self.attempt_id, self.marker, self.deaths = attempt_id, marker, deaths
        self._storage = storage
        self._current: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def working_on(self, video_id: str) -> Iterator[None]:
        """Record durably, for the time of a ``with`` block, that this attempt is at ``video_id``, perhaps beside others."""
        with self._lock:
            self._current.add(video_id)
            self._storage.write_bytes(self.marker, _content(self.attempt_id, sorted(self._current)))
        try:
            yield
        finally:
            # written with the next video: a write saved, and the time in between is short
            with self._lock:
                self._current.discard(video_id)

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
    deaths: Counter[str] = Counter()
    for name in earlier.values():
        deaths.update(_videos_of(storage, name))
    return Attempt(storage, attempt_id, marker, deaths)


def forget_attempts(storage: Storage, unit_ids: Iterable[str]) -> None:
    """Remove every marker of these units."""
    wanted = set(unit_ids)
    storage.delete([name for unit_id, names in _all_markers(storage).items() if unit_id in wanted for name in names])


def forgive_last_attempts(storage: Storage, unit_ids: Iterable[str]) -> None:
    """Remove the last marker of each unit: an earlier run ended with it in flight, which is no fault of its video."""
    wanted = set(unit_ids)
    storage.delete([max(names) for unit_id, names in _all_markers(storage).items() if unit_id in wanted])


def _folder(unit_id: str) -> str:
    return f"{FOLDER}/unit-{unit_id}"


def _markers(storage: Storage, unit_id: str) -> dict[int, str]:
    return {int(name.rsplit("/", 1)[1].removesuffix(".json")): name for name, _ in storage.list(_folder(unit_id))}


def _all_markers(storage: Storage) -> dict[str, list[str]]:
    units: dict[str, list[str]] = {}
    for name, _ in storage.list(FOLDER, recursive=True):
        units.setdefault(name.split("/")[-2].removeprefix("unit-"), []).append(name)
    return units


def _content(attempt_id: str, video_ids: list[str]) -> bytes:
    return json.dumps({"attempt_id": attempt_id, "video_ids": video_ids, "at": time.time()}).encode()


def _videos_of(storage: Storage, name: str) -> list[str]:
    try:
        return json.loads(storage.read_bytes(name))["video_ids"]
    except (StorageError, ValueError, KeyError):
        return []  # removed, or cut short, in the meantime: it counts against nobody
