"""Objects and backgrounds as pictures, made once per scene; drawing a frame only looks them up.

Pixels are packed as in `textures`; colours of sprites are multiplied by their opacity.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from sam2_pipeline.training.synthetic.shapes import draw_shape
from sam2_pipeline.training.synthetic.textures import pack, smooth_noise, unpack

Surface = Callable[[Generator, int], np.ndarray]  # (rng, size) -> packed [size, size]

_PART_SHAPES = ("blob", "convex", "box", "star", "ring", "crescent", "letter")
_COARSE = 4  # shading and shadows are smooth and need no more than every fourth pixel


@dataclass(frozen=True, slots=True)
class Sprite:
    """How an object looks, over the square from -1 to 1.

    Attributes:
        size: pixels to a side.
        pixels: uint32 ``[size * size]``, packed, premultiplied.
        shadow: uint8 ``[size * size]``, its blurred silhouette.
        parts: uint8 ``[size * size]``, 0 or the number of the part from 1; None without parts.
        num_parts: how many.
        box: (x0, y0, x1, y1) around what is not transparent, in -1..1.
    """

    size: int
    pixels: np.ndarray
    shadow: np.ndarray
    parts: np.ndarray | None
    num_parts: int
    box: tuple[float, float, float, float]


def make_sprite(rng: Generator, size: int, surfaces: list[Surface], shapes: tuple[str, ...] | None = None) -> Sprite:
    """An object of ``size`` pixels to a side (a multiple of 4); ``surfaces``: the whole's, then one for each part."""
    alpha = _softened(draw_shape(rng, size, shapes))
    inside = _coarse_blur(alpha, 0.06)
    rgb, parts = unpack(surfaces[0](rng, size)), None
    if len(surfaces) > 1:
        parts = np.zeros((size, size), np.uint8)
        for number, surface in enumerate(surfaces[1:], 1):
            _add_part(rng, surface, rgb, parts, inside, number)
    light = _enlarge(_shading(rng, alpha), size)
    light *= alpha * np.float32(1 / 255)
    premultiplied = np.empty((size, size, 4), np.uint8)
    premultiplied[..., 3] = alpha
    for channel in range(3):  # one by one, since arithmetic over a last axis of three is slow
        premultiplied[..., channel] = np.minimum(rgb[..., channel] * light, alpha)
    shadow = _enlarge(inside, size)
    shadow[[0, -1]] = shadow[:, [0, -1]] = 0  # look-ups outside give the border
    return Sprite(
        size,
        premultiplied.view("<u4").ravel(),
        shadow.clip(0, 255).astype(np.uint8).ravel(),
        parts if parts is None else parts.ravel(),
        len(surfaces) - 1,
        _box(alpha),
    )


def _softened(alpha: np.ndarray) -> np.ndarray:
    alpha = np.array(Image.fromarray(alpha).filter(ImageFilter.BoxBlur(0.5)))
    alpha[[0, -1]] = alpha[:, [0, -1]] = 0
    return alpha


def _coarse_blur(alpha: np.ndarray, radius: float) -> np.ndarray:
    """Blurred by ``radius`` (a share of the side), at every fourth pixel; float32."""
    small = Image.fromarray(alpha).reduce(_COARSE)
    return np.array(small.filter(ImageFilter.GaussianBlur(radius * small.width)), np.float32)


def _enlarge(coarse: np.ndarray, size: int) -> np.ndarray:
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR))


def _shading(rng: Generator, alpha: np.ndarray) -> np.ndarray:
    """Brightness as if the object bulged towards the camera, lit from one side; float32, about 1."""
    height = _coarse_blur(alpha, rng.uniform(0.05, 0.12)) / 255
    down, right = np.gradient(height, 2 / len(height))
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = (right * np.cos(angle) + down * np.sin(angle)) * strength
    return (1 + light.clip(-0.6, 0.6) + rng.uniform(0, 0.5) * (height - 0.75)).astype(np.float32)


def _add_part(rng: Generator, surface: Surface, rgb: np.ndarray, parts: np.ndarray, inside: np.ndarray, number: int) -> None:
    """Paints a smaller shape into the whole's picture, somewhere well inside, and marks it in ``parts``."""
    size = len(rgb)
    side = round(size * rng.uniform(0.3, 0.45)) // 4 * 4
    taken = _coarse_blur((parts > 0).astype(np.uint8) * 255, 0.05)
    where = int((inside - 2 * taken + 60 * rng.random(inside.shape)).argmax())
    y, x = (min(max(_COARSE * n - side // 2, 0), size - side) for n in divmod(where, len(inside)))
    opacity = draw_shape(rng, side, _PART_SHAPES)
    target = rgb[y : y + side, x : x + side]
    share = opacity[..., None].astype(np.float32) / 255
    target[:] = target * (1 - share) + unpack(surface(rng, side)) * share
    np.copyto(parts[y : y + side, x : x + side], np.uint8(number), where=opacity >= 128)


def _box(alpha: np.ndarray) -> tuple[float, float, float, float]:
    size = len(alpha)
    columns, rows = np.flatnonzero(alpha.any(0)), np.flatnonzero(alpha.any(1))
    pixels = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x0, y0, x1, y1 = (float(2 * n / size - 1) for n in pixels)
    return x0, y0, x1, y1


def make_background(
    rng: Generator, size: int, surfaces: list[Surface], blur: int = 1, mirror: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Packed pixels ``[size, size]`` that repeat without a seam, and which surface each is of, uint8 of the same shape.

    ``blur`` (1, 2, 4) makes it that much coarser. ``mirror``: the surfaces have seams; twice the size is given, with a mirrored
    copy in either direction.
    """
    coarse = size // blur
    pixels, numbers = surfaces[0](rng, coarse), np.zeros((coarse, coarse), np.uint8)
    for number, surface in enumerate(surfaces[1:], 1):
        region = _region(rng, coarse)
        pixels = np.where(region, surface(rng, coarse), pixels)
        numbers[region] = number
    numbers = numbers.repeat(blur, axis=0).repeat(blur, axis=1)
    padded = np.pad(pixels, 4, mode="symmetric" if mirror else "wrap")
    if blur == 1:
        pixels = _mean(_mean(padded, 0), 1)[4:-4, 4:-4]  # without jagged edges
    else:
        box = (4, 4, 4 + coarse, 4 + coarse)
        pixels = pack(np.asarray(Image.fromarray(unpack(padded)).resize((size, size), Image.Resampling.BICUBIC, box=box)))
    if mirror:
        pixels, numbers = _mirrored(pixels), _mirrored(numbers)
    return np.ascontiguousarray(pixels), numbers


def _mirrored(picture: np.ndarray) -> np.ndarray:
    picture = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return np.concatenate([picture, picture[::-1]], axis=0)


def _mean(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Of every packed pixel and its neighbour, all four channels at once: what both have, and half of where they differ."""
    other = np.roll(pixels, 1, axis)
    return (pixels & other) + (((pixels ^ other) >> np.uint32(1)) & np.uint32(0x7F7F7F7F))


def _region(rng: Generator, size: int) -> np.ndarray:
    """Where a further surface covers the background, bool: below a horizon, or in wide islands."""
    if rng.random() < 0.5:
        place = np.arange(size) / size
        waves = np.sin(2 * np.pi * (place * rng.integers(1, 5) + rng.random()))
        return (place[:, None] > rng.uniform(0.4, 0.75) + rng.uniform(0, 0.04) * waves) & (place[:, None] < 0.97)
    return smooth_noise(rng, size, int(rng.integers(2, 4)), 2) > rng.uniform(0.45, 0.6)
