"""Commits: the records that make parts visible.

Object stores have no rename, so parts are written under names of their own, and one small object, created only if absent,
says which of them count. Of several attempts at a unit the first to create its commit wins; the parts of the others are
orphans, which nobody reads and `sweep_orphans` removes.
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.manifest import make_unit
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import TABLES
from sam2_pipeline.masklets.work import Commit, Part, WorkUnit

FOLDER = "_run/commits"
_READERS = 16  # a commit is one small GET, nearly all of it waiting
_LISTINGS = 5
_OUR_PART = re.compile(r"/\.?unit-[^/]*\.parquet")  # the dot: remains of an interrupted write


def commit_name(unit_id: str) -> str:
    """Where the commit of a unit lives."""
    return f"{FOLDER}/unit-{unit_id}.json"


def commit_unit(storage: Storage, commit: Commit) -> bool:
    """Makes the commit's parts visible, unless another attempt at the unit was first; True if this one won.

    Raises:
        StorageError: the storage failed; the commit may still have gone through, as `list_commits` will tell.
    """
    return storage.create_exclusive(commit_name(commit.unit_id), encode_commit(commit))


def encode_commit(commit: Commit) -> bytes:
    """A commit as it is stored."""
    return json.dumps(asdict(commit), indent=1).encode()


def replace_commit(storage: Storage, commit: Commit) -> None:
    """Puts a commit in the place of an earlier one of the same unit, if there is one, and deletes that one's parts.

    For what people make and save again; a run never takes back what is committed. Readers see the old parts or the new ones;
    of several writers at once the last one counts, and the parts of the others become orphans.
    """
    name = commit_name(commit.unit_id)
    earlier = read_commit(storage, name) if storage.exists(name) else None
    storage.write_bytes(name, json.dumps(asdict(commit), indent=1).encode())
    if earlier is not None and earlier.attempt_id != commit.attempt_id:
        storage.delete(part.path for part in earlier.parts)


def committed_units(storage: Storage) -> set[str]:
    """Ids of the committed units, by one listing."""
    return {name.removeprefix(f"{FOLDER}/unit-").removesuffix(".json") for name in commit_names(storage)}


def commit_names(storage: Storage) -> list[str]:
    """Names of the commits, sorted."""
    return [name for name, _ in storage.list(FOLDER) if name.endswith(".json")]


def list_commits(storage: Storage) -> list[Commit]:
    """All commits that count, sorted by unit id.

    Raises:
        StorageError: a commit cannot be read or is not one.
    """
    for listings_left in reversed(range(_LISTINGS)):
        try:
            with ThreadPoolExecutor(_READERS) as pool:
                return without_replaced(list(pool.map(lambda name: read_commit(storage, name), commit_names(storage))))
        except StorageError as error:  # one that has gone since was replaced by another, which a new listing shows
            if not isinstance(error.__cause__, FileNotFoundError) or not listings_left:
                raise
    raise AssertionError("unreachable")


def without_replaced(commits: Iterable[Commit]) -> list[Commit]:
    """Those whose rows are not in another one too."""
    commits = list(commits)
    replaced = {unit_id for commit in commits for unit_id in commit.replaces}
    return [commit for commit in commits if commit.unit_id not in replaced]


def read_commit(storage: Storage, name: str) -> Commit:
    """The commit stored under ``name``.

    Raises:
        StorageError: it cannot be read or is not a commit of the unit that its name says.
    """
    data = storage.read_bytes(name)
    try:
        fields = json.loads(data)
        parts = tuple(Part(**part) for part in fields.pop("parts"))
        lists = {name: tuple(fields.get(name, ())) for name in ("video_ids", "replaces")}
        commit = Commit(**fields | lists | {"parts": parts})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(f"{storage.locate(name)}: not a commit: {error!r}") from error
    if commit_name(commit.unit_id) != name:
        raise StorageError(f"{storage.locate(name)}: holds the commit of unit {commit.unit_id}")
    return commit


def uncommitted(storage: Storage, unit: WorkUnit) -> WorkUnit | None:
    """What is left to do of a unit; None if nothing is.

    A worker that has to stop halfway commits what it has under the unit's name, first come first served like any commit, and
    what is left is a unit of its own.
    """
    done = {video_id for commit in commits_of(storage, unit) for video_id in commit.video_ids}
    return _without(unit, done)


def commits_of(storage: Storage, unit: WorkUnit) -> Iterator[Commit]:
    """The commit of a unit, and where that is of some of its videos only, those of what it left, one after the other."""
    left: WorkUnit | None = unit
    while left is not None and storage.exists(name := commit_name(left.unit_id)):
        commit = read_commit(storage, name)
        yield commit
        left = _without(left, set(commit.video_ids))


def _without(unit: WorkUnit, done: set[str]) -> WorkUnit | None:
    """The unit of the other videos: this one if none is ``done``, None if all are."""
    videos = tuple(video for video in unit.videos if video.video_id not in done)
    return unit if videos == unit.videos else make_unit(videos) if videos else None


def find_orphans(storage: Storage, *, hidden: bool = False) -> list[str]:
    """Names of the files in the table folders that no commit names; ``hidden`` adds remains of interrupted writes."""
    # Files first: a part that is committed in between is then found among the commits.
    found = [name for table in TABLES for name, _ in storage.list(table, recursive=True, hidden=hidden)]
    named = {part.path for commit in list_commits(storage) for part in commit.parts}
    return [name for name in found if name not in named]


def sweep_orphans(storage: Storage) -> list[str]:
    """Deletes our parts that no commit names and returns their names, so that each table folder can be read as it stands.

    Other people's files are left alone (`verify` tells of them). For the end of a run: an attempt still at work would lose
    its parts.
    """
    orphans = [name for name in find_orphans(storage, hidden=True) if _OUR_PART.search(name)]
    storage.delete(orphans)
    return orphans
