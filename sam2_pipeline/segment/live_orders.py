"""What is asked of a stream between two of its frames: checked when it is asked, from any thread, carried out in order."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode, iou
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.automatic import Proposal, propose_masks
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import RecentFrames
from sam2_pipeline.segment.prompted import PromptedSession, check_prompt
from sam2_pipeline.segment.results import FrameResult

_COVERED = 0.5  # IoU from which a discovered mask is a known object's


@dataclass(frozen=True, slots=True)
class GivePrompt:
    prompt: Prompt
    keep_old: bool

    def carry_out(self, session: PromptedSession[FrameResult], recent: RecentFrames) -> FrameResult:
        """Prompts on the frame that the prompt names, or on the next one that is held."""
        number = recent.number(self.prompt.frame_index)
        return session.prompt(replace(self.prompt, frame_index=number), keep_old=self.keep_old)


@dataclass(frozen=True, slots=True)
class RemoveObject:
    object_id: int


@dataclass(frozen=True, slots=True)
class Discover:
    options: GenerateOptions


Order = GivePrompt | RemoveObject | Discover


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done with the next frame: ``before`` it is tracked, and on its result ``after``."""

    before: tuple[GivePrompt | RemoveObject, ...]
    after: tuple[GivePrompt | Discover, ...]


class Orders:
    """The orders that wait, the objects and frames they may name, and the size of the pictures. Frames are those that came in.

    ``kept`` is how many frames the stream holds.
    """

    def __init__(self, kept: int) -> None:
        self._lock = threading.Lock()
        self._asked: list[Order] = []
        self._scheduled: list[GivePrompt | Discover] = []  # for frames yet to come
        self._objects: dict[int, None] = {}
        self._held: deque[int] = deque(maxlen=kept)
        self._next = 0  # the number after that of the latest frame that was begun
        self._size: tuple[int, int] | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        with self._lock:
            return tuple(self._objects)

    def set_size(self, height: int, width: int) -> None:
        """The pictures' size; the first one decides.

        Raises:
            ConfigError: another one than before, or prompts that came earlier do not fit it; those are forgotten.
        """
        with self._lock:
            if self._size is not None:
                if self._size != (height, width):
                    raise ConfigError(f"frame is {height}x{width}, expected {self._size[0]}x{self._size[1]} as the first")
                return
            self._size = (height, width)
            asked, self._asked = self._asked, []
            self._objects.clear()
            faults = []
            for order in asked:
                try:
                    self._add(order)
                except ConfigError as error:
                    faults.append(error)
        if faults:
            raise faults[0]

    def add(self, order: Order) -> None:
        """Raises `ConfigError` for an object that is not known, a frame that is not held, or a place outside the picture."""
        with self._lock:
            self._add(order)

    def _add(self, order: Order) -> None:
        if isinstance(order, GivePrompt):
            self._check(order.prompt)
            self._objects[order.prompt.object_id] = None
        elif isinstance(order, RemoveObject):
            if order.object_id not in self._objects:
                raise ConfigError(f"no object {order.object_id} in this stream; known objects: {list(self._objects)}")
            del self._objects[order.object_id]
        self._asked.append(order)

    def _check(self, prompt: Prompt) -> None:
        if not isinstance(prompt, Prompt):
            raise ConfigError(f"prompt is a {type(prompt).__name__}, expected a Prompt")
        if self._size is not None:
            check_prompt(prompt, *self._size)
        frame = prompt.frame_index
        if frame < self._next and frame not in self._held:
            fate = "was dropped" if self._held and frame > self._held[0] else "is no longer held"
            held = f"held are {len(self._held)} frames of {self._held[0]}..{self._held[-1]}" if self._held else "none is held"
            raise ConfigError(f"prompt for object {prompt.object_id}: frame {frame} {fate}; {held}")

    def begin(self, frame: int) -> Due:
        """A frame is about to be segmented: what was asked until now, and what was scheduled for it or a dropped one before."""
        with self._lock:
            before: list[GivePrompt | RemoveObject] = []
            for order in self._asked:
                if isinstance(order, RemoveObject):
                    self._scheduled = [one for one in self._scheduled if not _is_about(one, order.object_id)]
                    before.append(order)
                elif isinstance(order, Discover) or order.prompt.frame_index >= self._next:
                    self._scheduled.append(order)
                else:
                    before.append(order)
            self._asked.clear()
            after = [one for one in self._scheduled if _frame_of(one) <= frame]
            self._scheduled = [one for one in self._scheduled if _frame_of(one) > frame]
            self._held.append(frame)
            self._next = frame + 1
            return Due(tuple(before), tuple(after))

    def claim(self, count: int) -> list[int]:
        """Numbers for so many new objects."""
        with self._lock:
            first = max(self._objects, default=0) + 1
            ids = list(range(first, first + count))
            self._objects.update(dict.fromkeys(ids))
            return ids


def discover(
    model: Sam2, session: PromptedSession[FrameResult], orders: Orders, order: Discover, result: FrameResult, image: np.ndarray
) -> FrameResult | None:
    """Finds what no object's mask covers on the frame of ``result``, and makes objects of it; None where there is nothing."""
    found = [p for p in propose_masks(model, image, order.options, session.options.decoding) if p.rle.area]
    known = [mask.rle for mask in collect_frame(result).masks.values()]
    if known and found:
        covered = iou([p.rle for p in found], known).max(axis=1) > _COVERED
        found = [proposal for proposal, is_known in zip(found, covered) if not is_known]
    shown = None
    batch = session.options.row_batch
    for start in range(0, len(found), batch):
        chunk: list[Proposal] = found[start : start + batch]
        masks = session.engine.mask_prompts(np.stack([decode(p.rle) for p in chunk]))
        ids = orders.claim(len(chunk))
        shown = session.add_masks(result.frame_index, ids, masks)
    return shown


def _frame_of(order: GivePrompt | Discover) -> int:
    return order.prompt.frame_index if isinstance(order, GivePrompt) else -1


def _is_about(order: GivePrompt | Discover, object_id: int) -> bool:
    return isinstance(order, GivePrompt) and order.prompt.object_id == object_id
