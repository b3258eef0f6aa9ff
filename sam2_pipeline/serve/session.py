"""One video being annotated: objects, their prompts, an undo, and the masks that were made of them so far.

The prompts are the whole truth: they are stored before an edit is answered, and what the tables get is what these prompts give,
whenever and wherever they are given again. Masks are a consequence, made anew where they are missing.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.prompt_parts import prompt_row
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.serve.web import Conflict, NotThere

FOLDER = "_serve/sessions"
MAX_OBJECTS = 64
MAX_UNDO = 200

Key = tuple[int, int]  # object, frame


@dataclass(frozen=True)
class Edit:
    """What an edit replaced: names of objects and prompts as they were before; None where there was nothing."""

    objects: dict[int, str | None] = field(default_factory=dict)
    prompts: dict[Key, Prompt | None] = field(default_factory=dict)


@dataclass
class Track:
    """Masks of one object on all frames, and a digest of the prompts that they were made from."""

    digest: str
    frames: dict[int, MaskletFrame] = field(default_factory=dict)
    whole: bool = False


class Session:
    """Any thread may call it; ``lock`` is held for as long as an edit takes.

    Attributes:
        joint: objects compete for pixels, so that the masks of one depend on the prompts of all.
        version: counts edits. Who edits says which version they have seen; an older one is a `Conflict`.
        tracks: masks by object, of earlier prompts too.
        previews: of prompts that no track takes into account yet, the mask of each on its own frame.
    """

    def __init__(self, storage: Storage, video_id: str, joint: bool = False) -> None:
        self.storage, self.video_id, self.joint = storage, video_id, joint
        self.name = f"{FOLDER}/{hashlib.sha256(video_id.encode()).hexdigest()[:24]}.json"
        self.lock = threading.RLock()
        self.version, self.author_tab = 0, ""
        self.objects: dict[int, str] = {}
        self.prompts: dict[Key, Prompt] = {}
        self.undo_list: list[Edit] = []
        self.tracks: dict[int, Track] = {}
        self.previews: dict[Key, tuple[Prompt, MaskletFrame]] = {}

    # ---------------------------------------------------------------------------------------------------------- edits

    def check(self, seen: int, state: Callable[[], dict[str, Any]]) -> None:
        """Raises a `Conflict` with the ``state`` of now unless ``seen`` is the version of now."""
        if seen != self.version:
            raise Conflict("this video was changed in another tab; here is how it is now", state())

    def apply(self, edit: Edit, tab: str) -> None:
        """Replaces objects and prompts by those of ``edit`` (None removes) and stores everything, or changes nothing."""
        self._turn(edit, lambda inverse: [*self.undo_list[-MAX_UNDO + 1 :], inverse], tab)

    def undo(self, tab: str) -> Edit:
        """Takes the latest edit back; gives what it did. Raises ConfigError when there is none."""
        if not self.undo_list:
            raise ConfigError("there is nothing to undo")
        edit, rest = self.undo_list[-1], self.undo_list[:-1]
        self._turn(edit, lambda inverse: rest, tab)
        return edit

    def added(self, name: str) -> tuple[int, Edit]:
        """A new object's number, and the edit that adds it."""
        if len(self.objects) >= MAX_OBJECTS:
            raise ConfigError(f"there are {MAX_OBJECTS} objects already, which is the limit")
        number = max([*self.objects, *self.tracks, *(number for number, _ in self.prompts)], default=0) + 1
        return number, Edit({number: name or f"Object {number}"})

    def removed(self, object_id: int) -> Edit:
        """The edit that removes an object with all its prompts."""
        self.require(object_id)
        return Edit({object_id: None}, {key: None for key in self.prompts if key[0] == object_id})

    def require(self, object_id: int) -> str:
        if object_id not in self.objects:
            raise NotThere(f"there is no object {object_id}; it may have been removed")
        return self.objects[object_id]

    def _turn(self, edit: Edit, undo_list: Callable[[Edit], list[Edit]], tab: str) -> None:
        before = self.version, self.undo_list
        inverse = self._exchange(edit)
        self.version, self.undo_list = self.version + 1, undo_list(inverse)
        try:
            self.store()
        except StorageError:
            self._exchange(inverse)
            self.version, self.undo_list = before
            raise
        self.author_tab = tab
        self.previews = {key: kept for key, kept in self.previews.items() if self.prompts.get(key) is kept[0]}

    def _exchange(self, edit: Edit) -> Edit:
        before = Edit({n: self.objects.get(n) for n in edit.objects}, {key: self.prompts.get(key) for key in edit.prompts})
        objects, prompts = self.objects | edit.objects, self.prompts | edit.prompts
        self.objects = {number: name for number, name in objects.items() if name is not None}
        self.prompts = {key: prompt for key, prompt in prompts.items() if prompt is not None}
        return before

    # ---------------------------------------------------------------------------------------------------------- masks

    def prompts_of(self, object_id: int) -> list[Prompt]:
        return [self.prompts[key] for key in sorted(self.prompts) if key[0] == object_id]

    def digest(self, object_id: int) -> str:
        """Over everything that decides an object's masks."""
        return digest(self.prompts.values() if self.joint else self.prompts_of(object_id))

    def is_current(self, object_id: int) -> bool:
        """Whether an object's track is whole and made from its prompts as they are now."""
        track = self.tracks.get(object_id)
        return track is not None and track.whole and track.digest == self.digest(object_id)

    def stale(self) -> list[int]:
        """Objects with prompts whose masks are to be made (anew)."""
        return [number for number in self.objects if self.prompts_of(number) and not self.is_current(number)]

    def base(self, key: Key) -> Rle | None:
        """The mask that a prompt corrects: the tracked one, but where the object begins there is nothing to correct."""
        object_id, frame = key
        first = min((f for number, f in self.prompts if number == object_id), default=frame)
        track = self.tracks.get(object_id)
        return None if frame <= first or track is None or frame not in track.frames else track.frames[frame].rle

    def shown(self, object_id: int, frame: int) -> MaskletFrame | None:
        """The mask to show: of a prompt that is newer than the track its own, else the tracked one."""
        track, preview = self.tracks.get(object_id), self.previews.get((object_id, frame))
        if preview is not None and not self.is_current(object_id):
            return preview[1]
        return None if track is None else track.frames.get(frame)

    # -------------------------------------------------------------------------------------------------------- storing

    def store(self) -> None:
        content = {
            "video_id": self.video_id,
            "version": self.version,
            "objects": {str(number): name for number, name in self.objects.items()},
            "prompts": [prompt_row(self.video_id, prompt) for prompt in self.prompts.values()],
            "undo": [_edit_to_json(edit) for edit in self.undo_list],
        }
        self.storage.write_bytes(self.name, json.dumps(content).encode())

    def load(self) -> bool:
        """Takes up what was stored; False if there is nothing.

        Raises:
            StorageError: it cannot be read.
        """
        if not self.storage.exists(self.name):
            return False
        try:
            content = json.loads(self.storage.read_bytes(self.name))
            prompts = [prompt_of(row) for row in content["prompts"]]
            self.objects = {int(number): str(name) for number, name in content["objects"].items()}
            self.prompts = {(prompt.object_id, prompt.frame_index): prompt for prompt in prompts}
            self.undo_list = [_edit_of_json(edit) for edit in content["undo"]]
            self.version = int(content["version"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(f"{self.storage.locate(self.name)}: not a stored session: {error!r}") from error
        return True

    def adopt(self, rows: Iterable[dict[str, Any]]) -> None:
        """Takes over the prompts of a prompts table."""
        for row in rows:
            prompt = prompt_of(row)
            self.objects.setdefault(prompt.object_id, f"Object {prompt.object_id}")
            self.prompts[prompt.object_id, prompt.frame_index] = prompt


def digest(prompts: Iterable[Prompt]) -> str:
    rows = [prompt_row("", prompt) for prompt in sorted(prompts, key=lambda one: (one.object_id, one.frame_index))]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def prompt_of(row: dict[str, Any]) -> Prompt:
    """A prompt from a row of a prompts table. Raises ConfigError when it is none."""
    mask = None if row["mask"] is None else Rle.from_coco(row["mask"])
    return Prompt(row["object_id"], row["frame_index"], row["points"], row["labels"], row["box"], mask)


def _edit_to_json(edit: Edit) -> dict[str, Any]:
    prompts = [[*key, None if prompt is None else prompt_row("", prompt)] for key, prompt in edit.prompts.items()]
    return {"objects": list(edit.objects.items()), "prompts": prompts}


def _edit_of_json(content: dict[str, Any]) -> Edit:
    prompts = {(object_id, frame): None if row is None else prompt_of(row) for object_id, frame, row in content["prompts"]}
    return Edit(dict(content["objects"]), prompts)
