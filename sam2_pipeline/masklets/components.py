"""Connected pieces of a run-length mask, and its outline, without ever drawing the mask.

Pixels that touch by a side or a corner belong together (8-connectivity), object and background alike, as in SAM's and SAM 2's
own cleaning. What is linked here are the runs within columns: some hundred per mask instead of a million pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Pieces:
    """Runs of one kind of pixels within columns, ``starts[i] .. ends[i] - 1`` of the column ``columns[i]``, in order of reading
    down the columns; int64 ``[R]`` each.

    Attributes:
        height, width: the picture's.
    """

    height: int
    width: int
    columns: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, runs: np.ndarray, height: int, width: int, *, background: bool = False) -> Pieces:
        """The pieces of the object, or of the ``background``, of a mask in run lengths as `Rle.runs` gives them."""
        edges = np.concatenate([[0], np.cumsum(runs)])
        begin, end = edges[:-1][not background :: 2], edges[1:][not background :: 2]
        begin, end = begin[begin < end], end[begin < end]
        first, last = begin // height, (end - 1) // height
        counts = last - first + 1
        run, place = _spread(counts)
        columns = first[run] + place
        starts = np.maximum(begin[run] - columns * height, 0)
        ends = np.minimum(end[run] - columns * height, height)
        return cls(height, width, columns, starts, ends)

    @cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(how many pieces of the next column each piece touches, which those are, by how many pixels side to side)."""
        stride = self.height + 1  # with a gap between columns, so that none touches the one after the next
        starts, ends = self.columns * stride + self.starts, self.columns * stride + self.ends
        low = np.searchsorted(ends, starts + stride, side="left")
        high = np.searchsorted(starts, ends + stride, side="right")
        counts = np.maximum(high - low, 0)
        one, place = _spread(counts)
        other = low[one] + place
        shared = np.minimum(ends[one] + stride, ends[other]) - np.maximum(starts[one] + stride, starts[other])
        return counts, other, np.maximum(shared, 0)

    @cached_property
    def labels(self) -> tuple[int, np.ndarray]:
        """(number of components, the component of every piece)."""
        number = len(self.starts)
        if number < 2:
            return number, np.zeros(number, np.int64)
        counts, other, _ = self.neighbours
        links = csr_array((np.ones(len(other), np.int8), other, np.concatenate([[0], np.cumsum(counts)])), (number, number))
        found, labels = connected_components(links, directed=False)
        return int(found), labels

    @property
    def number(self) -> int:
        """How many components there are."""
        counts, other, _ = self.neighbours
        if len(other) < 2 or ((np.diff(other) > 0).all() and counts.max() < 2):  # chains, so each link saves one component
            return len(counts) - len(other)
        return self.labels[0]

    @property
    def areas(self) -> np.ndarray:
        """Pixels of every component, int64."""
        number, labels = self.labels
        return np.bincount(labels, self.ends - self.starts, number).astype(np.int64)

    def select(self, components: np.ndarray) -> Pieces:
        """Only the components for which the bool array is true."""
        keep = components[self.labels[1]]
        return Pieces(self.height, self.width, self.columns[keep], self.starts[keep], self.ends[keep])

    def runs(self) -> np.ndarray:
        """Run lengths of the mask that the pieces make, as `Rle.runs` gives them."""
        starts, ends = self.columns * self.height + self.starts, self.columns * self.height + self.ends
        # a run goes on over the foot of a column into the head of the next
        joined = np.flatnonzero(starts[1:] == ends[:-1])
        edges = np.stack([np.delete(starts, joined + 1), np.delete(ends, joined)], axis=1).ravel()
        runs = np.diff(edges, prepend=0, append=self.height * self.width)
        return runs if runs[-1] else runs[:-1]

    def outline(self) -> tuple[int, int]:
        """(sides of pixels where the object ends, holes too, those of them that lie on the picture's border)."""
        lengths = self.ends - self.starts
        total = 2 * len(lengths) + 2 * int(lengths.sum()) - 2 * int(self.neighbours[2].sum())
        left, right = lengths[self.columns == 0].sum(), lengths[self.columns == self.width - 1].sum()
        ends = np.count_nonzero(self.starts == 0) + np.count_nonzero(self.ends == self.height)
        return total, int(left + right + ends)


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts 2, 0, 3: (0, 0, 2, 2, 2) and (0, 1, 0, 1, 2)."""
    one = np.repeat(np.arange(len(counts)), counts)
    return one, np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
