"""Drawing one frame: look-ups into packed pictures (see `textures`), and blending two channels at a time."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sam2_pipeline.training.synthetic.motion import Camera, Motion
from sam2_pipeline.training.synthetic.sprites import Sprite

_EVEN = np.uint32(0x00FF00FF)  # red and blue
_ODD = np.uint32(0xFF00FF00)  # green and opacity
_LONGEST_BLUR = 24  # pixels


@dataclass(frozen=True)
class Backdrop:
    """The background: a picture that repeats (packed, ``[S, S]``, S a power of two) and how it lies in the world.

    Attributes:
        surfaces: of which surface each of its pixels is, uint8 ``[S, S]``.
        density: its pixels to one of the world.
        drift_T2: which of its pixels lies at the origin of the world.
        ripple: height of waves that run through it, in its pixels.
        blur_T2: how far it moves while the shutter is open, in the picture's pixels.
    """

    pixels: np.ndarray
    surfaces: np.ndarray
    density: float
    drift_T2: np.ndarray
    ripple: float
    blur_T2: np.ndarray

    def draw(self, camera: Camera, t: int, height: int, width: int) -> np.ndarray:
        """Packed pixels ``[height, width]``."""
        offsets = _blur_offsets(self.blur_T2[t])
        margin = int(np.abs(offsets).max())
        return _smeared(self.pixels.ravel().take(self._index(camera, t, height, width, margin)), offsets, margin)

    @cached_property
    def islands(self) -> np.ndarray:
        """Of which connected region of a surface each of its pixels is, int32 ``[S, S]``: 0, 1, ..."""
        return _islands(self.surfaces)

    def draw_islands(self, camera: Camera, t: int, height: int, width: int) -> np.ndarray:
        """The region that each pixel shows, int32 ``[height, width]``."""
        return self.islands.ravel().take(self._index(camera, t, height, width, 0))

    def _index(self, camera: Camera, t: int, height: int, width: int, margin: int) -> np.ndarray:
        """Which of its pixels is seen at each of the picture's and of those ``margin`` about it."""
        step = self.density / camera.zoom_T[t]
        c, s = np.cos(camera.roll_T[t]) * step, np.sin(camera.roll_T[t]) * step
        x = np.arange(-margin, width + margin) + 0.5 - camera.middle_2[0]
        y = np.arange(-margin, height + margin) + 0.5 - camera.middle_2[1]
        start = camera.centre_T2[t] * self.density + self.drift_T2[t]
        # Waves that change along the other axis only: two curves, not two pictures.
        u = _outer_sum(s * y + start[0] + self.ripple * np.sin(y * 0.11 + t * 0.21), c * x)
        v = _outer_sum(c * y + start[1], -s * x + self.ripple * np.sin(x * 0.09 - t * 0.17))
        size = np.int32(len(self.pixels))
        return (v.astype(np.int32) & (size - 1)) * size + (u.astype(np.int32) & (size - 1))


@dataclass(slots=True)
class Canvas:
    """A frame in the making: packed pixels, and the topmost object of every pixel (0 none, else its number + 1)."""

    pixels: np.ndarray
    labels: np.ndarray

    def add(self, sprite: Sprite, motion: Motion, t: int, label: int, shadow: tuple[float, float, float] | None) -> None:
        """Draws an object before everything drawn so far.

        ``label`` is its own, its parts have the following ones. ``shadow`` is (x, y, darkness): how far from the object, in
        its radii, and how dark, 0..1.
        """
        offsets = _blur_offsets(motion.blur_T2[t])
        margin = int(np.abs(offsets).max())
        radius = float(np.hypot(*motion.forward_T22[t, :, 1]))
        throw = (0, 0) if shadow is None else (round(shadow[0] * radius), round(shadow[1] * radius))
        x0, y0, x1, y1 = self._window(sprite, motion, t, margin, throw, softness=0 if shadow is None else 0.2)
        if x0 >= x1 or y0 >= y1:
            return
        x0, y0, x1, y1 = x0 - margin, y0 - margin, x1 + margin, y1 + margin  # what blur reaches out for
        index = _sprite_index(sprite.size, motion, t, np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        if shadow is not None:
            self._darken(sprite.shadow.take(index), x0 + throw[0], y0 + throw[1], shadow[2])
        pixels = sprite.pixels.take(index)
        self._blend(_smeared(pixels, offsets, margin), x0 + margin, y0 + margin)
        covered = pixels >= np.uint32(128 << 24)
        labels = np.uint8(label) if sprite.parts is None else sprite.parts.take(index) + np.uint8(label)
        self._label(labels, covered, x0, y0)

    def _window(
        self, sprite: Sprite, motion: Motion, t: int, margin: int, throw: tuple[int, int], softness: float
    ) -> tuple[int, int, int, int]:
        """The rectangle to look up, (x0, y0, x1, y1): around the object, no further than can be seen."""
        low, high = np.array(sprite.box[:2]), np.array(sprite.box[2:])
        room = (high - low) / 2 + np.abs(motion.sway_K2).sum(0) + softness
        middle = motion.centre_T2[t] + motion.forward_T22[t] @ (low + high) / 2
        reach = np.abs(motion.forward_T22[t]) @ room
        (left, top), (right, bottom) = (middle - reach).tolist(), (middle + reach).tolist()
        height, width = self.labels.shape
        return (
            int(max(math.floor(left), min(0, -throw[0]) - margin)),
            int(max(math.floor(top), min(0, -throw[1]) - margin)),
            int(min(math.ceil(right), width + max(0, -throw[0]) + margin)),
            int(min(math.ceil(bottom), height + max(0, -throw[1]) + margin)),
        )

    def _darken(self, shadow: np.ndarray, x: int, y: int, darkness: float) -> None:
        target, source = _overlap(self.pixels.shape, shadow.shape, x, y)
        strength = np.uint32(round(darkness * 256))
        kept = np.uint32(255) - (shadow[source] * strength >> np.uint32(8))
        self.pixels[target] = _scaled(self.pixels[target], kept)

    def _blend(self, pixels: np.ndarray, x: int, y: int) -> None:
        target, source = _overlap(self.pixels.shape, pixels.shape, x, y)
        above = pixels[source]
        self.pixels[target] = above + _scaled(self.pixels[target], np.uint32(255) - (above >> np.uint32(24)))

    def _label(self, labels: np.ndarray | np.uint8, covered: np.ndarray, x: int, y: int) -> None:
        target, source = _overlap(self.labels.shape, covered.shape, x, y)
        np.copyto(self.labels[target], labels[source] if isinstance(labels, np.ndarray) else labels, where=covered[source])


def _islands(surfaces: np.ndarray) -> np.ndarray:
    """Connected regions (by sides) of equal values in a picture that repeats, numbered from 0."""
    labels, count = np.zeros(surfaces.shape, np.int32), 0
    for surface in np.unique(surfaces):
        here = surfaces == surface
        found, number = ndimage.label(here)
        labels[here] = found[here] - 1 + count
        count += number
    seams = np.stack([np.concatenate((labels[end], labels[:, end])) for end in (0, -1)])
    same = np.equal(*(np.concatenate((surfaces[end], surfaces[:, end])) for end in (0, -1)))
    joined = coo_array((np.ones(same.sum(), bool), tuple(seams[:, same])), shape=(count, count))
    return connected_components(joined, directed=False)[1][labels]


def _overlap(canvas: tuple[int, ...], patch: tuple[int, ...], x: int, y: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch whose corner is put at (x, y) meets the canvas: slices of the canvas, and of the patch."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = max(min(y + patch[0], canvas[0]), top), max(min(x + patch[1], canvas[1]), left)
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def _scaled(pixels: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Packed pixels times ``by`` / 255 (uint32 0..255), exact at both ends."""
    even = ((pixels & _EVEN) * by + _EVEN) >> np.uint32(8)
    odd = ((pixels >> np.uint32(8)) & _EVEN) * by + _EVEN
    return (even & _EVEN) | (odd & _ODD)


def _sprite_index(size: int, motion: Motion, t: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which pixel of a sprite is seen at each of the picture's, int32 ``[len(y), len(x)]``."""
    (a, b), (c, d) = motion.inverse_T22[t]
    x, y = x - motion.centre_T2[t, 0], y - motion.centre_T2[t, 1]
    u, v = _outer_sum(b * y, a * x), _outer_sum(d * y, c * x)
    bends = []
    for (wu, wv), sway, phase in zip(motion.wave_K2, motion.sway_K2, motion.phase_TK[t]):
        if sway.any():
            along_y, along_x = (wu * b + wv * d) * y + phase, (wu * a + wv * c) * x
            bends.append((np.sin(_outer_sum(along_y, along_x)), sway.astype(np.float32)))
    for bend, sway in bends:
        u += bend * sway[0]
        v += bend * sway[1]
    return _pixel(v, size) * np.int32(size) + _pixel(u, size)


def _pixel(coordinate: np.ndarray, size: int) -> np.ndarray:
    """-1..1 to 0..size - 1, what is outside to the border (in place)."""
    coordinate += np.float32(1)
    coordinate *= np.float32(size / 2)
    np.clip(coordinate, 0, size - 1, out=coordinate)
    return coordinate.astype(np.int32)


def _outer_sum(down: np.ndarray, across: np.ndarray) -> np.ndarray:
    return down.astype(np.float32)[:, None] + across.astype(np.float32)


def _blur_offsets(way: np.ndarray) -> np.ndarray:
    """Whole pixels (x, y) ``[1, 2, 4 or 8, 2]`` along a way, about its middle."""
    length = math.hypot(*way.tolist())
    if length < 1.2:
        return np.zeros((1, 2), int)
    count = 2 if length < 2.5 else 4 if length < 5 else 8
    way = way * min(1, _LONGEST_BLUR / length)
    return np.round(np.outer(np.linspace(-0.5, 0.5, count), way)).astype(int)


def _smeared(pixels: np.ndarray, offsets: np.ndarray, margin: int) -> np.ndarray:
    """Mean of a packed picture moved by each offset, cut by ``margin`` on all sides."""
    height, width = pixels.shape[0] - 2 * margin, pixels.shape[1] - 2 * margin
    if len(offsets) == 1:
        return pixels[margin : margin + height, margin : margin + width]
    even, odd = pixels & _EVEN, (pixels >> np.uint32(8)) & _EVEN
    moved = [(slice(margin - y, margin - y + height), slice(margin - x, margin - x + width)) for x, y in offsets]
    shift = np.uint32(len(offsets).bit_length() - 1)
    even_sum, odd_sum = (sum((half[where] for where in moved[1:]), half[moved[0]]) for half in (even, odd))
    return ((even_sum >> shift) & _EVEN) | (((odd_sum >> shift) & _EVEN) << np.uint32(8))
