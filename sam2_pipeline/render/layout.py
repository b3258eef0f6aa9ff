"""Frames beside and below each other: comparisons and contact sheets."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.render.overlay import write

_GAP, _PAPER = 4, 24  # pixels between pictures, and how bright it is there


def beside(frames: Sequence[np.ndarray], captions: Sequence[str] = ()) -> np.ndarray:
    """Frames of one height in a row, uint8 ``[H, W, 3]``; with captions, each gets one in its upper left corner."""
    if captions:
        frames = [write(frame, text, (4, 3)) for frame, text in zip(frames, captions, strict=True)]
    if not frames or len({len(frame) for frame in frames}) > 1:
        raise ConfigError(f"frames are {[frame.shape for frame in frames]}, expected some, of one height")
    gap = np.full((len(frames[0]), _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([piece for frame in frames for piece in (gap, frame)][1:], axis=1)


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of frames below each other, uint8 ``[H, W, 3]``; shorter rows are filled with paper."""
    lines = [beside(row) for row in rows]
    if not lines:
        raise ConfigError("a sheet of 0 rows, expected at least one")
    width = max(line.shape[1] for line in lines)
    sheet = [np.pad(line, ((0, _GAP), (0, width - line.shape[1]), (0, 0)), constant_values=_PAPER) for line in lines]
    return np.concatenate(sheet)[:-_GAP]


def fit(frame: np.ndarray, width: int) -> np.ndarray:
    """A frame scaled to a width, its aspect ratio kept."""
    height = max(round(frame.shape[0] * width / frame.shape[1]), 1)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
