"""What a run leaves to read: ``log.csv``, and sheets of pictures with what was predicted."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.training.clip_forward import Outcome
from sam2_pipeline.training.loading import Batch
from sam2_pipeline.training.saving import write_whole

_ROWS, _COLUMNS = 6, 8
_PREDICTED, _TRUE = (255, 60, 60), (60, 255, 90)


class Journal:
    """``log.csv`` in ``folder``, continued from step ``first_step``: lines of steps that will be done again are dropped.

    Among the columns: ``skipped`` clips, ``lost`` steps (their gradient was not finite), seconds ``waited`` for clips
    since the run was started or continued.
    """

    columns = ("step", "total", "focal", "dice", "iou", "presence", "pixels", "overlap", "rate", "norm", "skipped",
               "lost", "waited", "seconds")  # fmt: skip

    def __init__(self, folder: Path, first_step: int) -> None:
        self.path = folder / "log.csv"
        kept = []
        if self.path.exists() and first_step:
            with open(self.path, newline="") as file:
                # A line cut off by a crash has too few columns, and comes after the step that was saved.
                kept = [row for row in csv.DictReader(file) if row["step"].isdecimal() and int(row["step"]) < first_step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_whole(self.path, text.getvalue().encode())

    def add(self, values: Mapping[str, float]) -> None:
        with open(self.path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(
                str(values[name]) if isinstance(values[name], int) else f"{values[name]:.9g}" for name in self.columns
            )


def sheet(batch: Batch, outcome: Outcome) -> Image.Image:
    """Objects below each other, their frames beside each other: the mask in red, the outline of the truth in green."""
    T, N = outcome.logits_TNHW.shape[:2]
    side = batch.frames_VT3SS.shape[-1]
    lines = []
    for n in range(min(N, _ROWS)):
        frames = batch.frames_VT3SS[batch.lanes_N[n]].permute(0, 2, 3, 1).cpu().numpy()
        predicted = (resize_maps(outcome.logits_TNHW[:, n, None], (side, side))[:, 0] > 0).cpu().numpy()
        truth = batch.masks_TNSS[:, n].cpu().numpy()
        lines.append(np.concatenate([_painted(frames[t], predicted[t], truth[t]) for t in range(min(T, _COLUMNS))], axis=1))
    return Image.fromarray(np.concatenate(lines))


def save_sheet(path: Path, batch: Batch, outcome: Outcome) -> None:
    stored = io.BytesIO()
    sheet(batch, outcome).save(stored, "PNG")
    path.parent.mkdir(exist_ok=True)
    write_whole(path, stored.getvalue())


def _painted(frame: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    picture = frame.copy()
    picture[predicted] = (picture[predicted] * 0.5 + np.array(_PREDICTED) * 0.5).astype(np.uint8)
    inside = truth.copy()
    inside[1:-1, 1:-1] &= truth[:-2, 1:-1] & truth[2:, 1:-1] & truth[1:-1, :-2] & truth[1:-1, 2:]
    inside[[0, -1]] = inside[:, [0, -1]] = False
    picture[truth & ~inside] = _TRUE
    return picture


def numbers(values: Mapping[str, torch.Tensor | float | int]) -> dict[str, float]:
    """Plain numbers, fetched from the device."""
    return {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
