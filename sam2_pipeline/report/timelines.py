"""When the masklets of a video are visible."""

from dataclasses import dataclass

import numpy as np

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.render.overlay import colour


@dataclass(frozen=True, slots=True)
class Line:
    """A masklet: its colour, and (start, length) of the times when it is visible, in percent of the video."""

    masklet_id: int
    colour: str
    spans: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A video. ``middle`` is the annotated frame in its middle."""

    video_id: str
    duration_s: float
    middle: int
    lines: tuple[Line, ...]


def timeline(dataset: MaskletDataset, video_id: str) -> Timeline:
    """A mask stands for the time until the next annotated frame."""
    table = dataset.masks(video_id, columns=["masklet_id", "frame_index", "timestamp_s", "area"])
    ids, frames, times, areas = (table[name].to_numpy() for name in table.column_names)
    starts = np.unique(times)
    step = float(np.diff(starts).max(initial=0)) or 1.0
    end = max(float(dataset.videos(video_id, columns=["duration_s"])["duration_s"][0].as_py() or 0), float(starts[-1]) + 1e-6)
    ends = np.append(starts[1:], min(starts[-1] + step, end))
    lines = []
    for number in np.unique(ids).tolist():
        visible = areas[ids == number] > 0
        lines.append(Line(number, "#{:02x}{:02x}{:02x}".format(*colour(number)), _spans(visible, starts, ends, end)))
    numbers = np.unique(frames)
    return Timeline(video_id, end, int(numbers[len(numbers) // 2]), tuple(lines))


def _spans(visible: np.ndarray, starts: np.ndarray, ends: np.ndarray, total: float) -> tuple[tuple[float, float], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], visible, [False]]).astype(np.int8)))
    runs = zip(edges[::2], edges[1::2])
    return tuple((100 * starts[a] / total, 100 * (ends[b - 1] - starts[a]) / total) for a, b in runs)
