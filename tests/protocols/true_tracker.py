"""A model that tracks what is truly there, and errs as told: everything around a network can be held to figures without one.

It is asked as a network is: for proposals on a picture, to track masks that it is given, to segment a picture anew. It knows whom
a mask means by its overlap with the true ones, goes on across cuts (to an object that has nothing to do with the one before),
and draws masks with frayed outlines. Some objects it tracks badly from a frame of their life on, in one of two ways: it goes over
to another object, or leaves out half of the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from stand_in_network import Engine, Model

import sam2_pipeline.segment.discover as discover
import sam2_pipeline.segment.judge as judge
import sam2_pipeline.segment.masklet_generator as masklet_generator
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.rle import Rle, decode, encode, iou
from sam2_pipeline.protocols.shots import ShotChange
from sam2_pipeline.segment.automatic import Proposal
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.results import FrameResult

SIDE = 64


@dataclass
class TrueTracker:
    """Of one video.

    Attributes:
        bad: share of objects that are tracked badly.
        noise: share of the pixels along a mask's outline that are missing.
        twice: share of proposals that are made twice.
        sureness: standard deviation of the estimates of quality from the true ones.
    """

    truth: Masks
    source: ArrayFrames
    seed: int
    changes: Sequence[ShotChange] = ()
    bad: float = 0.0
    noise: float = 0.3
    twice: float = 0.0
    sureness: float = 0.1
    frames: dict[bytes, int] = field(init=False)

    def __post_init__(self) -> None:
        self.frames = {frame.image.tobytes(): frame.index for frame in self.source.frames(0)}
        self.random = np.random.default_rng(self.seed)
        self.fates: dict[int, tuple[str, int, int]] = {}

    def install(self, monkeypatch, **options) -> MaskletGenerator:
        """A generator that has this for its network."""
        tracker = self

        class Segmenter:
            def __init__(self, model, tracking):
                pass

            def open(self, source, **changes):
                return Session(tracker, erring=not changes)  # judges open one in which objects do not compete

        monkeypatch.setattr(masklet_generator, "VideoSegmenter", Segmenter)
        monkeypatch.setattr(judge, "VideoSegmenter", Segmenter)
        monkeypatch.setattr(discover, "propose_masks", self.propose)
        monkeypatch.setattr(judge.Judge, "_agreements", lambda judge, *asked: self.segment_anew(*asked))
        return MaskletGenerator(Model(SIDE), **options)

    def meant(self, mask: Rle, frame: int) -> int:
        """The object whose mask overlaps most with a mask."""
        objects = list(self.truth)
        return objects[int(iou([mask], [self.truth[number][frame] for number in objects])[0].argmax())]

    def followed(self, number: int, start: int, frame: int) -> int:
        """Whom one follows on a frame that set out with an object: across a cut, somebody."""
        crossed = sum((start < change.last) != (frame < change.last) for change in self.changes)
        seen = [one for one, masks in self.truth.items() if masks[frame].area]
        return number if not crossed or not seen else seen[number % len(seen)]

    def fate(self, number: int) -> tuple[str, int, int]:
        """How an object is tracked: well, from a frame on as another one, or from a frame on by half."""
        if number not in self.fates:
            life = [t for t, mask in self.truth[number].items() if mask.area]
            since = int(self.random.choice(life[: len(life) // 2 + 1]))
            others = [one for one, masks in self.truth.items() if one != number and masks[life[-1]].area]
            kinds = ["half", "strays"] if others else ["half"]
            kind = str(self.random.choice(kinds)) if self.random.random() < self.bad else "well"
            self.fates[number] = kind, since, int(self.random.choice(others)) if others else number
        return self.fates[number]

    def drawn(self, number: int, frame: int) -> np.ndarray:
        """A mask with a frayed outline."""
        mask = decode(self.truth[number][frame])
        inside = np.logical_and.reduce([np.roll(mask, step, axis) for step in (-1, 1) for axis in (0, 1)])
        return mask & (inside | (self.random.random(mask.shape) >= self.noise))

    def propose(self, model, image, options: GenerateOptions, decoding=None, covered_HW=None) -> list[Proposal]:
        frame, found = self.frames[image.tobytes()], []
        for number, masks in self.truth.items():
            mask = decode(masks[frame])
            free = mask if covered_HW is None else mask & ~covered_HW
            if not free.any():
                continue
            y, x = np.argwhere(free)[0].tolist()
            for _ in range(1 + (self.random.random() < self.twice)):
                found.append(Proposal(encode(self.drawn(number, frame)), (0, 0, 0, 0), 0.9, 0.95, (x, y), (0, 0, 0, 0), 0.9))
        return found[: options.max_objects]

    def segment_anew(self, source, looks: Mapping[int, Sequence[int]], masks, on_frame) -> dict[int, float]:
        """In place of what a judge asks a network of single pictures."""
        found: dict[int, list[float]] = {}
        for frame, numbers in looks.items():
            for number in numbers:
                mask = masks.mask(number, frame)
                again = encode(self.drawn(self.meant(mask, frame), frame))
                found.setdefault(number, []).append(float(iou([again], [mask])[0, 0]))
        return {number: float(np.mean(values)) for number, values in found.items()}


class Session:
    """Tracks objects by what they were given as."""

    def __init__(self, tracker: TrueTracker, erring: bool):
        self.tracker, self.erring = tracker, erring
        self.frames = DecodedFrames(tracker.source, SIDE, lambda image: image)
        self.engine, self.options = Engine(), TrackingOptions()
        self.given: dict[int, tuple[int, int]] = {}  # by object: who it is, and since when

    def add_masks(self, frame_index: int, ids: Sequence[int], masks_NHW: np.ndarray) -> FrameResult:
        for object_id, mask in zip(ids, masks_NHW):
            self.given[object_id] = self.tracker.meant(encode(mask), frame_index), frame_index
        return self._result(frame_index, list(self.given))

    def settle(self) -> None:
        pass

    def remove_object(self, object_id: int) -> None:
        del self.given[object_id]

    def advance(self, frame, object_ids=None, *, reverse: bool = False) -> FrameResult:
        return self._result(frame.index, [one for one in self.given if object_ids is None or one in object_ids])

    def propagate(self, start: int, max_frames: int, *, reverse: bool = False) -> Iterator[FrameResult]:
        for step in range(max_frames + 1):
            yield self._result(start - step if reverse else start + step, list(self.given))

    def _result(self, frame: int, ids: list[int]) -> FrameResult:
        tracker = self.tracker
        masks, estimates = [], []
        for object_id in ids:
            number, start = self.given[object_id]
            number = tracker.followed(number, start, frame)
            kind, since, other = tracker.fate(number) if self.erring else ("well", 0, number)
            if kind == "strays" and frame >= since:
                number = other
            mask = tracker.drawn(number, frame)
            if kind == "half" and frame >= since and mask.any():
                mask[:, : int(np.median(np.nonzero(mask)[1]))] = False
            true = tracker.truth[number][frame]
            estimate = float(iou([encode(mask)], [true])[0, 0]) if true.area else 0.0
            masks.append(mask)
            estimates.append(np.clip(estimate + tracker.random.normal(0, tracker.sureness), 0, 1))
        size = tracker.source.height, tracker.source.width
        logits = torch.tensor(np.where(np.array(masks).reshape(-1, *size), 10.0, -10.0)).float()
        there = torch.tensor([10.0 if mask.any() else -10.0 for mask in masks])
        time = frame / tracker.source.fps
        return FrameResult(frame, time, tuple(ids), logits, torch.tensor(estimates).float(), there, *size)
