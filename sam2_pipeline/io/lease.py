"""One at a time, among machines that share nothing but the storage: each notes what it is about to do, then looks for others.

Whoever notes first and looks afterwards cannot miss one who does the same: of two, at least one sees the other and gives way.
A note is renewed while its process lives; one that is not is of a dead process, and stands in nobody's way.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.storage import Storage

RENEW_EVERY_S = 10.0
SILENT_AFTER_S = 60.0


class Lease:
    """A note under ``_run/<purpose>/``; see `leased`."""

    def __init__(self, storage: Storage, purpose: str) -> None:
        self._storage, self._purpose = storage, purpose
        self._folder = f"_run/{purpose}"
        self._name = f"{self._folder}/{uuid.uuid4().hex}.json"
        self._who = f"{socket.gethostname()}:{os.getpid()}"

    def take(self) -> None:
        """Raises ConfigError where somebody else is at it."""
        self.renew()
        for name, _ in self._storage.list(self._folder):
            if name != self._name and (other := self._holder(name)):
                self.release()
                raise ConfigError(
                    f"{self._storage.url}: another {self._purpose} is at work there ({other}); wait for its end, "
                    f"or for {SILENT_AFTER_S:.0f} s if it was killed"
                )

    def renew(self) -> None:
        began = time.monotonic()
        self._storage.write_bytes(self._name, json.dumps({"who": self._who, "at": time.time()}).encode())
        self._renewed = began

    def check(self) -> None:
        """Raises StorageError where others may have taken this process for dead, so that it must not go on."""
        silent_s = time.monotonic() - self._renewed
        if silent_s > SILENT_AFTER_S / 2:
            raise StorageError(
                f"{self._storage.url}: this {self._purpose} could give no sign of life for {silent_s:.0f} s, "
                "and another may have begun; what is done stays, run it again"
            )

    def release(self) -> None:
        self._storage.delete([self._name])

    def _holder(self, name: str) -> str | None:
        """Who else is at work by the note ``name``. That of a dead process is removed."""
        try:
            note = json.loads(self._storage.read_bytes(name))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None  # it has just ended
            raise
        if time.time() - note["at"] <= SILENT_AFTER_S:
            return note["who"]
        self._storage.delete([name])
        return None


@contextlib.contextmanager
def leased(storage: Storage, purpose: str) -> Iterator[Lease]:
    """For the time of the block, this process alone is at ``purpose`` (a verb, for messages) on this storage.

    Before each step that must not be done beside others, `Lease.check` it: a process may sleep for longer than others wait.

    Raises:
        ConfigError: another process is at it.
        StorageError: the storage cannot be read or written.
    """
    lease, ended = Lease(storage, purpose), threading.Event()

    def keep() -> None:
        while not ended.wait(RENEW_EVERY_S):
            with contextlib.suppress(StorageError):  # `check` will tell
                lease.renew()

    lease.take()
    keeper = threading.Thread(target=keep, name=f"lease of {purpose}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        ended.set()
        keeper.join()  # else it might write the note again
        lease.release()
