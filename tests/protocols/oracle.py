"""A segmenter that knows the truth and errs as told: what a protocol does with a model can be read from what it asks for."""

from collections.abc import Iterator

import numpy as np
import torch

from sam2_pipeline.formats.masks import Masks
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.segment.results import FrameResult

HEIGHT, WIDTH, FRAMES = 40, 64, 8


def square(top: int, left: int, side: int) -> Rle:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + side, left : left + side] = True
    return encode(mask)


def two_squares() -> Masks:
    """Object 1 is 16 pixels wide and always there; object 4 comes on frame 3, after a sliver of it on frame 2."""
    late = {0: square(0, 0, 0), 1: square(0, 0, 0), 2: square(20, 63, 1)}
    return {1: {t: square(4, 4 + t, 16) for t in range(FRAMES)}, 4: late | {t: square(20, 20, 12) for t in range(3, FRAMES)}}


class OracleSegmenter:
    """Masks are those of ``truth`` moved right by a pixel for every frame since the last frame with prompts.

    On a frame with clicks the mask lacks its right part: half of it after one click, a quarter after two, and so on.
    """

    def __init__(self, truth: Masks, frames: int):
        self.truth, self.frames, self.opened = truth, frames, []

    def open(self, frames, **changes) -> "OracleSession":
        self.opened.append(OracleSession(self.truth, self.frames, changes))
        return self.opened[-1]


class OracleSession:
    def __init__(self, truth: Masks, frames: int, changes: dict):
        self.truth, self.frames, self.changes = truth, frames, changes
        self.prompts: list[Prompt] = []
        self.walks: list[tuple[int, int | None]] = []

    def prompt(self, prompt: Prompt, *, keep_old: bool = False) -> FrameResult:
        assert keep_old or prompt.box_xyxy is not None
        self.prompts.append(prompt)
        return self._result(prompt.frame_index)

    def propagate(self, start: int, max_frames: int | None = None) -> Iterator[FrameResult]:
        self.walks.append((start, max_frames))
        for frame in range(start, min(self.frames, start + (max_frames or 0) + 1)):
            yield self._result(frame)

    def _result(self, frame: int) -> FrameResult:
        known = sorted({prompt.object_id for prompt in self.prompts if prompt.frame_index <= frame})
        masks = np.stack([self.mask(object_id, frame) for object_id in known])
        logits = torch.from_numpy(np.where(masks, 10.0, -10.0)).float()
        ones = torch.ones(len(known))
        return FrameResult(frame, 0.0, tuple(known), logits, ones, ones, *masks.shape[1:])

    def mask(self, object_id: int, frame: int) -> np.ndarray:
        mask = decode(self.truth[object_id][frame])
        behind = [p for p in self.prompts if p.object_id == object_id and p.frame_index <= frame]
        since = frame - max(p.frame_index for p in behind)
        if since:
            return np.pad(mask, ((0, 0), (since, 0)))[:, : mask.shape[1]]
        here = [p for p in behind if p.frame_index == frame]
        clicks = sum(len(p.points_xy) for p in here)
        if not clicks or here[0].box_xyxy is not None:
            return mask
        columns = np.flatnonzero(mask.any(axis=0))
        seen = mask.copy()
        seen[:, columns[len(columns) - len(columns) // 2**clicks :]] = False
        return seen
