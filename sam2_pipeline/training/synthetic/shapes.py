"""Silhouettes of objects: convex and concave, thin, with holes, of several pieces grown together.

A shape is an opacity, uint8 ``[S, S]``, over the square from -1 to 1, within the circle of radius `RADIUS` about its middle
so that there is room to deform it.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

RADIUS = 0.8
_FINER = 2  # drawn this many times finer, then averaged: soft edges

_Points = np.ndarray  # [P, 2] in -1..1


def draw_shape(rng: Generator, size: int, kinds: tuple[str, ...] | None = None) -> np.ndarray:
    """A random silhouette, uint8 ``[size, size]``; ``kinds`` (names in `SHAPES`) restricts the choice."""
    names = kinds or tuple(SHAPES)
    pen = _Pen(size)
    SHAPES[names[rng.integers(len(names))]](rng, pen)
    return pen.opacity()


class _Pen:
    """Draws in the coordinates of shapes; ink 0 cuts holes."""

    def __init__(self, size: int) -> None:
        self._scale = size * _FINER / 2
        self._image = Image.new("L", (size * _FINER, size * _FINER))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: _Points, ink: int = 255) -> None:
        self._draw.polygon(((points + 1) * self._scale).ravel().tolist(), fill=ink)

    def stroke(self, points: _Points, width: float, ink: int = 255) -> None:
        """A thick line with round ends and corners."""
        pixels = (points + 1) * self._scale
        self._draw.line(pixels.ravel().tolist(), fill=ink, width=max(2, round(width * self._scale)), joint="curve")
        for end in points[[0, -1]]:
            self.polygon(_ellipse(end, width / 2, width / 2), ink)

    def opacity(self) -> np.ndarray:
        return np.array(self._image.reduce(_FINER))


def _angles(count: int) -> np.ndarray:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _polar(radius: np.ndarray, angle: np.ndarray) -> _Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _ellipse(centre: np.ndarray, rx: float, ry: float) -> _Points:
    angle = _angles(40)
    return centre + np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)


def _wavy(rng: Generator, roughness: float, aspect: float = 1.0) -> _Points:
    """A closed curve about the middle, rounder the lower its roughness (0..1)."""
    angle, order = _angles(96), np.arange(2, 7)
    waves = rng.normal(0, roughness / order, len(order))[:, None] * np.cos(order[:, None] * angle + rng.uniform(0, 7, (5, 1)))
    radius = np.exp(waves.sum(0))
    return _fitted(_polar(radius, angle) * (1, aspect))


def _fitted(points: _Points) -> _Points:
    """Moved and scaled so that they just fit the circle."""
    points = points - (points.max(0) + points.min(0)) / 2
    return points * (RADIUS / np.linalg.norm(points, axis=1).max())


def _turned(points: _Points, angle: float) -> _Points:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _blob(rng: Generator, pen: _Pen) -> None:
    pen.polygon(_wavy(rng, rng.uniform(0, 0.6), rng.uniform(0.45, 1)))


def _convex(rng: Generator, pen: _Pen) -> None:
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    spread = _angles(len(angle)) * 0.8 + angle * 0.2  # corners neither all on one side nor evenly spaced
    pen.polygon(_fitted(_polar(np.ones(len(angle)), spread) * (1, rng.uniform(0.6, 1))))


def _box(rng: Generator, pen: _Pen) -> None:
    half = np.array([1, rng.uniform(0.25, 1)])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    corners[0, 0] += rng.uniform(0, 0.5)  # a trapezium now and then
    pen.polygon(_fitted(corners))


def _star(rng: Generator, pen: _Pen) -> None:
    spikes = int(rng.integers(4, 9))
    radius = np.tile([1.0, rng.uniform(0.3, 0.7)], spikes)
    pen.polygon(_polar(radius * RADIUS, _angles(2 * spikes)))


def _gear(rng: Generator, pen: _Pen) -> None:
    teeth = int(rng.integers(6, 13))
    inner = rng.uniform(0.7, 0.85)
    pen.polygon(_polar(np.tile([1, 1, inner, inner], teeth) * RADIUS, _angles(4 * teeth)))
    pen.polygon(_ellipse(np.zeros(2), 0.25, 0.25), 0)


def _ring(rng: Generator, pen: _Pen) -> None:
    outline = _wavy(rng, rng.uniform(0, 0.25), rng.uniform(0.7, 1))
    pen.polygon(outline)
    pen.polygon(outline * rng.uniform(0.45, 0.75), 0)


def _sieve(rng: Generator, pen: _Pen) -> None:
    """A plate with two to four holes."""
    pen.polygon(_wavy(rng, 0.15))
    count = int(rng.integers(2, 5))
    for centre in _polar(np.full(count, 0.4), _angles(count) + rng.uniform(0, 7)):
        radius = rng.uniform(0.1, 0.2)
        pen.polygon(_ellipse(centre, radius, radius * rng.uniform(0.6, 1)), 0)


def _crescent(rng: Generator, pen: _Pen) -> None:
    pen.polygon(_ellipse(np.zeros(2), RADIUS, RADIUS))
    pen.polygon(_ellipse(np.array([rng.uniform(0.3, 0.5), 0.0]), 0.65, 0.65), 0)


def _bar(rng: Generator, pen: _Pen) -> None:
    reach = RADIUS * 0.9
    bend = rng.normal(0, 0.2)
    x = np.linspace(-reach, reach, 12)
    width = rng.uniform(0.12, 0.3)
    pen.stroke(np.stack([x, bend * (1 - 2 * (x / reach) ** 2)], axis=1) * (1 - width / 2), width)


def _letter(rng: Generator, pen: _Pen) -> None:
    """Bars joined at right angles: L, T, U, H, E and the like."""
    width, reach = rng.uniform(0.14, 0.26), 0.45
    corner = np.array([[-reach, -reach], [reach, -reach], [reach, reach], [-reach, reach]])
    middle = np.array([[-reach, 0.0], [reach, 0.0]])
    lines = [corner[[0, 1]], corner[[1, 2]], corner[[2, 3]], corner[[3, 0]], middle, middle[:, ::-1]]
    pen.stroke(lines[3], width)
    for line in rng.permutation(np.array([lines[0], lines[1], lines[2], lines[4], lines[5]]))[: rng.integers(1, 4)]:
        pen.stroke(line, width)
    pen.stroke(corner[[3, 0]] if rng.random() < 0.5 else middle, width)


def _comb(rng: Generator, pen: _Pen) -> None:
    """A back with tines: a fork, a rake, a hand."""
    count, width = rng.integers(3, 7), rng.uniform(0.07, 0.12)
    back = rng.uniform(0.05, 0.35)
    pen.polygon(np.array([[-0.55, back], [0.55, back], [0.4, 0.55], [-0.4, 0.55]]))
    for x in np.linspace(-0.5, 0.5, count):
        pen.stroke(np.array([[x, back], [x * 1.05, -0.5 - 0.05 * rng.random()]]), width)


def _creature(rng: Generator, pen: _Pen) -> None:
    """A body with a head and limbs that taper to thin ends."""
    rx, ry = rng.uniform(0.28, 0.5), rng.uniform(0.18, 0.3)
    pen.polygon(_ellipse(np.zeros(2), rx, ry))
    head = np.array([rx + 0.05, -rng.uniform(0, 0.3)])
    pen.polygon(_ellipse(head, *rng.uniform(0.13, 0.2, 2)))
    pen.stroke(np.array([[0, 0], head * 0.95]), 0.14)
    legs = rng.integers(2, 5)
    for x in np.linspace(-rx * 0.75, rx * 0.75, legs):
        knee = np.array([x + rng.normal(0, 0.07), ry + 0.12])
        pen.stroke(np.array([[x, 0], knee, [knee[0] + rng.normal(0, 0.06), 0.6]]), rng.uniform(0.06, 0.12))
    if rng.random() < 0.6:
        pen.stroke(np.array([[-rx * 0.8, 0], [-rx - 0.15, rng.normal(-0.1, 0.1)], [-rx - 0.22, rng.normal(-0.25, 0.1)]]), 0.06)


def _figure(rng: Generator, pen: _Pen) -> None:
    """Upright: head, trunk, two arms, two legs."""
    waist = rng.uniform(0.1, 0.2)
    pen.polygon(np.array([[-0.22, -0.35], [0.22, -0.35], [waist, 0.15], [-waist, 0.15]]))
    pen.polygon(_ellipse(np.array([0, -0.55]), 0.15, 0.19))
    for side in (-1, 1):
        hand = np.array([side * rng.uniform(0.3, 0.55), rng.uniform(-0.5, 0.2)])
        pen.stroke(np.array([[side * 0.18, -0.3], [side * 0.33, -0.1], hand]), rng.uniform(0.08, 0.14))
        pen.stroke(np.array([[side * waist * 0.5, 0.1], [side * rng.uniform(0.08, 0.35), 0.72]]), rng.uniform(0.11, 0.18))


def _plant(rng: Generator, pen: _Pen) -> None:
    """A stem with leaves or branches."""
    stem = np.stack([rng.normal(0, 0.08, 6).cumsum() * 0.5, np.linspace(0.7, -0.5, 6)], axis=1)
    pen.stroke(stem, rng.uniform(0.05, 0.1))
    for joint in stem[1:]:
        for side in (-1, 1):
            leaf = _ellipse(np.array([0.24, 0]), 0.22, rng.uniform(0.05, 0.12))
            pen.polygon(joint + _turned(leaf, rng.uniform(0.2, 1.0) * side if side < 0 else np.pi - rng.uniform(0.2, 1.0)))


def _cluster(rng: Generator, pen: _Pen) -> None:
    """Three to six discs grown together."""
    for centre in rng.uniform(-0.35, 0.35, (rng.integers(3, 7), 2)):
        radius = rng.uniform(0.15, 0.3)
        pen.stroke(np.stack([centre, centre * 0.2]), 0.15)
        pen.polygon(_ellipse(centre, radius, radius))


def _spiral(rng: Generator, pen: _Pen) -> None:
    angle = np.linspace(0, rng.uniform(2.5, 5) * np.pi, 80)
    pen.stroke(_polar(0.12 + 0.58 * angle / angle[-1], angle), rng.uniform(0.07, 0.14))


def _vehicle(rng: Generator, pen: _Pen) -> None:
    """A long body, a cabin, and wheels below."""
    low, high = rng.uniform(0.12, 0.25), rng.uniform(0.2, 0.4)
    pen.polygon(np.array([[-0.72, -low], [0.72, -low * 0.8], [0.74, 0.22], [-0.74, 0.22]]))
    left, right = rng.uniform(-0.6, -0.2), rng.uniform(0.15, 0.5)
    pen.polygon(np.array([[left, 0], [left + 0.1, -low - high], [right - 0.15, -low - high], [right, 0]]))
    for x in np.linspace(-0.45, 0.45, rng.integers(2, 4)):
        pen.polygon(_ellipse(np.array([x, 0.24]), 0.16, 0.16))


SHAPES: dict[str, Callable[[Generator, _Pen], None]] = {
    "blob": _blob,
    "convex": _convex,
    "box": _box,
    "star": _star,
    "gear": _gear,
    "ring": _ring,
    "sieve": _sieve,
    "crescent": _crescent,
    "bar": _bar,
    "letter": _letter,
    "comb": _comb,
    "creature": _creature,
    "figure": _figure,
    "plant": _plant,
    "cluster": _cluster,
    "spiral": _spiral,
    "vehicle": _vehicle,
}
