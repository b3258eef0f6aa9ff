"""Which masklets of a video are one object, and which are parts of others: from run-length codes, none of which is decoded.

Discovery may take an object for new that is being tracked already, so afterwards masklets are compared over their whole lives.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.masklet import Masklet, MaskletSeed
from sam2_pipeline.masklets.rle import Rle, iou
from sam2_pipeline.masklets.statistics import MaskletStatistics


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """When masklets are one object, and when one is part of another.

    Attributes:
        merge_iou: automatic masklets whose temporal IoU is higher are duplicates, of which the better one stays; so is one that
            overlaps so much with a longer one on all frames on which it is visible. None: all are kept.
        part_share: a masklet is part of another that holds at least this share of its pixels over time. None: no parents.
    """

    merge_iou: float | None = 0.8
    part_share: float | None = 0.9

    def __post_init__(self) -> None:
        for name in ("merge_iou", "part_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"identity.{name} is {value}, expected a number above 0 and up to 1, or none")


@dataclass(frozen=True, slots=True)
class TimeOverlaps:
    """How N masklets overlap in space and time, in pixels summed over frames.

    Attributes:
        masklet_ids: rows and columns.
        volume_N: pixels of each.
        frames_N: on how many frames each is visible.
        shared_NN: pixels common to two.
        beside_NN: pixels of the column's masklet on the frames on which the row's is visible.
    """

    masklet_ids: tuple[int, ...]
    volume_N: np.ndarray
    frames_N: np.ndarray
    shared_NN: np.ndarray
    beside_NN: np.ndarray

    @property
    def iou_NN(self) -> np.ndarray:
        """Temporal IoU: pixels that two have in common over those that either has; 0 of a masklet with itself."""
        return _apart(self.shared_NN, self.volume_N[:, None] + self.volume_N - self.shared_NN)

    @property
    def iou_while_visible_NN(self) -> np.ndarray:
        """The same over the frames on which the row's masklet is visible; never below the temporal IoU."""
        return _apart(self.shared_NN, self.volume_N[:, None] + self.beside_NN - self.shared_NN)

    @property
    def share_inside_NN(self) -> np.ndarray:
        """Share of the row's pixels that lie inside the column's masklet."""
        return _apart(self.shared_NN, np.broadcast_to(self.volume_N[:, None], self.shared_NN.shape))


def overlaps_over_time(masklet_ids: Iterable[int], frames: Iterable[Mapping[int, Rle]]) -> TimeOverlaps:
    """Adds up overlaps frame by frame; ``frames`` give the masks that are visible, by masklet id, in any order."""
    ids = tuple(sorted(masklet_ids))
    place = {masklet_id: n for n, masklet_id in enumerate(ids)}
    volume_N, frames_N = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    shared_NN, beside_NN = (np.zeros((len(ids), len(ids))) for _ in range(2))
    for masks in frames:
        seen = {place[masklet_id]: (rle, area) for masklet_id, rle in masks.items() if (area := rle.area)}
        if not seen:
            continue
        rows, rles = list(seen), [rle for rle, _ in seen.values()]
        area_n = np.array([area for _, area in seen.values()])
        iou_nn = iou(rles, rles)
        volume_N[rows] += area_n
        frames_N[rows] += 1
        block = np.ix_(rows, rows)
        shared_NN[block] += np.rint(iou_nn * (area_n[:, None] + area_n) / (1 + iou_nn))  # from i / (a + b - i)
        beside_NN[block] += area_n
    return TimeOverlaps(ids, volume_N, frames_N, shared_NN, beside_NN)


def identify(
    seeds: Sequence[MaskletSeed], overlaps: TimeOverlaps, quality: Mapping[int, float], options: IdentityOptions
) -> dict[int, MaskletSeed]:
    """The masklets that stay, by their numbers until now: numbered anew from 0, and with their parents.

    Of duplicates the one of the higher ``quality`` stays, or the one with the lower number. Only automatic masklets are merged: a
    prompted one was asked for.
    """
    place = {masklet_id: n for n, masklet_id in enumerate(overlaps.masklet_ids)}
    kept = list(place.values())
    if options.merge_iou is not None:
        automatic = {place[seed.masklet_id] for seed in seeds if seed.kind == "auto"}
        quality_N = [quality[masklet_id] for masklet_id in overlaps.masklet_ids]
        dropped = duplicates(overlaps, quality_N, options.merge_iou, automatic)
        kept = [n for n in kept if n not in dropped]
    new = {n: number for number, n in enumerate(kept)}
    parents = {} if options.part_share is None else find_parents(overlaps, kept, options.part_share)
    found = {}
    for seed in sorted(seeds, key=lambda seed: seed.masklet_id):
        n = place[seed.masklet_id]
        if n in new:
            parent = new[parents[n]] if n in parents else None
            found[seed.masklet_id] = replace(seed, masklet_id=new[n], parent_masklet_id=parent)
    return found


def identify_masklets(masklets: Sequence[Masklet], options: IdentityOptions) -> list[Masklet]:
    """`identify` for masklets of one video that are in memory."""
    visible: dict[int, dict[int, Rle]] = {}
    quality = {}
    for masklet in masklets:
        statistics = MaskletStatistics()
        for frame in masklet.frames:
            statistics.add(frame)
            visible.setdefault(frame.frame_index, {})[masklet.masklet_id] = frame.rle
        quality[masklet.masklet_id] = quality_of(statistics.row())
    kept = identify([masklet.seed for masklet in masklets], overlaps_over_time(quality, visible.values()), quality, options)
    return [replace(masklet, seed=kept[masklet.masklet_id]) for masklet in masklets if masklet.masklet_id in kept]


def duplicates(overlaps: TimeOverlaps, quality_N: Sequence[float], threshold: float, candidates: Collection[int]) -> set[int]:
    """Rows of ``candidates`` that can go: worse ones of pairs with a higher temporal IoU, then pieces of longer masklets."""
    order = sorted(candidates, key=lambda n: (-quality_N[n], n))
    kept: list[int] = []
    iou_NN = overlaps.iou_NN
    for n in order:
        if not (iou_NN[n, kept] > threshold).any():
            kept.append(n)
    longest_first = sorted(kept, key=lambda n: (-int(overlaps.frames_N[n]), -quality_N[n], n))
    kept, while_visible_NN = [], overlaps.iou_while_visible_NN
    for n in longest_first:
        if not (while_visible_NN[n, kept] > threshold).any():
            kept.append(n)
    return set(candidates) - set(kept)


def find_parents(overlaps: TimeOverlaps, rows: Sequence[int], threshold: float) -> dict[int, int]:
    """For every one of ``rows`` that is part of others of them, the smallest of these. A part has fewer pixels than its whole."""
    inside_NN, volume_N = overlaps.share_inside_NN, overlaps.volume_N
    parents = {}
    for n in rows:
        wholes = [w for w in rows if inside_NN[n, w] >= threshold and volume_N[w] > volume_N[n]]
        if wholes:
            parents[n] = min(wholes, key=lambda w: (volume_N[w], w))
    return parents


def quality_of(statistics: Mapping[str, float | None]) -> float:
    """How good a masklet is, by its row of the masklets table: mean predicted IoU times mean stability; 0 if never visible."""
    return (statistics["predicted_iou_mean"] or 0.0) * (statistics["stability_score_mean"] or 0.0)


def _apart(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients, 0 where there is nothing and between a masklet and itself."""
    share = part / np.maximum(whole, 1)
    np.fill_diagonal(share, 0.0)
    return share
