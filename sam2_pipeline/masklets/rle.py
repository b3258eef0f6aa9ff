"""COCO run-length masks: encode, decode, area, box, IoU, containment, union.

A mask is read down its columns, as COCO does; the runs alternate between background and object, beginning with
background. ``counts`` is COCO's compressed form, which goes straight into ``pycocotools.mask``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sam2_pipeline.errors import ConfigError

_MAX_GROUP = 7  # six-bit groups per run: 35 bits, more than any picture's pixels; longer ones are forged or corrupt


@dataclass(frozen=True, slots=True)
class Rle:
    """One mask of ``height`` x ``width`` pixels as COCO compressed, column-major run lengths.

    Checked on construction, since pycocotools trusts what it is given.

    Raises:
        ConfigError: a size is not positive, or the counts are malformed or do not add up to ``height * width``.
    """

    height: int
    width: int
    counts: bytes

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise ConfigError(f"RLE size is {self.height}x{self.width}, expected positive height and width")
        total = int(self.runs().sum())
        if total != self.height * self.width:
            pixels = self.height * self.width
            raise ConfigError(f"RLE counts add up to {total}, expected {self.height}x{self.width} = {pixels} pixels")

    @classmethod
    def from_coco(cls, mask: Mapping[str, Any]) -> "Rle":
        """Reads ``{"size": [height, width], "counts": ...}``; counts compressed (str, bytes) or a list of run lengths.

        Whole numbers written as floats are taken (SA-V writes them so).
        """
        missing = {"size", "counts"} - set(mask)
        if missing:
            raise ConfigError(f"RLE has keys {sorted(map(str, mask))}, expected size and counts")
        size = _whole_numbers(mask["size"], "size")
        if len(size) != 2:
            raise ConfigError(f"RLE size is {size.tolist()}, expected [height, width]")
        height, width = size.tolist()
        counts = mask["counts"]
        if isinstance(counts, str):
            if not counts.isascii():
                raise ConfigError("RLE counts hold characters outside ASCII, expected a compressed COCO string")
            counts = counts.encode()
        elif not isinstance(counts, bytes):
            counts = _compress(_whole_numbers(counts, "counts"))
        return cls(height, width, counts)

    @classmethod
    def empty(cls, height: int, width: int) -> "Rle":
        """A mask without a single pixel."""
        return cls(height, width, _compress(np.array([height * width])))

    @classmethod
    def from_runs(cls, height: int, width: int, runs: np.ndarray) -> "Rle":
        """From run lengths as `runs` gives them."""
        packed = coco.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        return cls(height, width, packed["counts"])

    def to_coco(self) -> dict[str, Any]:
        """``{"size": [height, width], "counts": str}``, as pycocotools and JSON take it."""
        return {"size": [self.height, self.width], "counts": self.counts.decode()}

    def runs(self) -> np.ndarray:
        """Run lengths, int64 ``[R]``: background first, then object and background in turn."""
        return _decompress(self.counts)

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(self.runs()[1::2].sum())

    @property
    def bbox_xywh(self) -> tuple[float, float, float, float]:
        """Smallest box around the object as (x, y, width, height) in pixels; all 0 for an empty mask."""
        x, y, width, height = coco.toBbox(_coco(self)).tolist()
        return x, y, width, height

    def __repr__(self) -> str:
        return f"Rle({self.height}x{self.width}, area={self.area})"


def encode(mask: np.ndarray) -> Rle:
    """One mask, bool or uint8 ``[H, W]`` (anything but 0 is object)."""
    if mask.ndim != 2:
        raise ConfigError(f"mask has shape {mask.shape}, expected [height, width]")
    return encode_columns(mask.T[None])[0]


def encode_batch(masks_NHW: np.ndarray) -> list[Rle]:
    """Masks, bool or uint8 ``[N, H, W]`` (anything but 0 is object)."""
    if masks_NHW.ndim != 3:
        raise ConfigError(f"masks have shape {masks_NHW.shape}, expected [number, height, width]")
    return encode_columns(masks_NHW.transpose(0, 2, 1))


def encode_columns(masks_NWH: np.ndarray) -> list[Rle]:
    """Masks that are transposed already, bool or uint8 ``[N, W, H]``; no copy is made when they are C-contiguous.

    A GPU transposes for nearly nothing, while the copy to column-major order costs more than the encoding.
    """
    if masks_NWH.ndim != 3:
        raise ConfigError(f"masks have shape {masks_NWH.shape}, expected [number, width, height]")
    if masks_NWH.dtype not in (np.bool_, np.uint8):
        raise ConfigError(f"masks are {masks_NWH.dtype}, expected bool or uint8")
    number, width, height = masks_NWH.shape
    if not number:
        return []
    if not width or not height:
        raise ConfigError(f"mask size is {height}x{width}, expected positive height and width")
    if masks_NWH.dtype == np.uint8 and masks_NWH.max() > 1:
        masks_NWH = masks_NWH != 0  # pycocotools would end a run at every change of value
    fortran_HWN = np.ascontiguousarray(masks_NWH).view(np.uint8).transpose(2, 1, 0)
    return [Rle(height, width, one["counts"]) for one in coco.encode(fortran_HWN)]


def decode(rle: Rle) -> np.ndarray:
    """The mask as bool ``[H, W]`` (column-major in memory, as the runs are)."""
    runs = rle.runs()
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rle.width, rle.height).T


def thin_out(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask squeezed to ``size`` (height, width) by taking the pixels at the new pixels' centres."""
    rows, columns = (((np.arange(new) + 0.5) * side / new).astype(int) for new, side in zip(size, mask_HW.shape))
    return mask_HW[np.ix_(rows, columns)]


def iou(a: Sequence[Rle], b: Sequence[Rle]) -> np.ndarray:
    """Intersection over union of every pair, float64 ``[len(a), len(b)]``; 0 where both are empty."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    _check_same_size([*a, *b])
    return np.asarray(coco.iou([_coco(x) for x in a], [_coco(x) for x in b], [0] * len(b)))


def share_inside(a: Sequence[Rle], b: Sequence[Rle]) -> np.ndarray:
    """Share of the pixels of every mask in ``a`` that lie inside each of ``b``, float64 ``[len(a), len(b)]``; 0 if empty."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    _check_same_size([*a, *b])
    return np.asarray(coco.iou([_coco(x) for x in a], [_coco(x) for x in b], [1] * len(b)))


def merge(masks: Sequence[Rle], intersect: bool = False) -> Rle:
    """Union of masks, or their intersection."""
    if not masks:
        raise ConfigError("no masks to merge, expected at least one")
    _check_same_size(masks)
    merged = coco.merge([_coco(x) for x in masks], intersect)
    return Rle(masks[0].height, masks[0].width, merged["counts"])


def _coco(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def _check_same_size(masks: Sequence[Rle]) -> None:
    sizes = sorted({(x.height, x.width) for x in masks})
    if len(sizes) > 1:
        raise ConfigError(f"masks have sizes {sizes} (height, width), expected one size")


def _whole_numbers(values: Any, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"RLE {what} is {type(values).__name__}, expected numbers") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any() or (numbers < 0).any():
        raise ConfigError(f"RLE {what} holds something else than whole numbers from 0")
    return numbers.astype(np.int64)


def _compress(runs: np.ndarray) -> bytes:
    """COCO's string: each run but the first three less the one two before it, in groups of five bits, low ones first."""
    deltas = runs.copy()
    deltas[3:] -= runs[1:-2]
    text = bytearray()
    for delta in deltas.tolist():
        while True:
            group = delta & 31
            delta >>= 5
            last = delta == (-1 if group & 16 else 0)
            text.append(48 + group + (0 if last else 32))
            if last:
                break
    return bytes(text)


def _decompress(counts: bytes) -> np.ndarray:
    """Inverse of `_compress`, vectorised because every mask that is made or read passes through it."""
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ConfigError(f"RLE counts {counts[:20]!r} are not a compressed COCO string")
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUP:
        raise ConfigError(f"RLE counts {counts[:20]!r} hold a run longer than any picture")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((groups & 31) << (5 * place), starts)
    runs -= np.where(groups[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise ConfigError(f"RLE counts {counts[:20]!r} hold a negative run")
    return runs
