"""A session that sees objects by their colours, in pictures of plain squares: what a generator does can be told to the pixel."""

from collections.abc import Sequence

import numpy as np
import torch
from stand_in_network import Engine, Model

from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.segment.automatic import Proposal
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.results import FrameResult

SIDE = 32
COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250, 250, 250)}
Course = dict[int, tuple[int, int]]  # left and top edge of a square by frame


def picture(squares: dict[str, tuple[int, int]], ground: tuple[int, int, int] = (40, 40, 40), side: int = 8) -> np.ndarray:
    image = np.full((SIDE, SIDE, 3), ground, np.uint8)
    for name, (left, top) in squares.items():
        image[max(top, 0) : top + side, max(left, 0) : left + side] = COLOURS[name]
    return image


def film(courses: dict[str, Course], frames: int, ground: tuple[int, int, int] = (40, 40, 40)) -> list[np.ndarray]:
    return [picture({name: course[t] for name, course in courses.items() if t in course}, ground) for t in range(frames)]


def of_colour(image: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    return (image == np.array(colour, np.uint8)).all(axis=2)


class ColourSession:
    """Objects are all pixels of the colour that they had where they were prompted. ``walked`` notes what was tracked where."""

    def __init__(self, source: ArrayFrames):
        self.source, self.frames = source, DecodedFrames(source, SIDE, lambda image: image)
        self.engine, self.options = Engine(), TrackingOptions(row_batch=2)
        self.colours: dict[int, tuple[int, ...]] = {}
        self.walked: list[tuple[int, tuple[int, ...]]] = []

    def add_masks(self, frame_index: int, ids: Sequence[int], masks_NSS: np.ndarray) -> FrameResult:
        image = self._image(frame_index)
        for object_id, mask in zip(ids, masks_NSS):
            self.colours[object_id] = tuple(image[mask][0].tolist())
        return self._result(frame_index, list(self.colours))

    def check(self, prompt: Prompt) -> None:
        assert prompt.frame_index < self.source.num_frames

    def prompt(self, prompt: Prompt) -> FrameResult:
        x, y = prompt.points_xy[0].astype(int)
        self.colours[prompt.object_id] = tuple(self._image(prompt.frame_index)[y, x].tolist())
        return self._result(prompt.frame_index, list(self.colours))

    def settle(self) -> None:
        pass

    def advance(self, frame, object_ids=None, *, reverse: bool = False) -> FrameResult:
        ids = [object_id for object_id in self.colours if object_ids is None or object_id in object_ids]
        self.walked.append((frame.index, tuple(ids)))
        return self._result(frame.index, ids)

    def _image(self, index: int) -> np.ndarray:
        [frame] = self.source.frames(index, index + 1)
        return frame.image

    def _result(self, index: int, ids: list[int]) -> FrameResult:
        image = self._image(index)
        masks = [of_colour(image, self.colours[object_id]) for object_id in ids]
        logits = torch.tensor(np.where(masks, 10.0, -10.0)).float().reshape(-1, SIDE, SIDE)
        there = torch.tensor([10.0 if mask.any() else -10.0 for mask in masks])
        time = index / self.source.fps
        return FrameResult(index, time, tuple(ids), logits, torch.ones(len(ids)), there, SIDE, SIDE)


def propose(model, image, options: GenerateOptions, decoding=None, covered_HW=None) -> list[Proposal]:
    """In place of `propose_masks`: every square of which a pixel is not covered."""
    found = []
    for colour in COLOURS.values():
        mask = of_colour(image, colour)
        free = mask if covered_HW is None else mask & ~covered_HW
        if free.any():
            y, x = np.argwhere(free)[0].tolist()
            found.append(Proposal(encode(mask), (0, 0, 0, 0), 0.9, 0.95, (x, y), (0, 0, SIDE, SIDE), 0.9))
    return found[: options.max_objects]


def oracle(monkeypatch, **options) -> tuple[MaskletGenerator, list[ColourSession]]:
    """A generator whose sessions and proposals know the truth, and the sessions it opens."""
    import sam2_pipeline.segment.discover as discover
    import sam2_pipeline.segment.masklet_generator as generator

    opened: list[ColourSession] = []

    class Segmenter:
        def __init__(self, model, tracking):
            pass

        def open(self, source):
            opened.append(ColourSession(source))
            return opened[-1]

    monkeypatch.setattr(generator, "VideoSegmenter", Segmenter)
    monkeypatch.setattr(discover, "propose_masks", propose)
    return MaskletGenerator(Model(SIDE), **options), opened


def where(rle: Rle) -> tuple[int, int] | None:
    """Left and top edge of a mask."""
    rows, columns = np.nonzero(decode(rle))
    return (int(columns.min()), int(rows.min())) if len(rows) else None
