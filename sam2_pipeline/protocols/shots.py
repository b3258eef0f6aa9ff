"""Shot changes beside the true ones: whether they are found, and whether a masklet goes on across one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam2_pipeline.formats.masks import Masks


@dataclass(frozen=True, slots=True)
class ShotChange:
    """``first``: the first frame that shows anything of the next shot; ``last``: the first that shows nothing else. The same for
    a cut. Objects on either side are others."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ShotScore:
    """Of one video.

    Attributes:
        changes: true ones, and ``found``, how many of them are.
        claimed: what was taken for one; None where shots were not looked for.
        masklets: those that are ever visible, and ``crossing``, how many of them are visible on both sides of a true change.
    """

    changes: int
    found: int
    claimed: int | None
    masklets: int
    crossing: int


def score_shots(predicted: Masks, changes: Sequence[ShotChange], claimed: Sequence[int] | None) -> ShotScore:
    """``claimed`` are the frames with which shots are said to begin: rightly, if one picture becomes the other there."""
    found = sum(any(change.first <= frame <= change.last for frame in claimed or ()) for change in changes)
    seen = [frames for masks in predicted.values() if (frames := sorted(t for t, mask in masks.items() if mask.area))]
    crossing = sum(any(frames[0] < change.first and frames[-1] >= change.last for change in changes) for frames in seen)
    return ShotScore(len(changes), found, None if claimed is None else len(claimed), len(seen), crossing)


def shot_figures(videos: Iterable[ShotScore]) -> Mapping[str, Any]:
    """Over all videos, as JSON holds it; shares are None where there is nothing to share, or shots were not looked for."""
    videos = list(videos)
    changes, found, masklets, crossing = (
        sum(getattr(video, name) for video in videos) for name in ("changes", "found", "masklets", "crossing")
    )
    claimed = sum(video.claimed or 0 for video in videos)
    looked_for = any(video.claimed is not None for video in videos)
    return {
        "shot_changes": changes,
        "shot_changes_claimed": claimed if looked_for else None,
        "shot_change_recall": found / changes if changes and looked_for else None,
        "shot_change_precision": found / claimed if claimed else None,
        "masklets_across_shots": crossing,
        "masklets_across_shots_share": crossing / masklets if masklets else None,
    }
