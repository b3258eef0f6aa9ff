"""One video being segmented interactively: prompts on any frame, walks in either direction, corrections, removals."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.memory_bank import NUM_RECENT, FrameRecord
from sam2_pipeline.segment.engine import Engine, OfFrame, Row
from sam2_pipeline.segment.inputs import NetworkFrame, NetworkFrames
from sam2_pipeline.segment.objects import TrackedObject
from sam2_pipeline.segment.options import TrackingOptions

Result = TypeVar("Result", bound=OfFrame)


class VideoSession(Generic[Result]):
    """Objects, prompts and memories of one video. Made by `VideoSegmenter.open`; not to be shared between threads.

    Coordinates here are pixels of the S x S network input; `PromptedSession` and `compat` translate. ``engine`` runs the
    networks; there is no torch here.
    """

    def __init__(self, engine: Engine[Result], frames: NetworkFrames, options: TrackingOptions):
        self.engine, self.frames, self.options = engine, frames, options
        self.objects: dict[int, TrackedObject] = {}
        self._latest: tuple[NetworkFrame, Any] | None = None
        self._following: tuple[NetworkFrame, ...] = ()
        self._encoded: dict[int, Any] = {}

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self.objects)

    # ------------------------------------------------------------------------------------------------------- prompts

    def add_points(
        self, frame_index: int, object_id: int, points_P2: np.ndarray, labels_P: np.ndarray, *, keep_old: bool = False
    ) -> Result:
        """Clicks (a box is two points labelled 2 and 3, first) on an object, new or known; gives the frame's masks at once.

        The object's earlier result on the frame, if any, is refined.
        """
        features = self._features(frame_index)
        obj = self.objects.setdefault(object_id, TrackedObject(object_id))
        if keep_old and frame_index in obj.points:
            old_points, old_labels = obj.points[frame_index]
            points_P2, labels_P = np.concatenate((old_points, points_P2)), np.concatenate((old_labels, labels_P))
        obj.points[frame_index] = (points_P2, labels_P)
        obj.masked_frames.discard(frame_index)
        conditioning, row = self._standing(obj, frame_index)
        earlier = obj.shown(frame_index, conditioning)
        record = self.engine.decode_points(features, row, points_P2, labels_P, earlier)
        obj.pending(conditioning)[frame_index] = record
        return self._result(frame_index, conditioning)

    def add_masks(self, frame_index: int, object_ids: Sequence[int], masks_NSS: Any) -> Result:
        """Masks (0 or 1, ``[N, S, S]``, see `Engine.mask_prompts`) of as many objects as their result on the frame; gives the
        frame's masks."""
        features = self._features(frame_index)
        conditioning = True
        for object_id, record in zip(object_ids, self.engine.adopt_masks(features, masks_NSS)):
            obj = self.objects.setdefault(object_id, TrackedObject(object_id))
            obj.masked_frames.add(frame_index)
            obj.points.pop(frame_index, None)
            conditioning, _ = self._standing(obj, frame_index)
            obj.pending(conditioning)[frame_index] = record
        return self._result(frame_index, conditioning)

    def clear_prompts(self, frame_index: int, object_id: int) -> Result:
        """Takes back an object's prompts on a frame."""
        self._object(object_id).clear_prompts(frame_index)
        return self._result(frame_index, self._pending_anywhere(frame_index))

    def remove_object(self, object_id: int) -> list[Result]:
        """Forgets an object; gives the masks of the others on the frames where it had prompts."""
        obj = self._object(object_id)
        frames = obj.prompted_frames
        del self.objects[object_id]
        return [self._result(frame, self._pending_anywhere(frame)) for frame in frames] if self.objects else []

    def reset(self) -> None:
        """Forgets all objects."""
        self.objects.clear()

    # --------------------------------------------------------------------------------------------------- propagation

    def settle(self) -> None:
        """Encodes the memories of pending prompts, frame by frame; from then on they condition tracking."""
        waiting: dict[int, list[FrameRecord]] = {}
        for obj in self.objects.values():
            for frame, record in (*obj.pending_tracked.items(), *obj.pending_prompted.items()):
                if record.memory_TC is None:
                    waiting.setdefault(frame, []).append(record)
        for frame, records in waiting.items():
            self.engine.remember(self._features(frame), records)
        for obj in self.objects.values():
            for frame in obj.settle():
                if self.options.forget_around_corrections:
                    self._forget_around(obj, frame)

    def propagate(
        self, start: int | None = None, max_frames: int | None = None, *, reverse: bool = False, skip_visited: bool = False
    ) -> Iterator[Result]:
        """Walks through the frames and gives the masks of all objects on each.

        Args:
            start: first frame; by default the earliest conditioning frame (with ``own_timeline``, in reverse, the latest).
            max_frames: go at most this many frames beyond the first.
            reverse: towards frame 0. From frame 0 there is nothing to do.
            skip_visited: objects are not tracked again on frames that were walked through before.

        Raises:
            ConfigError: no object, or one without a prompt.
        """
        self._require_prompts()
        self.settle()
        prompted = [frame for obj in self.objects.values() for frame in obj.bank.prompted]
        if not prompted or not all(obj.bank.prompted for obj in self.objects.values()):
            idle = [i for i, obj in self.objects.items() if not obj.bank.prompted]
            raise ConfigError(f"objects {idle} have no prompt left; give them one, or remove them")
        if start is None:
            start = max(prompted) if reverse and self.options.own_timeline else min(prompted)
        stop: int | None
        if reverse:
            if start == 0:
                return
            stop = 0 if max_frames is None else max(start - max_frames, 0)
        else:
            ends = [self.frames.num_frames, None if max_frames is None else start + max_frames + 1]
            stop = min((end for end in ends if end is not None), default=None)
        for frame, following in _followed(self.frames.images(start, stop, reverse=reverse), self.engine.together - 1):
            self._following = following
            self._encoded = {f.index: self._encoded[f.index] for f in (frame, *following) if f.index in self._encoded}
            result = self.advance(frame, reverse=reverse, skip_visited=skip_visited)
            self._following = ()
            yield result

    def step(self, frame: NetworkFrame) -> Result:
        """Tracks the objects there are, perhaps none, one frame forward: for streams, whose frames come when they come."""
        self.settle()
        return self.advance(frame)

    def advance(
        self, frame: NetworkFrame, object_ids: Collection[int] | None = None, *, reverse: bool = False, skip_visited: bool = False
    ) -> Result:
        """Tracks objects, all or the given ones, onto one frame: one step of `propagate`, for who walks by himself."""
        direction = -1 if reverse else 1
        objects = [obj for object_id, obj in self.objects.items() if object_ids is None or object_id in object_ids]
        if self.options.own_timeline and self._has_pending():
            self.settle()
        tracked = []
        for obj in objects:
            visited = obj.visits.direction(frame.index) is not None
            active = not self.options.own_timeline or obj.is_behind(frame.index, direction)
            if active and not (skip_visited and visited):
                obj.visits.add(frame.index, reverse)
                if frame.index not in obj.bank.prompted:
                    tracked.append(obj)
        if tracked:
            features = self._encode(frame)
            rows = [Row(obj.bank, frame.index, direction, self.frames.num_frames) for obj in tracked]
            for obj, record in zip(tracked, self.engine.track(features, rows)):
                obj.bank.tracked[frame.index] = record
                self.options.forget(obj.bank, frame.index)
        return self._result(frame.index, False, frame.timestamp_s, objects)

    # ------------------------------------------------------------------------------------------------------- details

    def _object(self, object_id: int) -> TrackedObject:
        if object_id not in self.objects:
            raise ConfigError(f"no object {object_id} in this session; known objects: {list(self.objects)}")
        return self.objects[object_id]

    def _require_prompts(self) -> None:
        if not self.objects:
            raise ConfigError("no object to track: give a prompt first")

    def _has_pending(self) -> bool:
        return any(obj.pending_prompted or obj.pending_tracked for obj in self.objects.values())

    def _pending_anywhere(self, frame_index: int) -> bool:
        return any(frame_index in obj.pending_prompted for obj in self.objects.values())

    def _standing(self, obj: TrackedObject, frame_index: int) -> tuple[bool, Row | None]:
        """(whether a prompt on this frame conditions, the row that reads the object's past, if the prompt is a correction)."""
        direction = obj.visits.direction(frame_index)
        correction = direction is not None and bool(obj.bank.prompted)
        row = Row(obj.bank, frame_index, direction or 1, self.frames.num_frames) if correction else None
        return direction is None or self.options.corrections_condition, row

    def _forget_around(self, obj: TrackedObject, frame_index: int) -> None:
        reach = (NUM_RECENT + 1) * self.options.memory.stride
        for frame in [f for f in obj.bank.tracked if abs(f - frame_index) <= reach]:
            del obj.bank.tracked[frame]

    def _encode(self, frame: NetworkFrame) -> Any:
        if self._latest is None or self._latest[0].index != frame.index:
            if frame.index not in self._encoded:
                together = (frame, *self._following)
                features = self.engine.encode([one.image_3SS for one in together])
                self._encoded |= {one.index: encoded for one, encoded in zip(together, features, strict=True)}
            self._latest = (frame, self._encoded.pop(frame.index))
        return self._latest[1]

    def _features(self, frame_index: int) -> Any:
        """Features of one frame; the latest one's are kept."""
        if self._latest is not None and self._latest[0].index == frame_index:
            return self._latest[1]
        length = self.frames.num_frames
        if frame_index < 0 or (length is not None and frame_index >= length):
            raise ConfigError(f"frame {frame_index} is outside the video, which has frames 0..{(length or 0) - 1}")
        for frame in self.frames.images(frame_index, frame_index + 1):
            return self._encode(frame)
        raise ConfigError(f"frame {frame_index} is past the end of the video")

    def _result(
        self,
        frame_index: int,
        conditioning: bool,
        timestamp_s: float | None = None,
        objects: Sequence[TrackedObject] | None = None,
    ) -> Result:
        """What there is on a frame of the given objects, or of all."""
        if timestamp_s is None:
            timestamp_s = self._latest[0].timestamp_s if self._latest and self._latest[0].index == frame_index else 0.0
        objects = list(self.objects.values()) if objects is None else objects
        records = {obj.object_id: obj.shown(frame_index, conditioning) for obj in objects}
        return self.engine.result(frame_index, timestamp_s, records, self.frames.height, self.frames.width)


def _followed(frames: Iterator[NetworkFrame], count: int) -> Iterator[tuple[NetworkFrame, tuple[NetworkFrame, ...]]]:
    """Every frame, and up to ``count`` that come after it. What goes wrong with a frame is told when its turn comes."""
    held: deque[NetworkFrame] = deque()
    failure: Exception | None = None
    more = True
    while more or held:
        while more and len(held) <= count:
            try:
                held.append(next(frames))
            except StopIteration:
                more = False
            except Exception as error:
                more, failure = False, error
        if held:
            yield held.popleft(), tuple(held)
    if failure is not None:
        raise failure
