"""A durable count of the attempts at a unit, so that a video that takes its worker down is found out.

A worker that starts on a unit creates ``_run/attempts/unit-<id>/<k>.json``, exclusively, and writes into it which video it is
working on. It removes the marker when it fails in an orderly way, and the driver removes those of committed units. What is
left are attempts that died: the video that ``max_attempts`` of them name is not tried again.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage

FOLDER = "_run/attempts"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one unit. ``deaths`` counts, per video id, the earlier tries that died while on it."""

    storage: Storage
    unit_id: str
    attempt_id: str
    marker: str
    deaths: Counter[str]

    def working_on(self, video_id: str) -> None:
        """Record durably that this attempt is now at ``video_id``."""
        self.storage.write_bytes(self.marker, _content(self.attempt_id, video_id))

    def withdraw(self) -> None:
        """Forget the attempt: it ended in an orderly way and says nothing against its videos."""
        self.storage.delete([self.marker])


def begin_attempt(storage: Storage, unit_id: str) -> Attempt:
    """Take the next free number for an attempt at this unit."""
    attempt_id = uuid.uuid4().hex[:12]
    earlier = _markers(storage, unit_id)
    number = max(earlier, default=0)
    while True:
        number += 1
        marker = f"{_folder(unit_id)}/{number:04d}.json"
        if storage.create_exclusive(marker, _content(attempt_id, None)):
            break
    deaths: Counter[str] = Counter()
    for name in earlier.values():
        video_id = _video_of(storage, name)
        if video_id is not None:
            deaths[video_id] += 1
    return Attempt(storage, unit_id, attempt_id, marker, deaths)


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


def _content(attempt_id: str, video_id: str | None) -> bytes:
    return json.dumps({"attempt_id": attempt_id, "video_id": video_id, "at": time.time()}).encode()


def _video_of(storage: Storage, name: str) -> str | None:
    try:
        return json.loads(storage.read_bytes(name))["video_id"]
    except (StorageError, ValueError, KeyError):
        return None  # removed, or cut short, in the meantime: it counts against nobody
