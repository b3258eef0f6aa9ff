"""Surfaces: patterns coloured by ramps, which repeat without a seam, and parts of real pictures, which do not.

Pixels are packed, one uint32 each with red in the lowest byte and opacity in the highest: one look-up moves a whole pixel.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from sam2_pipeline.errors import ConfigError

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_PICTURE_SIDE = 768  # pictures are kept no larger
_BICUBIC = Image.Resampling.BICUBIC


@lru_cache(maxsize=8)
def picture_paths(folder: str) -> tuple[Path, ...]:
    """The pictures of a folder in order of their names.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"pictures is {folder!r}, which is not a folder")
    found = tuple(sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in _EXTENSIONS))
    if not found:
        raise ConfigError(f"pictures is {folder!r}, a folder without pictures; expected {' '.join(sorted(_EXTENSIONS))}")
    return found


@lru_cache(maxsize=64)
def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (_PICTURE_SIDE, _PICTURE_SIDE))  # lets JPEG decode small, which is many times faster
            image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}: not a picture that can be read: {error}") from error


def picture_texture(rng: Generator, size: int, folder: str) -> np.ndarray:
    """A random part of a random picture, packed ``[size, size]``."""
    paths = picture_paths(folder)
    image = _picture(paths[rng.integers(len(paths))])
    side = max(2, round(min(image.size) * rng.uniform(0.4, 1)))
    x, y = (int(rng.integers(length - side + 1)) for length in image.size)
    return pack(np.asarray(image.resize((size, size), _BICUBIC, box=(x, y, x + side, y + side))))


def pack(rgb: np.ndarray, alpha: np.ndarray | int = 255) -> np.ndarray:
    """uint8 ``[..., 3]`` and opacity uint8 ``[...]`` to packed ``[...]``."""
    pixels = np.empty((*rgb.shape[:-1], 4), np.uint8)
    pixels[..., :3] = rgb
    pixels[..., 3] = alpha
    return pixels.view("<u4")[..., 0]


def unpack(pixels: np.ndarray) -> np.ndarray:
    """Packed ``[...]`` to red, green and blue, a view, uint8 ``[..., 3]``."""
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)[..., :3]


def palette(rng: Generator, count: int = 4) -> np.ndarray:
    """Colours that go together, float ``[count, 3]`` of 0..255: near one hue or opposite to it, muted or vivid, dark or light."""
    hue = rng.random() + rng.choice([0, 0, 0.04, 0.5], count) + rng.normal(0, 0.03, count)
    saturation = np.clip(rng.beta(1.4, 2.4) + rng.normal(0, 0.12, count), 0, 1)
    value = np.clip(rng.uniform(0.25, 0.85) + rng.normal(0, 0.2, count), 0.05, 1)
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return 255 * value[:, None] * (1 - saturation[:, None] * (1 - wheel))


def pattern_texture(rng: Generator, size: int, colours: np.ndarray, kinds: tuple[str, ...] | None = None) -> np.ndarray:
    """A pattern (names in `PATTERNS`) in the given colours (float ``[C, 3]``); packed ``[size, size]``."""
    names = kinds or tuple(PATTERNS)
    level = PATTERNS[names[rng.integers(len(names))]](rng, size)
    return _ramp(rng, colours).take((level * np.float32(255)).astype(np.int32), mode="clip")


def _ramp(rng: Generator, colours: np.ndarray) -> np.ndarray:
    """256 colours that run through the given ones, packed ``[256]``: evenly, or in steps."""
    place = np.linspace(0, len(colours) - 1, 256)
    if rng.random() < 0.35:
        step = np.floor(place)
        place = step + np.clip((place - step - 0.5) * rng.uniform(4, 12) + 0.5, 0, 1)
    ramp = np.stack([np.interp(place, np.arange(len(colours)), channel) for channel in colours.T], axis=1)
    return pack(ramp.clip(0, 255).astype(np.uint8))


def smooth_noise(rng: Generator, size: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Cloudy noise, float32 ``[size, size]`` of 0..1 about; ``cells`` lumps to a side."""
    coarse = max(cells, size // 4)
    total = np.zeros((coarse, coarse), np.float32)
    for octave in range(octaves):
        grid = min(cells << octave, coarse)
        total += _enlarged(rng.random((grid, grid), np.float32) - 0.5, coarse) * 0.55**octave
    return _enlarged(total, size) * 1.1 + 0.5


def _enlarged(grid: np.ndarray, size: int) -> np.ndarray:
    """Bicubic, going round the edges."""
    cells, margin = len(grid), 3
    image = Image.fromarray(np.pad(grid, margin, mode="wrap"))
    return np.asarray(image.resize((size, size), _BICUBIC, box=(margin, margin, margin + cells, margin + cells)))


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    turn = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi / size)
    return turn[:, None], turn


def _clouds(rng: Generator, size: int) -> np.ndarray:
    return smooth_noise(rng, size, int(rng.integers(2, 9)), int(rng.integers(2, 5)))


def _marble(rng: Generator, size: int) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(smooth_noise(rng, size, int(rng.integers(2, 6))) * np.float32(rng.uniform(10, 30)))


def _stripes(rng: Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    across, down = rng.integers(-9, 10), rng.integers(1, 10)
    wave = x * np.float32(across) + y * np.float32(down)
    if rng.random() < 0.4:
        wave = wave + smooth_noise(rng, size, 4) * np.float32(rng.uniform(2, 8))
    return 0.5 + np.clip(np.sin(wave) * np.float32(rng.choice([0.5, 3])), -0.5, 0.5)


def _checks(rng: Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    across, down = (np.float32(n) for n in rng.integers(2, 9, 2))
    return np.where(np.sin(across * x) * np.sin(down * y) > 0, np.float32(0.9), np.float32(0.1))


def _dots(rng: Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    count = np.float32(rng.integers(3, 10))
    return 0.5 + np.clip((np.sin(count * x) * np.sin(count * y) - np.float32(rng.uniform(0, 0.5))) * 4, -0.5, 0.5)


def _cells(rng: Generator, size: int) -> np.ndarray:
    """Patches of even shade, each the pixels nearest to one of some seeds."""
    coarse = max(8, size // 2)
    place = np.arange(coarse, dtype=np.float32) / coarse
    apart = np.abs(place - rng.random((16, 2, 1), np.float32))
    apart = np.minimum(apart, 1 - apart) ** 2
    shades = np.empty((coarse, coarse), np.float32)
    nearest = np.full((coarse, coarse), 2, np.float32)
    for (down, across), shade in zip(apart, rng.random(16, np.float32)):
        distance = down[:, None] + across
        np.copyto(shades, shade, where=distance < nearest)
        np.minimum(nearest, distance, out=nearest)
    return _enlarged(shades, size)


def _weave(rng: Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    count = np.float32(rng.integers(8, 20))
    return 0.35 * smooth_noise(rng, size, 6) + 0.3 + 0.15 * (np.sin(count * x) + np.sin(count * y))


def _plain(rng: Generator, size: int) -> np.ndarray:
    """Nearly one colour."""
    return np.float32(rng.random() * 0.6) + 0.25 * smooth_noise(rng, size, 2, 2)


def _speckles(rng: Generator, size: int) -> np.ndarray:
    """Grass, gravel, fur: detail down to a few pixels."""
    return smooth_noise(rng, size, max(4, size // int(rng.integers(8, 24))), 2) * 0.7 + 0.3 * smooth_noise(rng, size, 4, 2)


PATTERNS: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "clouds": _clouds,
    "marble": _marble,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "cells": _cells,
    "weave": _weave,
    "plain": _plain,
    "speckles": _speckles,
}
