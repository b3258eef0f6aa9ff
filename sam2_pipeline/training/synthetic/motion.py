"""Where everything is at every frame: the camera, the objects, the light. Small arrays over time, computed at once.

Lengths are pixels of the picture, positions (x, y), angles radians. Letters in names: T frames, K waves, 2 for (x, y).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from sam2_pipeline.training.synthetic.options import SceneOptions
from sam2_pipeline.training.synthetic.shapes import RADIUS

Course = Literal["stays", "late", "leaves", "vanishes"]

_WAVES = 2


@dataclass(frozen=True, slots=True)
class Camera:
    """World to picture: ``middle + zoom * rotate(roll) @ (world - centre)``."""

    middle_2: np.ndarray
    centre_T2: np.ndarray
    zoom_T: np.ndarray
    roll_T: np.ndarray

    def project(self, world_T2: np.ndarray) -> np.ndarray:
        """Positions in the picture, ``[T, 2]``."""
        x, y = (world_T2 - self.centre_T2).T * self.zoom_T
        c, s = np.cos(self.roll_T), np.sin(self.roll_T)
        return self.middle_2 + np.stack([c * x - s * y, s * x + c * y], axis=1)


@dataclass(frozen=True, slots=True)
class Motion:
    """An object's way through the picture.

    Attributes:
        course: whether it is there all the time.
        centre_T2: its middle.
        forward_T22: takes the sprite's coordinates (-1..1) to offsets from the middle, in pixels.
        inverse_T22: the other way.
        wave_K2, sway_K2, phase_TK: bending; sprite coordinates q are displaced by ``sway * sin(wave . q + phase)``.
        depth_T: what has the larger depth is in front.
        blur_T2: how far it moves while the shutter is open.
    """

    course: Course
    centre_T2: np.ndarray
    forward_T22: np.ndarray
    inverse_T22: np.ndarray
    wave_K2: np.ndarray
    sway_K2: np.ndarray
    phase_TK: np.ndarray
    depth_T: np.ndarray
    blur_T2: np.ndarray


def wander(rng: Generator, frames: int, fastest: float = 30, slowest: float = 150) -> np.ndarray:
    """A smooth random curve over time, float64 ``[frames]`` of -1..1; the periods of its waves are in frames."""
    period = np.exp(rng.uniform(np.log(fastest), np.log(slowest), 2))
    phase = rng.uniform(0, 2 * np.pi, 2)
    weight = rng.uniform(0.3, 1, 2)
    return (weight * np.sin(2 * np.pi * np.arange(frames)[:, None] / period + phase)).sum(1) / weight.sum()


def make_camera(rng: Generator, options: SceneOptions) -> Camera:
    """Still, or any mixture of pan, zoom, roll and shake."""
    height, width = options.size
    frames, strength = options.frames, options.camera
    still = rng.random() < 0.3
    pan, zoom, roll, shake = (rng.random(4) < (0.6, 0.45, 0.25, 0.3)) * (0.0 if still else strength)
    travel = np.stack([wander(rng, frames, 60, 300), wander(rng, frames, 60, 300) * 0.5], axis=1)
    travel = (travel - travel.mean(0)) * rng.uniform(0.05, 0.35) * pan
    jitter = np.stack([wander(rng, frames, 3, 12), wander(rng, frames, 3, 12)], axis=1) * rng.uniform(0.002, 0.01) * shake
    middle = np.array([width, height]) / 2
    return Camera(
        middle,
        middle + (travel + jitter) * (width, height),
        np.exp(wander(rng, frames, 50, 250) * rng.uniform(0.05, 0.3) * zoom),
        wander(rng, frames, 40, 200) * rng.uniform(0.02, 0.2) * roll + jitter[:, 0] * 0.5,
    )


def make_motion(rng: Generator, options: SceneOptions, camera: Camera, diameter: float, rank: float, shutter: float) -> Motion:
    """A way for an object of ``diameter`` pixels; ``rank`` orders objects in depth; ``shutter``: the share of a frame's time."""
    frames = options.frames
    grow = np.exp(wander(rng, frames, 40, 160) * rng.uniform(0, 0.35) * options.speed)
    scale_T = diameter / 2 / RADIUS * grow * camera.zoom_T
    # Turned about its upright axis, an object looks narrower.
    turn = 1 - (rng.random() < 0.3) * rng.uniform(0, 0.6) * (0.5 + 0.5 * wander(rng, frames)) * min(options.speed, 1)
    angle_T = _spin(rng, options) + camera.roll_T
    c, s = np.cos(angle_T) * scale_T, np.sin(angle_T) * scale_T
    forward_T22 = np.stack([np.stack([c * turn, -s], -1), np.stack([s * turn, c], -1)], axis=1)
    course = _course(rng, options)
    centre_T2 = camera.project(_path(rng, options))
    centre_T2 = _pushed_out(rng, centre_T2, scale_T * 1.3, _absence(rng, frames, course), options.size)
    wave_K2, sway_K2, phase_TK = _bending(rng, options)
    swing = (rng.random() < 0.35) * wander(rng, frames, 30, 120) * 2.5
    blur_T2 = np.gradient(centre_T2, axis=0) * shutter if frames > 1 else np.zeros_like(centre_T2)
    return Motion(course, centre_T2, forward_T22, np.linalg.inv(forward_T22), wave_K2, sway_K2, phase_TK, rank + swing, blur_T2)


def _course(rng: Generator, options: SceneOptions) -> Course:
    draw = rng.random()
    if draw < options.late:
        return "late"
    if draw < options.late + options.leave:
        return "leaves"
    return "vanishes" if draw < options.late + options.leave + options.vanish else "stays"


def _path(rng: Generator, options: SceneOptions) -> np.ndarray:
    """World positions ``[T, 2]``: resting, wandering, crossing to and fro, or hopping."""
    height, width = options.size
    time = np.arange(options.frames)
    home = rng.uniform(0.12, 0.88, 2)
    kind = rng.choice(["rest", "wander", "cross", "hop"], p=[0.12, 0.5, 0.25, 0.13])
    reach = rng.uniform(0.05, 0.35) * options.speed
    offset = np.zeros((options.frames, 2))
    if kind == "cross":
        direction, step = rng.uniform(0, 2 * np.pi), rng.uniform(0.004, 0.025) * options.speed
        way = home + np.outer(time, [np.cos(direction) * step, np.sin(direction) * step])
        return (0.05 + 0.9 * np.abs((way + 1) % 2 - 1)) * (width, height)  # turns back at the edges
    if kind != "rest":
        offset = np.stack([wander(rng, options.frames), wander(rng, options.frames)], axis=1) * reach
    if kind == "hop":
        offset[:, 1] = -np.abs(np.sin(np.pi * time / rng.uniform(10, 30) + rng.uniform(0, 3))) * reach
    return (home + offset - (offset.mean(0) if kind != "rest" else 0)) * (width, height)


def _spin(rng: Generator, options: SceneOptions) -> np.ndarray:
    """Angles over time ``[T]``: upright and swaying, or turning on."""
    sway = wander(rng, options.frames) * rng.uniform(0, 0.6) * options.speed
    if rng.random() < 0.55:
        return rng.normal(0, 0.2) + sway
    return rng.uniform(0, 2 * np.pi) + sway + np.arange(options.frames) * rng.normal(0, 0.04) * options.speed


def _bending(rng: Generator, options: SceneOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    length, direction, side = rng.uniform(1.5, 4.5, _WAVES), *rng.uniform(0, 2 * np.pi, (2, _WAVES))
    wave_K2 = length[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    rigid = rng.random() < 0.3
    # Below 1 / length in all, or space would fold and the object tear.
    size = np.minimum(rng.uniform(0, 0.16, _WAVES) * options.deformation, 0.4 / length) * (not rigid)
    sway_K2 = size[:, None] * np.stack([np.cos(side), np.sin(side)], axis=1)
    pace = rng.normal(0, 0.15, _WAVES) * options.deformation
    swing = np.stack([wander(rng, options.frames, 15, 60) for _ in range(_WAVES)], axis=1) * options.deformation
    phase_TK = rng.uniform(0, 2 * np.pi, _WAVES) + np.arange(options.frames)[:, None] * pace + swing
    return wave_K2, sway_K2, phase_TK


def _absence(rng: Generator, frames: int, course: Course) -> np.ndarray:
    """How far out of the picture it is, ``[T]``: 0 where it would be anyway, 1 wholly outside."""
    wait, out, pause, back = rng.uniform((0.1, 0.1, 0.15, 0.1), (0.3, 0.2, 0.3, 0.2))
    times = np.array([wait, wait + out, wait + out + pause, wait + out + pause + back]) * frames
    levels = {"stays": (0, 0, 0, 0), "late": (1, 1, 1, 0), "leaves": (0, 1, 1, 0), "vanishes": (0, 0, 0, 1)}[course]
    if course == "late":
        times -= wait * frames
    level = np.interp(np.arange(frames), times, levels)
    return level * level * (3 - 2 * level)


def _pushed_out(
    rng: Generator, centre_T2: np.ndarray, reach_T: np.ndarray, out_T: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Moves towards, and at 1 beyond, a side of the picture; it may come back from another one."""
    far = np.array([size[1], size[0]])
    outside_T2 = centre_T2.copy()
    sides = rng.integers(4, size=2)
    if not (out_T == 1).any():  # a clip too short for it to be gone: it must not jump
        sides[:] = sides[0]
    first = np.arange(len(out_T)) < np.argmax(out_T) + np.count_nonzero(out_T == 1) // 2
    for side, when in zip(sides, (first, ~first)):
        axis = side % 2
        outside_T2[when, axis] = far[axis] + reach_T[when] if side < 2 else -reach_T[when]
    return centre_T2 + out_T[:, None] * (outside_T2 - centre_T2)


@dataclass(frozen=True, slots=True)
class Light:
    """Brightness: a tint per frame ``[T, 3]``, and ramps along the rows ``[T, H]`` and the columns ``[T, W]``."""

    tint_T3: np.ndarray
    ramp_T2: np.ndarray
    vignette: float

    def gains(self, frame: int, height: int, width: int) -> np.ndarray:
        """What to multiply a frame by, float32 ``[H, W * 3]`` (pixels of three channels in a row)."""
        y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
        across, down = self.ramp_T2[frame]
        rows = (1 + down * y) * (1 - self.vignette * y**2)
        columns = (1 + across * x) * (1 - self.vignette * x**2)
        return np.outer(rows.astype(np.float32), np.outer(columns, self.tint_T3[frame]).astype(np.float32))


def make_light(rng: Generator, options: SceneOptions) -> Light | None:
    """None where nothing about the light is to change."""
    if options.lighting == 0:
        return None
    frames, strength = options.frames, options.lighting
    level = wander(rng, frames, 20, 200) * rng.choice([0.03, 0.1, 0.25]) * strength
    if rng.random() < 0.1:  # a lamp is switched
        level[rng.integers(frames) :] -= 0.35 * min(strength, 2)
    tint = np.stack([wander(rng, frames, 60, 300) for _ in range(3)], axis=1) * rng.uniform(0, 0.08) * strength
    ramps = (
        np.stack([wander(rng, frames, 60, 400), wander(rng, frames, 60, 400)], axis=1) * rng.uniform(0, 0.2) * min(strength, 3)
    )
    return Light(np.exp(level[:, None] + tint), ramps, float(rng.uniform(0, 0.12) * min(strength, 3)))
