"""The model behind the annotator: loaded when it is first needed, used by one thread at a time, clicks before propagation."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import PipelineError
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.masklet import FrameMasks, MaskletFrame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.pipeline.job import ModelFacts


class Segmenter(Protocol):
    """What turns prompts into masks: `Sam2Segmenter`, or a stand-in in tests."""

    facts: ModelFacts

    def preview(self, video: Video, prompt: Prompt, base: Rle | None) -> MaskletFrame:
        """The mask of one prompt on its frame; ``base`` is the mask that it corrects."""
        ...

    def propagate(self, video: Video, prompts: Sequence[Prompt]) -> Iterator[FrameMasks]:
        """Masks of all prompted objects on every frame, keyed by object id; as `sam2-pipeline run --prompts` makes them."""
        ...


class Sam2Segmenter:
    """SAM 2 as the configuration asks for it."""

    def __init__(self, config: JobConfig) -> None:
        from sam2_pipeline.pipeline.factory import ModelFactory
        from sam2_pipeline.segment.masklet_generator import MaskletGenerator

        generator, self.facts = ModelFactory(config).build()
        assert isinstance(generator, MaskletGenerator)
        self._generator = generator
        self._latest: tuple[Video, Any] | None = None

    def preview(self, video: Video, prompt: Prompt, base: Rle | None) -> MaskletFrame:
        from sam2_pipeline.segment.collect import collect_frame

        session = self._session(video)
        session.reset()
        if base is not None and prompt.mask is None and base.area:
            session.prompt(Prompt(prompt.object_id, prompt.frame_index, mask=base))
        return collect_frame(session.prompt(prompt)).masks[prompt.object_id]

    def propagate(self, video: Video, prompts: Sequence[Prompt]) -> Iterator[FrameMasks]:
        stream = self._generator.stream(video, prompts)
        for frame in stream:
            of_masklet = {seed.masklet_id: seed.object_id for seed in stream.seeds}
            masks = {of_masklet[number] or 0: mask for number, mask in frame.masks.items()}
            yield FrameMasks(frame.frame_index, frame.timestamp_s, masks)

    def _session(self, video: Video) -> Any:
        """One for the latest video, which remembers what the encoder said of the latest frame."""
        from sam2_pipeline.segment.video import VideoSegmenter

        if self._latest is None or self._latest[0] is not video:
            segmenter = VideoSegmenter(self._generator.model, self._generator.tracking)
            self._latest = video, segmenter.open(video)
        return self._latest[1]


class Desk:
    """Hands the model to one thread at a time. Who clicks waits for at most one frame of who propagates."""

    def __init__(self, load: Callable[[], Segmenter]) -> None:
        self._load = load
        self._segmenter: Segmenter | None = None
        self._changed = threading.Condition()
        self._busy, self._urgent = False, 0
        self._warming: threading.Thread | None = None

    @contextlib.contextmanager
    def model(self, *, urgent: bool) -> Iterator[Segmenter]:
        """The model, loaded at the first use, which takes seconds.

        Raises:
            CheckpointError: its weights cannot be had; asked again, it is tried again.
        """
        with self._changed:
            self._urgent += urgent
            try:
                self._changed.wait_for(lambda: not self._busy and (urgent or not self._urgent))
                self._busy = True
            finally:
                self._urgent -= urgent
        try:
            if self._segmenter is None:
                self._segmenter = self._load()
            yield self._segmenter
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def warm_up(self) -> None:
        """Begins to load the model, so that the first click need not wait; what is wrong with it the first click will tell."""

        def load() -> None:
            with contextlib.suppress(PipelineError), self.model(urgent=True):
                pass

        with self._changed:
            if self._warming is None:
                self._warming = threading.Thread(target=load, name="model", daemon=True)
                self._warming.start()

    @property
    def facts(self) -> ModelFacts | None:
        """Which model it is, once it is loaded."""
        return None if self._segmenter is None else self._segmenter.facts
