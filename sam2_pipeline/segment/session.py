"""One video being segmented interactively: prompts on any frame, walks in either direction, corrections, removals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.memory_bank import NUM_RECENT, FrameRecord
from sam2_pipeline.model.sam2 import NO_OBJECT_LOGIT, Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.inputs import NetworkFrame, NetworkFrames
from sam2_pipeline.segment.objects import TrackedObject
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.tracking import Row, TrackingOptions, make_records, remember, see, track_rows

_PREVIOUS_LOGIT_LIMIT = 32.0


class VideoSession:
    """Objects, prompts and memories of one video. Made by `VideoSegmenter.open`; not to be shared between threads.

    Coordinates here are pixels of the S x S network input; `VideoSegmenter` and `compat` translate.
    """

    def __init__(self, model: Sam2, frames: NetworkFrames, options: TrackingOptions, storage: torch.device | None = None):
        self.model, self.frames, self.options = model, frames, options
        self.storage = storage or model.device
        self.batch_size = BatchSize(options.row_batch)
        self.objects: dict[int, TrackedObject] = {}
        self._latest: tuple[NetworkFrame, FrameFeatures] | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self.objects)

    # ------------------------------------------------------------------------------------------------------- prompts

    @torch.inference_mode()
    def add_points(
        self, frame_index: int, object_id: int, points_P2: Tensor, labels_P: Tensor, *, keep_old: bool = False
    ) -> FrameResult:
        """Clicks (a box is two points labelled 2 and 3, first) on an object, new or known; gives the frame's masks at once.

        The object's earlier result on the frame, if any, is refined.
        """
        features = self._features(frame_index)
        obj = self.objects.setdefault(object_id, TrackedObject(object_id))
        if keep_old and frame_index in obj.points:
            old_points, old_labels = obj.points[frame_index]
            points_P2, labels_P = torch.cat((old_points, points_P2)), torch.cat((old_labels, labels_P))
        obj.points[frame_index] = (points_P2, labels_P)
        obj.masked_frames.discard(frame_index)
        conditioning, row = self._standing(obj, frame_index)
        earlier = obj.shown(frame_index, conditioning)
        previous = None
        if earlier is not None and earlier.logits_HW is not None:
            previous = earlier.logits_HW.to(self.model.device).clamp(-_PREVIOUS_LOGIT_LIMIT, _PREVIOUS_LOGIT_LIMIT)[None]
        lanes = torch.zeros(1, dtype=torch.long, device=self.model.device)
        if row is None:
            embedding = self.model.attend_memory(features, lanes, None)
        else:
            [(_, embedding)] = see(self.model, features, [row], self.options.memory)
        device = self.model.device
        prediction = self.model.decode_masks(
            embedding, features, lanes, points_P2[None].to(device), labels_P[None].to(device), previous,
            rules=self.options.decoding,
        )  # fmt: skip
        [record] = make_records(prediction, self.options, self.storage)
        obj.pending(conditioning)[frame_index] = record
        return self._result(frame_index, conditioning)

    @torch.inference_mode()
    def add_masks(self, frame_index: int, object_ids: Sequence[int], masks_NSS: Tensor) -> FrameResult:
        """Masks (0 or 1, ``[N, S, S]``) of as many objects as their result on the frame; gives the frame's masks."""
        features = self._features(frame_index)
        conditioning = True

        def adopt(numbers: Sequence[int]) -> list[FrameRecord]:
            masks = masks_NSS[numbers[0] : numbers[-1] + 1].to(self.model.device)
            lanes = torch.zeros(len(masks), dtype=torch.long, device=self.model.device)
            prediction = self.model.adopt_masks(features, lanes, masks, self.options.decoding)
            return make_records(prediction, self.options, self.storage)

        for object_id, record in zip(object_ids, self.batch_size.run(range(len(object_ids)), adopt)):
            obj = self.objects.setdefault(object_id, TrackedObject(object_id))
            obj.masked_frames.add(frame_index)
            obj.points.pop(frame_index, None)
            conditioning, _ = self._standing(obj, frame_index)
            obj.pending(conditioning)[frame_index] = record
        return self._result(frame_index, conditioning)

    def clear_prompts(self, frame_index: int, object_id: int) -> FrameResult:
        """Takes back an object's prompts on a frame."""
        self._object(object_id).clear_prompts(frame_index)
        return self._result(frame_index, self._pending_anywhere(frame_index))

    def remove_object(self, object_id: int) -> list[FrameResult]:
        """Forgets an object; gives the masks of the others on the frames where it had prompts."""
        obj = self._object(object_id)
        frames = obj.prompted_frames
        del self.objects[object_id]
        return [self._result(frame, self._pending_anywhere(frame)) for frame in frames] if self.objects else []

    def reset(self) -> None:
        """Forgets all objects."""
        self.objects.clear()

    # --------------------------------------------------------------------------------------------------- propagation

    @torch.inference_mode()
    def settle(self) -> None:
        """Encodes the memories of pending prompts, frame by frame; from then on they condition tracking."""
        waiting: dict[int, list[FrameRecord]] = {}
        for obj in self.objects.values():
            for frame, record in (*obj.pending_tracked.items(), *obj.pending_prompted.items()):
                if record.memory_TC is None:
                    waiting.setdefault(frame, []).append(record)
        for frame, records in waiting.items():
            remember(self.model, self._features(frame), records, self.options, self.batch_size, self.storage)
        for obj in self.objects.values():
            for frame in obj.settle():
                if self.options.forget_around_corrections:
                    self._forget_around(obj, frame)

    def propagate(
        self, start: int | None = None, max_frames: int | None = None, *, reverse: bool = False, skip_visited: bool = False
    ) -> Iterator[FrameResult]:
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
        with torch.inference_mode():
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
        for frame in self.frames.images(start, stop, reverse=reverse):
            with torch.inference_mode():
                result = self._step(frame, reverse, skip_visited)
            yield result

    @torch.inference_mode()
    def step(self, frame: NetworkFrame) -> FrameResult:
        """Tracks the objects there are, perhaps none, one frame forward: for streams, whose frames come when they come."""
        self.settle()
        return self._step(frame, False, False)

    def _step(self, frame: NetworkFrame, reverse: bool, skip_visited: bool) -> FrameResult:
        """Tracks all objects onto one frame."""
        direction = -1 if reverse else 1
        if self.options.own_timeline and self._has_pending():
            self.settle()
        tracked = []
        for obj in self.objects.values():
            visited = obj.visits.direction(frame.index) is not None
            active = not self.options.own_timeline or obj.is_behind(frame.index, direction)
            if active and not (skip_visited and visited):
                obj.visits.add(frame.index, reverse)
                if frame.index not in obj.bank.prompted:
                    tracked.append(obj)
        if tracked:
            features = self._encode(frame)
            rows = [Row(obj.bank, frame.index, direction, self.frames.num_frames) for obj in tracked]
            for obj, record in zip(tracked, track_rows(self.model, features, rows, self.options, self.batch_size, self.storage)):
                obj.bank.tracked[frame.index] = record
                self.options.forget(obj.bank, frame.index)
        return self._result(frame.index, False, frame.timestamp_s)

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

    def _encode(self, frame: NetworkFrame) -> FrameFeatures:
        if self._latest is None or self._latest[0].index != frame.index:
            self._latest = (frame, self.model.encode_frames(frame.image_3SS[None]))
        return self._latest[1]

    def _features(self, frame_index: int) -> FrameFeatures:
        """Features of one frame; the latest one's are kept."""
        if self._latest is not None and self._latest[0].index == frame_index:
            return self._latest[1]
        length = self.frames.num_frames
        if frame_index < 0 or (length is not None and frame_index >= length):
            raise ConfigError(f"frame {frame_index} is outside the video, which has frames 0..{(length or 0) - 1}")
        for frame in self.frames.images(frame_index, frame_index + 1):
            return self._encode(frame)
        raise ConfigError(f"frame {frame_index} is past the end of the video")

    def _result(self, frame_index: int, conditioning: bool, timestamp_s: float | None = None) -> FrameResult:
        side, device = self.model.mask_side, self.model.device
        records = [obj.shown(frame_index, conditioning) for obj in self.objects.values()]
        absent = torch.full((side, side), NO_OBJECT_LOGIT, device=device)
        zero, low = torch.zeros((), device=device), torch.full((), NO_OBJECT_LOGIT, device=device)
        logits = [absent if r is None or r.logits_HW is None else r.logits_HW.to(device) for r in records]
        if timestamp_s is None:
            timestamp_s = self._latest[0].timestamp_s if self._latest and self._latest[0].index == frame_index else 0.0
        return FrameResult(
            frame_index,
            timestamp_s,
            self.object_ids,
            torch.stack(logits) if logits else absent[None][:0],
            torch.stack([zero if r is None else r.predicted_iou for r in records]) if records else zero[None][:0],
            torch.stack([low if r is None else r.object_score for r in records]) if records else zero[None][:0],
            self.frames.height,
            self.frames.width,
            self.options.non_overlapping,
        )
