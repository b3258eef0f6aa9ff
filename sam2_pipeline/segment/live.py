"""Live streams: frames come in when they come, prompts from any thread, masks go out; memory and latency stay bounded.

A `LiveStream` is a `PromptedSession` whose frames are the recent ones (`inputs.RecentFrames`), between an inbox
(`inbox.FrameInbox`) and whoever iterates. The model runs in the iterating thread, and only there.

Frames have two numbers. Outside, every frame that came in counts, also those that were dropped. The memory counts the frames
that the model saw: it reads its six latest memories by their numbers, and gaps would leave it with fewer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame, FrameSource, LiveFrames
from sam2_pipeline.masklets.prompts import Prompt, whole_number
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inbox import Arrival, Feeder, FrameInbox, WhenSlow
from sam2_pipeline.segment.inputs import RecentFrames, check_picture
from sam2_pipeline.segment.latency import LatencyMeter, LiveStatistics
from sam2_pipeline.segment.live_orders import Discover, GivePrompt, Orders, RemoveObject, discover
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.results import FrameResult
from sam2_pipeline.segment.torch_engine import TorchEngine

_PATIENCE_S = 3.0  # for a source's thread to end; one that hangs in a driver is left behind


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a stream keeps up.

    Attributes:
        when_slow: what happens to frames that come faster than they are segmented: ``drop`` throws the oldest waiting one away,
            ``wait`` lets the source wait. None: wait for sources that can (files), drop for cameras and pushed frames.
        queue_frames: how many frames may wait. With ``drop``, latency is at most this and one more times the time for a frame.
        prompted_frames: so many conditioning frames of each object are kept, the first and the latest ones.
    """

    when_slow: WhenSlow | None = None
    queue_frames: int = 1
    prompted_frames: int = 16

    def __post_init__(self) -> None:
        if self.when_slow not in (None, "drop", "wait"):
            raise ConfigError(f"when_slow is {self.when_slow!r}, expected drop, wait or None")
        for name, low in (("queue_frames", 1), ("prompted_frames", 2)):
            if whole_number(getattr(self, name), name) < low:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least {low}")


@dataclass(frozen=True, slots=True)
class LiveResult(FrameResult):
    """A `FrameResult` of a stream: ``frame_index`` counts every frame that came in.

    Attributes:
        image: the frame as it came, uint8 RGB ``[H, W, 3]``.
        latency_s: from its arrival to these masks.
    """

    image: np.ndarray | None = None
    latency_s: float = 0.0


class LiveStream(Iterator[LiveResult]):
    """Masks of a stream, frame by frame. Made by `VideoSegmenter.stream`; iterate to get results, `close` it in the end.

    Everything but iterating may be done from any thread at any time, and takes effect from the next frame on: a prompt for a
    recent frame conditions from there, one for a frame yet to come waits for it (or for the next one, where that is dropped).
    """

    def __init__(
        self,
        model: Sam2,
        tracking: TrackingOptions,
        options: LiveOptions,
        source: LiveFrames | FrameSource | Iterable[Frame | np.ndarray | Image.Image] | None = None,
    ):
        if tracking.history_frames is None:
            raise ConfigError("history_frames is None, which keeps every frame; expected a number for a stream")
        if not tracking.own_timeline:
            raise ConfigError("own_timeline is False, by which objects are tracked before their first prompt; a stream cannot")
        self.model, self.tracking, self.options = model, tracking, options
        self._source, self._engine = source, TorchEngine(model, tracking)
        waits = source is not None and not (isinstance(source, LiveFrames) and source.live)
        self._inbox = FrameInbox(options.queue_frames, options.when_slow or ("wait" if waits else "drop"))
        self._orders = Orders(self._kept)
        self._feeder = None if source is None else Feeder(partial(_bring, source, self._orders), self._inbox)
        self._turn = threading.Lock()  # one step at a time
        self._session: PromptedSession[FrameResult] | None = None
        self._recent: RecentFrames | None = None
        self._meter, self._began, self._ended = LatencyMeter(), 0.0, 0.0
        height, width = getattr(source, "height", None), getattr(source, "width", None)
        if height and width:
            self._orders.set_size(height, width)

    @property
    def _kept(self) -> int:
        return (self.tracking.history_frames or 0) + 1

    # -------------------------------------------------------------------------------------------------------- frames

    def push(self, image: np.ndarray | Image.Image, timestamp_s: float | None = None, *, timeout_s: float | None = None) -> int:
        """Hands a frame over (it is copied) and gives its number; for streams without a source.

        Args:
            image: uint8 RGB ``[H, W, 3]`` or PIL, of the size of the first one.
            timestamp_s: its time; None: that of its arrival, in seconds since the first one's.
            timeout_s: how long to wait for room under ``when_slow="wait"``; None: for ever, so then another thread must iterate.

        Raises:
            ConfigError: not such a picture, the stream has a source of its own, or it has ended.
            TimeoutError: no room in time.
        """
        if self._feeder is not None:
            raise ConfigError("this stream has a source of its own, frames cannot be pushed")
        picture = np.array(check_picture(image))
        if timestamp_s is not None and (not isinstance(timestamp_s, int | float) or not math.isfinite(timestamp_s)):
            raise ConfigError(f"timestamp_s is {timestamp_s!r}, expected seconds")
        self._orders.set_size(*picture.shape[:2])
        number = self._inbox.put(picture, timestamp_s, timeout_s)
        if number is None:
            raise ConfigError("the stream has ended, no more frames can be pushed")
        return number

    def finish(self) -> None:
        """No more frames will come: iteration ends when those that wait are segmented."""
        self._inbox.finish()

    def close(self) -> None:
        """Ends the stream: frames that wait are dropped, the source is closed, iteration ends."""
        self._inbox.stop()
        if isinstance(self._source, LiveFrames):
            self._source.close()
        if self._feeder is not None:
            self._feeder.join(_PATIENCE_S)

    # ------------------------------------------------------------------------------------------------------- objects

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects there will be on the next frame, and those that wait for a later one."""
        return self._orders.object_ids

    def prompt(self, prompt: Prompt, *, keep_old: bool = False) -> None:
        """Gives a prompt, for an object new or known. ``prompt.frame_index`` is a recent frame, or one yet to come.

        ``keep_old`` adds the points to earlier ones of the same object and frame; otherwise they replace them.

        Raises:
            ConfigError: it lies outside the picture, or names a frame that was dropped or is no longer held. (While the size of
                the pictures is not known, `push` of the first one raises it, or the iteration over a source.)
        """
        self._orders.add(GivePrompt(prompt, keep_old))

    def remove_object(self, object_id: int) -> None:
        """Forgets an object. Raises ConfigError for an unknown one."""
        self._orders.add(RemoveObject(object_id))

    def discover(self, options: GenerateOptions | None = None) -> None:
        """Finds objects on the next frame, automatically, and tracks those that no known object covers, under free numbers."""
        self._orders.add(Discover(options or GenerateOptions.for_model(self.model.config)))

    # ------------------------------------------------------------------------------------------------------- results

    def __next__(self) -> LiveResult:
        with self._turn:
            if self._feeder is not None:
                self._feeder.start()
            arrival = self._inbox.take()
            if arrival is None:
                raise StopIteration
            self._began = self._began or arrival.arrived
            result = self._segment(arrival)
            # Asking for numbers waits for the device, which may be behind.
            result.object_score_N.tolist()
            self._ended = time.perf_counter()
            latency_s = self._ended - arrival.arrived
            self._meter.add(latency_s)
            given = {field.name: getattr(result, field.name) for field in fields(FrameResult)}
            given["frame_index"] = arrival.number
            return LiveResult(**given, image=arrival.image, latency_s=latency_s)

    def statistics(self) -> LiveStatistics:
        """Counts, latencies and speed so far."""
        meter, inbox = self._meter, self._inbox
        quantiles = meter.quantile(0.5), meter.quantile(0.99), meter.longest_s
        speed = meter.count / (self._ended - self._began) if self._ended > self._began else 0.0
        return LiveStatistics(inbox.received, meter.count, inbox.dropped, len(inbox), *quantiles, speed)

    def _segment(self, arrival: Arrival) -> FrameResult:
        height, width = arrival.image.shape[:2]
        if self._session is None or self._recent is None:
            self._recent = RecentFrames(height, width, self.model.config.image_size, self._kept)
            self._session = PromptedSession(self._engine, self._recent, self.tracking)
        session, recent = self._session, self._recent
        due = self._orders.begin(arrival.number)
        for asked in due.before:
            if isinstance(asked, GivePrompt):
                asked.carry_out(session, recent)
            else:
                session.objects.pop(asked.object_id, None)  # not there if its prompt was for a frame yet to come
        session.settle()  # while the frames that prompts name are still held
        number = recent.add(arrival.number, arrival.timestamp_s, arrival.image)
        result = session.step(next(iter(session.frames.images(number, number + 1))))
        for obj in session.objects.values():
            obj.forget_prompts(recent.oldest, self.options.prompted_frames)
        for order in due.after:
            if isinstance(order, GivePrompt):
                result = order.carry_out(session, recent)
            else:
                result = discover(self.model, session, self._orders, order, result, arrival.image) or result
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        inbox = getattr(self, "_inbox", None)  # missing where the constructor raised
        if inbox is not None:
            inbox.stop()


def _bring(
    source: LiveFrames | FrameSource | Iterable[Frame | np.ndarray | Image.Image], orders: Orders, inbox: FrameInbox
) -> None:
    """What the source's thread does."""
    frames = iter(source.frames() if hasattr(source, "frames") else source)
    try:
        for item in frames:
            # A frame is ours to keep; of others' arrays nobody knows whether the next picture goes into the same one.
            image, time_s = (item.image, item.timestamp_s) if isinstance(item, Frame) else (np.array(check_picture(item)), None)
            orders.set_size(*check_picture(image).shape[:2])
            if inbox.put(image, time_s) is None:
                break
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            close()
