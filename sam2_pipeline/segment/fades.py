"""Gradual transitions: dissolves, and fades from and to one colour. Plain NumPy, no network.

While one picture is dissolved into another, what is seen is a mixture of the two, whose share of the second grows from nothing
to all. A pan or a zoom gives pictures that are no mixture of the first and the last; nor does something large that comes into
view, or a wipe, since it shows each place as either the one or the other. The pictures at both ends have to be unlike, too, so
that light that is dimmed is none. Scenes move on while they are dissolved; what that adds has to stay small.

Measured: of 24 dissolves between three real videos, over 5 to 15 frames, all; of 48 fades to and from black between them, all;
nothing on their 776 other frames. Between synthetic scenes, whose objects and cameras hurry: 18, 17, 16 and 12 of 20 dissolves
over 5, 8, 12 and 15 frames, all of 40 fades through black, nothing on 1600 other frames (on as many wilder ones: 5 times).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam2_pipeline.segment.looks import Look

_UNLIKE = 2.0  # what is at both ends has to be more unlike than across a cut, since more time goes by, by this factor
SHORTEST = 3  # frames from the last picture of one shot to the first of the next
_LEFTOVER = 0.3  # of a picture that is not in the mixture, as a share of the difference of both ends
_ENDED = 0.6  # of the usual growth of the second picture's share: beyond the ends it grows less
_SHRINKS, _JUMPS = -0.05, 2.5  # the least that the second picture's share may grow in a frame, and the most, in means


def is_faded(before: Sequence[Look], after: Sequence[Look], threshold: float, longest: int) -> bool:
    """Whether a gradual transition of ``longest`` frames at most has just ended, so that a shot begins with ``after``.

    ``before`` are the latest pictures of the shot so far, one more than ``longest`` if there are as many.
    """
    if len(after) < 2 or len(before) <= SHORTEST:
        return False
    end, latest = after[0], np.stack([look.small for look in after])
    past = np.stack([look.small for look in before])
    for length in range(SHORTEST, min(longest + 1, len(past))):
        start = before[-length]
        if start.unlike(end) > _UNLIKE * threshold and _is_mixture(past[-length:], latest, past[-length - 1]):
            return True
    return False


def _is_mixture(pictures_TC: np.ndarray, after_TC: np.ndarray, earlier_C: np.ndarray) -> bool:
    """Whether ``pictures_TC`` lead from the first of them to the first of those ``after``, and neither go on then, nor began
    with ``earlier_C`` already."""
    start, end = pictures_TC[0], after_TC[0]
    way = end - start
    length = float(way @ way)
    if not length:
        return False
    moved = np.concatenate([pictures_TC[1:], after_TC[:1]]) - start
    share = moved @ way / length
    left = np.sqrt(np.maximum((moved * moved).sum(axis=1) / length - share**2, 0))
    steps, mean = np.diff(share, prepend=0.0), 1 / len(share)
    if left.max() > _LEFTOVER or steps.min() < _SHRINKS or steps.max() > _JUMPS * mean:
        return False
    beyond = (after_TC[1] - end) @ way, (start - earlier_C) @ way
    return max(beyond) / length < _ENDED * mean
