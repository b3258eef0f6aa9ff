"""Masklets beside the truth: the same colour and number on both sides mean a match."""

from collections.abc import Mapping

import numpy as np

from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.render.overlay import draw_outlines, overlay

_MISSED = (255, 255, 255)


def draw_both(
    frame: np.ndarray, found: Mapping[int, Rle], true: Mapping[int, Rle], found_of: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A frame with masklets, and one with true masks, uint8 ``[H, W, 3]`` both.

    Args:
        frame: uint8 RGB ``[H, W, 3]``.
        found: mask of every masklet on the frame, by its number.
        true: mask of every true object on the frame, by its number.
        found_of: the masklet's number of each true object that was found; the others get a white outline.
    """
    known = [number for number in true if number in found_of]
    missed = [number for number in true if number not in found_of]
    truth = overlay(frame, _stack(frame, [true[n] for n in known]), [found_of[n] for n in known])
    truth = draw_outlines(truth, _stack(frame, [true[n] for n in missed]), [_MISSED] * len(missed))
    return overlay(frame, _stack(frame, list(found.values())), list(found)), truth


def _stack(frame: np.ndarray, masks: list[Rle]) -> np.ndarray:
    return np.stack([decode(mask) for mask in masks]) if masks else np.zeros((0, *frame.shape[:2]), bool)
