"""Clips with shot changes: several synthetic scenes, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.frames import FrameSource
from sam2_pipeline.masklets.rle import Rle, encode_batch
from sam2_pipeline.protocols.shots import ShotChange
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.training.synthetic import Scene, SceneOptions, make_scene


@dataclass(frozen=True)
class JoinedClips:
    """``count`` clips of ``shots`` scenes each, of the seeds 0, 1, ..., which share no object.

    One scene is cut to the next, or, with ``dissolve``, mixed into it over so many frames. True masks are those of the scene that
    shows more; objects are numbered through all scenes.
    """

    count: int
    options: SceneOptions
    shots: int = 2
    dissolve: int = 0
    url: str = "synthetic"

    def __post_init__(self) -> None:
        if self.shots < 2:
            raise ConfigError(f"{self.shots} shots are joined, expected at least 2")
        if not 0 <= 2 * self.dissolve < self.options.frames:
            frames = self.options.frames
            raise ConfigError(f"scenes of {frames} frames are dissolved over {self.dissolve}, expected less than half as many")

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(f"joined_{number:06d}" for number in range(self.count))

    def changes(self, video_id: str) -> tuple[ShotChange, ...]:
        starts = (self._starts(shot) for shot in range(1, self.shots))
        return tuple(ShotChange(start, start + self.dissolve) for start in starts)

    def read(self, video_id: str) -> Masks:
        scenes = self._scenes(video_id)
        return self._joined([scene.num_objects for scene in scenes], [scene.masks for scene in scenes])

    def scenery(self, video_id: str) -> Masks:
        scenes = self._scenes(video_id)
        return self._joined([scene.num_scenery for scene in scenes], [scene.scenery for scene in scenes])

    @contextmanager
    def open(self, video_id: str) -> Iterator[FrameSource]:
        scenes = self._scenes(video_id)
        yield ArrayFrames([self._picture(scenes, t) for t in range(self._frames)], self.options.fps)

    def _joined(self, counts: Sequence[int], drawn: Sequence[Callable[[int], np.ndarray]]) -> Masks:
        """What each shot has of something, numbered through all shots; empty in the others."""
        nothing = Rle.empty(*self.options.size)
        numbers = [(shot, number) for shot, count in enumerate(counts) for number in range(count)]
        masks: Masks = {label: {} for label in range(len(numbers))}
        for t in range(self._frames):
            shot = max((one for one in range(self.shots) if self._share(one, t) >= 0.5), default=0)
            shown = encode_batch(drawn[shot](t - self._starts(shot)))
            for label, (owner, number) in enumerate(numbers):
                masks[label][t] = shown[number] if owner == shot else nothing
        return masks

    @property
    def _frames(self) -> int:
        return self._starts(self.shots - 1) + self.options.frames

    def _scenes(self, video_id: str) -> list[Scene]:
        first = self.shots * int(video_id.rpartition("_")[2])
        return [make_scene(seed, self.options) for seed in range(first, first + self.shots)]

    def _starts(self, shot: int) -> int:
        """The first frame that shows anything of a shot."""
        return shot * (self.options.frames - self.dissolve)

    def _share(self, shot: int, t: int) -> float:
        """How much of the picture is a shot's, or of one after it."""
        return min(max((t - self._starts(shot) + 1) / (self.dissolve + 1), 0.0), 1.0) if shot else 1.0

    def _picture(self, scenes: list[Scene], t: int) -> np.ndarray:
        shown = [shot for shot in range(self.shots) if 0 <= t - self._starts(shot) < self.options.frames]
        pictures = [scenes[shot].frame(t - self._starts(shot)) for shot in shown]
        if len(pictures) == 1:
            return pictures[0]
        share = self._share(shown[1], t)
        return np.rint((1 - share) * pictures[0] + share * pictures[1]).astype(np.uint8)
