"""What of a picture is compared to find where shots end: little, so that hundreds a second can be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE, _CELL = 64, 4  # pictures are compared at 64 x 64 pixels, and where they are bright at 16 x 16
_LEVELS = 8  # of each colour, in the histogram


@dataclass(frozen=True, slots=True)
class Look:
    """What is compared of a picture: shares of its colours ``[512]``, its brightness ``[16, 16]`` with mean 0 and length 1 (or 0,
    where all is equally bright), and itself at 16 x 16, float32 ``[768]``."""

    colours: np.ndarray
    brightness: np.ndarray
    small: np.ndarray

    @classmethod
    def at(cls, image_HW3: np.ndarray) -> Look:
        picture = np.asarray(Image.fromarray(image_HW3).resize((_SIDE, _SIDE), Image.Resampling.BOX))
        level = (picture // (256 // _LEVELS)).astype(np.int64)
        bins = (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]
        colours = np.bincount(bins.ravel(), minlength=_LEVELS**3) / bins.size
        cells = _SIDE // _CELL
        small = picture.reshape(cells, _CELL, cells, _CELL, 3).mean(axis=(1, 3))
        grey = small.mean(axis=2)
        grey -= grey.mean()
        length = np.linalg.norm(grey)
        brightness = grey / length if length > cells else np.zeros_like(grey)  # less than a grey level is noise
        return cls(colours, brightness, small.astype(np.float32).ravel())

    def unlike(self, other: Look) -> float:
        """0 for the same colours or the same picture, 1 for other colours in another arrangement."""
        colours = 1 - np.minimum(self.colours, other.colours).sum()
        arrangement = min(1.0, 1 - float((self.brightness * other.brightness).sum()))
        return float(np.sqrt(max(colours, 0.0) * max(arrangement, 0.0)))
