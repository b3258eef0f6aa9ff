"""Annotating: what the browser asks of the sessions, and what it is told. Every method may be called from any thread."""

import threading
from collections.abc import Callable
from typing import Any

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.serve import saving
from sam2_pipeline.serve.frames import FrameStore
from sam2_pipeline.serve.model import Desk, Segmenter
from sam2_pipeline.serve.propagation import Propagation
from sam2_pipeline.serve.session import Edit, Session
from sam2_pipeline.serve.web import Conflict

MAX_FRAMES = 256  # of masks in one answer


class Annotator:
    """Sessions by video, one model for all of them, one propagation at a time.

    Args:
        source: what the videos are of, as the record in the output says.
        load: gives the model, when it is first needed.
    """

    def __init__(
        self, frames: FrameStore, output: Storage, source: str, config: JobConfig, load: Callable[[], Segmenter]
    ) -> None:
        self.frames, self.output, self.source, self.config = frames, output, source, config
        self.desk = Desk(load)
        self._sessions: dict[str, Session] = {}
        self._opening = threading.RLock()
        self._propagations: dict[str, Propagation] = {}

    # ---------------------------------------------------------------------------------------------------------- asked

    def state(self, video_id: str) -> dict[str, Any]:
        session = self._session(video_id)
        self.desk.warm_up()
        with session.lock:
            return self._state(session)

    def masks(self, video_id: str, start: int, stop: int) -> dict[str, Any]:
        """Masks of all objects on frames ``start .. stop - 1``, `MAX_FRAMES` at most, as COCO RLE by frame and object."""
        session = self._session(video_id)
        self._fill_previews(session, start, stop)
        frames: dict[int, dict[int, Any]] = {}
        with session.lock:
            for index in range(start, min(stop, start + MAX_FRAMES, self.frames.open(video_id).num_frames)):
                found = {number: session.shown(number, index) for number in session.objects}
                frames[index] = {number: _mask(mask) for number, mask in found.items() if mask is not None}
            return {"version": session.version, "frames": frames}

    def prompts(self, video_id: str) -> list[Prompt]:
        """All prompts, in order of objects and frames."""
        session = self._session(video_id)
        with session.lock:
            return [session.prompts[key] for key in sorted(session.prompts)]

    def progress(self, video_id: str) -> dict[str, Any]:
        """Little, and often asked for: has anything changed?"""
        session = self._session(video_id)
        propagation = self._propagations.get(video_id)
        return {"version": session.version, "tab": session.author_tab, "job": propagation and propagation.progress()}

    # --------------------------------------------------------------------------------------------------------- edited

    def prompt(self, video_id: str, seen: int, tab: str, prompt: Prompt) -> dict[str, Any]:
        """Gives an object a prompt on a frame, in the place of an earlier one there; answers with its mask."""
        session, video = self._session(video_id), self.frames.open(video_id)
        _check_fit(prompt, video.width, video.height, video.num_frames)
        key = prompt.object_id, prompt.frame_index
        with session.lock:
            session.require(prompt.object_id)
            session.check(seen, lambda: self._state(session))
            session.apply(Edit(prompts={key: prompt}), tab)
        self._preview(session, key)
        with session.lock:
            shown = session.shown(*key)
            return self._state(session) | {"mask": None if shown is None else _mask(shown)}

    def remove_prompt(self, video_id: str, seen: int, tab: str, object_id: int, frame: int) -> dict[str, Any]:
        session = self._session(video_id)
        with session.lock:
            session.check(seen, lambda: self._state(session))
            if (object_id, frame) not in session.prompts:
                raise ConfigError(f"object {object_id} has no prompt on frame {frame}")
            session.apply(Edit(prompts={(object_id, frame): None}), tab)
            return self._state(session)

    def add_object(self, video_id: str, seen: int, tab: str, name: str) -> dict[str, Any]:
        session = self._session(video_id)
        with session.lock:
            session.check(seen, lambda: self._state(session))
            number, edit = session.added(name)
            session.apply(edit, tab)
            return self._state(session) | {"object_id": number}

    def rename_object(self, video_id: str, seen: int, tab: str, object_id: int, name: str) -> dict[str, Any]:
        session = self._session(video_id)
        with session.lock:
            session.require(object_id)
            session.check(seen, lambda: self._state(session))
            session.apply(Edit({object_id: name}), tab)
            return self._state(session)

    def remove_object(self, video_id: str, seen: int, tab: str, object_id: int) -> dict[str, Any]:
        session = self._session(video_id)
        with session.lock:
            session.check(seen, lambda: self._state(session))
            session.apply(session.removed(object_id), tab)
            return self._state(session)

    def adopt_mask(self, video_id: str, seen: int, tab: str, name: str, frame: int, mask: Rle) -> dict[str, Any]:
        """A new object that begins with a given mask: a masklet that is to be refined."""
        session, video = self._session(video_id), self.frames.open(video_id)
        with session.lock:
            session.check(seen, lambda: self._state(session))
            number, edit = session.added(name)
            prompt = Prompt(number, frame, mask=mask)
            _check_fit(prompt, video.width, video.height, video.num_frames)
            session.apply(Edit(edit.objects, {(number, frame): prompt}), tab)
        self._preview(session, (number, frame))
        with session.lock:
            return self._state(session) | {"object_id": number}

    def undo(self, video_id: str, seen: int, tab: str) -> dict[str, Any]:
        """Takes the latest edit back; says on which frame and object to look."""
        session = self._session(video_id)
        with session.lock:
            session.check(seen, lambda: self._state(session))
            edit = session.undo(tab)
        for key in [key for key, prompt in edit.prompts.items() if prompt is not None]:
            self._preview(session, key)
        with session.lock:
            where = next(iter(edit.prompts), (next(iter(edit.objects), None), None))
            return self._state(session) | {"object_id": where[0], "frame": where[1]}

    # ----------------------------------------------------------------------------------------------- propagated, saved

    def propagate(self, video_id: str) -> dict[str, Any]:
        session, video = self._session(video_id), self.frames.open(video_id)
        with self._opening:
            for busy_id, busy in self._propagations.items():
                if busy.state == "running":
                    if busy_id == video_id:
                        raise Conflict("it is being propagated already", self.progress(video_id))
                    raise ConfigError(f"{busy_id} is being propagated; one video at a time")
            if not session.prompts:
                raise ConfigError("nothing to propagate: click on an object first")
            propagation = Propagation(session, video, self.desk)
            self._propagations[video_id] = propagation
            propagation.start()
        return self.progress(video_id)

    def cancel(self, video_id: str) -> dict[str, Any]:
        propagation = self._propagations.get(video_id)
        if propagation is not None:
            propagation.cancel()
        return self.state(video_id)

    def save(self, video_id: str, seen: int) -> dict[str, Any]:
        session, video = self._session(video_id), self.frames.open(video_id)
        with self.desk.model(urgent=True) as model:
            facts = model.facts
        with session.lock:
            session.check(seen, lambda: self._state(session))
            ref = self.frames.videos[video_id]
            count = saving.save(session, video, ref, self.output, self.source, self.config, facts)
            return self._state(session) | {"saved": count, "output": self.output.url}

    def close(self) -> None:
        for propagation in self._propagations.values():
            propagation.cancel()

    # -------------------------------------------------------------------------------------------------------- details

    def _session(self, video_id: str) -> Session:
        self.frames.open(video_id)  # it is there, and can be read
        with self._opening:
            if video_id not in self._sessions:
                session = Session(self.output, video_id, self.config.tracking.non_overlapping)
                saving.recall(session, self.output)
                self._sessions[video_id] = session
            return self._sessions[video_id]

    def _preview(self, session: Session, key: tuple[int, int]) -> None:
        """Makes the mask of a prompt; by then the prompt may be another, which has its own made."""
        with session.lock:
            prompt, base = session.prompts.get(key), session.base(key)
        if prompt is None:
            return
        with self.desk.model(urgent=True) as model:
            mask = model.preview(self.frames.open(session.video_id), prompt, base)
        with session.lock:
            if session.prompts.get(key) is prompt:
                session.previews[key] = prompt, mask

    def _fill_previews(self, session: Session, start: int, stop: int) -> None:
        """After a restart the prompts are there and their masks are not."""
        with session.lock:
            stale = set(session.stale())
            missing = [key for key in session.prompts if key[0] in stale and start <= key[1] < stop]
            missing = [key for key in missing if key not in session.previews]
        for key in missing[:MAX_FRAMES]:
            self._preview(session, key)

    def _state(self, session: Session) -> dict[str, Any]:
        video = self.frames.open(session.video_id)
        propagation = self._propagations.get(session.video_id)
        stale = set(session.stale())
        objects = []
        for number, name in session.objects.items():
            track = session.tracks.get(number)
            prompts = [_prompt(prompt) for prompt in session.prompts_of(number)]
            tracked = track is not None and track.whole
            objects.append({"id": number, "name": name, "prompts": prompts, "tracked": tracked, "stale": number in stale})
        facts = self.desk.facts
        return {
            "video_id": session.video_id,
            "version": session.version,
            "width": video.width,
            "height": video.height,
            "fps": video.fps,
            "num_frames": video.num_frames,
            "objects": objects,
            "can_undo": bool(session.undo_list),
            "job": propagation and propagation.progress(),
            "model": facts and facts.name,
        }


def _check_fit(prompt: Prompt, width: int, height: int, num_frames: int) -> None:
    """As for a table of prompts. Raises ConfigError."""
    if prompt.frame_index >= num_frames:
        raise ConfigError(f"frame {prompt.frame_index} is past the end of the video, which has {num_frames} frames")
    for x, y in prompt.points_xy.tolist():
        if not (0 <= x < width and 0 <= y < height):
            raise ConfigError(f"point ({x:g}, {y:g}) is outside the picture of {width}x{height} pixels")
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy.tolist()
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise ConfigError(f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) reaches outside the picture of {width}x{height} pixels")
    if prompt.mask is not None:
        if (prompt.mask.width, prompt.mask.height) != (width, height):
            raise ConfigError(f"mask has {prompt.mask.width}x{prompt.mask.height} pixels, the picture {width}x{height}")
        if not prompt.mask.area:
            raise ConfigError("the mask is empty")


def _mask(mask: MaskletFrame) -> dict[str, Any]:
    return {"counts": mask.rle.counts.decode(), "size": [mask.rle.height, mask.rle.width], "iou": round(mask.predicted_iou, 4)}


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "frame": prompt.frame_index,
        "points": prompt.points_xy.tolist(),
        "labels": prompt.point_labels.tolist(),
        "box": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
        "mask": prompt.mask is not None,
    }
