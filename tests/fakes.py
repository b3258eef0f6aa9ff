"""A stand-in for the model: finds nothing out, but streams masks, fails, or dies as a test asks it to."""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.pipeline.job import ModelFacts


class FakeStream:
    """One masklet per prompt (or two automatic ones): a square that moves a pixel a frame, from where the picture says."""

    def __init__(self, source: FrameSource, prompts: Sequence[Prompt] | None, delay_s: float) -> None:
        self.seeds: list[MaskletSeed] = []
        self.shot_count = None
        self._source, self._delay_s = source, delay_s
        self._kind = "auto" if prompts is None else "prompted"
        self._prompts = prompts
        if prompts is None:
            self._prompts = [Prompt(0, 0, np.array([[x, 4.0]]), np.array([1])) for x in (2.0, 6.0)]

    def __iter__(self) -> Iterator[FrameMasks]:
        for number, prompt in enumerate(self._prompts):
            object_id = prompt.object_id if self._kind == "prompted" else None
            self.seeds.append(MaskletSeed(number, self._kind, prompt, object_id))
        owed_s = 0.0
        for frame in self._source.frames(size=(8, 8)):
            began = time.monotonic()
            owed_s += self._delay_s  # what a frame costs in all; sleep that was too long is made up for by the next one
            masks = {number: self._mask(number, frame) for number in range(len(self._prompts))}
            time.sleep(max(owed_s - (time.monotonic() - began), 0.0))
            owed_s -= time.monotonic() - began
            yield FrameMasks(frame.index, frame.timestamp_s, masks)

    def _mask(self, number: int, frame) -> MaskletFrame:
        mask = np.zeros((self._source.height, self._source.width), bool)
        left = (4 * number + frame.index + int(frame.image.mean())) % max(1, self._source.width - 4)
        mask[2:6, left : left + 4] = True
        return MaskletFrame(frame.index, frame.timestamp_s, encode(mask), 0.9, 3.0, 0.97)


@dataclass(frozen=True)
class FakeGenerator:
    """``events`` maps a part of a URL to what happens there: ``raise``, ``disk-full``, ``hang``, ``kill``, or ``kill-once``
    (needs ``folder``)."""

    events: dict[str, str]
    folder: str
    delay_s: float
    frame_size = (8, 8)

    def stream(self, source, prompts=None, *, annotate_fps=None) -> Iterator[FrameMasks]:
        for name, event in self.events.items():
            if name in source.url:
                self._happen(name, event)
        return FakeStream(source, prompts, self.delay_s)

    def _happen(self, name: str, event: str) -> None:
        if event == "raise":
            raise RuntimeError("the stand-in was asked to fail")
        if event == "disk-full":
            raise OSError(28, "No space left on device")
        if event == "hang":
            re.match(r"(a+)+$", "a" * 64 + "b")  # for longer than the universe will last, and no other thread gets a turn
        flag = Path(self.folder, f"killed-{name}")
        if event == "kill-once" and flag.exists():
            return
        if self.folder:
            flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FakeFactory:
    """Makes `FakeGenerator`s; ``weights`` stands for the model's weights. ``folder`` gets a file ``pid-<id>`` from each maker."""

    events: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    weights: str = "0" * 64
    delay_s: float = 0.0

    def describe(self) -> ModelFacts:
        return ModelFacts("fake", self.weights, "cpu")

    def on(self, device: str) -> "FakeFactory":
        return self

    def build(self, threads: int | None = None) -> tuple[FakeGenerator, ModelFacts]:
        if self.folder:
            Path(self.folder, f"pid-{os.getpid()}").touch()
        return FakeGenerator(dict(self.events), self.folder, self.delay_s), self.describe()


def write_clip(path: Path, frames: int = 6, height: int = 24, width: int = 32, brightness: int = 0) -> None:
    """A tiny video whose pictures differ."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            image = np.full((height, width, 3), (brightness + 10 * number) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
