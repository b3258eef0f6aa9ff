"""Masklets of what is no object and may well be segmented: ground, sky, an island in a backdrop. The truth does not ask for them,
as no data set's does; who segments everything finds them and is not wrong."""

import numpy as np

from sam2_pipeline.evaluation.matching import overlaps
from sam2_pipeline.evaluation.scores import FOUND
from sam2_pipeline.formats.masks import Masks


def on_scenery(predicted: Masks, true: Masks, scenery: Masks) -> frozenset[int]:
    """The masklets that have an IoU of `FOUND` or more with a region of the scenery, and less with every true object; means over
    the frames on which either is visible."""
    if not predicted or not scenery:
        return frozenset()
    to_scenery, to_objects = (overlaps(predicted, masks).mean_PG.max(axis=1, initial=0.0) for masks in (scenery, true))
    found = (to_scenery >= FOUND) & (to_scenery > to_objects)
    return frozenset(np.array(list(predicted))[found].tolist())
