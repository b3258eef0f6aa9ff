"""`make_scene` and what it makes: a scene's choices are drawn from the seed, frames and masks are computed when asked for."""

import io
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.training.synthetic.drawing import Backdrop, Canvas
from sam2_pipeline.training.synthetic.motion import Camera, Course, Light, Motion, make_camera, make_light, make_motion, wander
from sam2_pipeline.training.synthetic.options import SceneOptions
from sam2_pipeline.training.synthetic.sprites import Sprite, Surface, make_background, make_sprite
from sam2_pipeline.training.synthetic.textures import palette, pattern_texture, picture_texture, unpack

__all__ = ["Scene", "SceneObject", "SceneOptions", "make_scene"]

_SHARPNESS = 1.5  # sprite pixels to one of the picture, at an object's largest
_LARGEST_SPRITE = 1024
_SMALLEST_WHOLE = 0.2  # share of the shorter side: what is smaller gets no parts
_NOISE_VALUES = 1 << 21
# Each draws from a stream of its own, so that one option does not change what the others give.
_STREAMS = ("world", "looks", "motion", "camera", "light", "sensor", "frame")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A whole object: its looks, its motion, and ``label``, the number of the first mask that is its own (parts follow)."""

    sprite: Sprite
    motion: Motion
    label: int

    @property
    def labels(self) -> range:
        """Its number, then those of its parts."""
        return range(self.label, self.label + 1 + self.sprite.num_parts)


@dataclass(frozen=True, slots=True)
class Sensor:
    """What the camera does to light: noise (standard deviation, of 255), and JPEG at a quality (None: no compression)."""

    noise: float
    jpeg_quality: int | None


class _Rendered(NamedTuple):
    frame: int
    pixels: np.ndarray  # uint32 [H, W], before light and sensor
    labels: np.ndarray  # uint8 [H, W]


class Scene:
    """A video that is computed frame by frame, in any order; memory does not grow with its length.

    Attributes:
        seed, options: what it was made from.
        objects: the whole objects, in no order of depth.
        backdrop, camera, light, sensor, shadow: the rest of the world.
    """

    def __init__(
        self,
        seed: int,
        options: SceneOptions,
        objects: tuple[SceneObject, ...],
        backdrop: Backdrop,
        camera: Camera,
        light: Light | None,
        sensor: Sensor,
        shadow: tuple[float, float, float] | None,
    ) -> None:
        self.seed, self.options, self.objects = seed, options, objects
        self.backdrop, self.camera, self.light, self.sensor, self.shadow = backdrop, camera, light, sensor, shadow
        self._last: _Rendered | None = None

    @property
    def height(self) -> int:
        return self.options.size[0]

    @property
    def width(self) -> int:
        return self.options.size[1]

    @property
    def num_frames(self) -> int:
        return self.options.frames

    @property
    def num_objects(self) -> int:
        """Number of masks: whole objects and their parts."""
        return sum(len(one.labels) for one in self.objects)

    @property
    def parents(self) -> np.ndarray:
        """For every mask the number of the whole that it is a part of, -1 for wholes; int64 ``[N]``."""
        parents = np.full(self.num_objects, -1)
        for one in self.objects:
            parents[one.labels[1:]] = one.label
        return parents

    @property
    def courses(self) -> tuple[Course, ...]:
        """Of every mask's object: whether it stays, is late, leaves (and returns), or vanishes."""
        return tuple(one.motion.course for one in self.objects for _ in one.labels)

    def frame(self, t: int) -> np.ndarray:
        """The picture, uint8 RGB ``[H, W, 3]``."""
        rng = default_rng([self.seed, _STREAMS.index("frame"), self._check(t)])
        return self._developed(self._render(t).pixels, t, rng)

    def masks(self, t: int) -> np.ndarray:
        """Visible masks, bool ``[N, H, W]``: what hides behind others is left out; a whole includes its parts."""
        labels = self._render(self._check(t)).labels
        masks = labels == np.arange(1, self.num_objects + 1, dtype=np.uint8)[:, None, None]
        for one in self.objects:
            for part in one.labels[1:]:
                masks[one.label] |= masks[part]
        return masks

    def labels(self, t: int) -> np.ndarray:
        """The topmost object of every pixel, a part before its whole, uint8 ``[H, W]``: 0 none, else its mask's number + 1."""
        return self._render(self._check(t)).labels.copy()

    @property
    def num_scenery(self) -> int:
        """Number of the backdrop's regions, see `scenery`."""
        return int(self.backdrop.islands.max()) + 1 if self.backdrop.surfaces.any() else 0

    def scenery(self, t: int) -> np.ndarray:
        """Where the backdrop's regions are seen between the objects, bool ``[R, H, W]``: sky and ground, islands and what is
        about them. None is an object, and none is among `masks`; but who segments everything is not wrong to segment them.
        A backdrop of one surface has none."""
        free = self._render(self._check(t)).labels == 0
        islands = self.backdrop.draw_islands(self.camera, t, *self.options.size)
        return (islands == np.arange(self.num_scenery)[:, None, None]) & free

    def _check(self, t: int) -> int:
        if not 0 <= t < self.num_frames:
            raise ConfigError(f"there is no frame {t}, expected 0 to {self.num_frames - 1}")
        return t

    def _render(self, t: int) -> _Rendered:
        """Pixels and labels; the last frame is kept, because who asks for the picture asks for the masks as well."""
        last = self._last
        if last is None or last.frame != t:
            canvas = Canvas(self.backdrop.draw(self.camera, t, *self.options.size), np.zeros(self.options.size, np.uint8))
            for one in sorted(self.objects, key=lambda one: one.motion.depth_T[t]):
                canvas.add(one.sprite, one.motion, t, one.label + 1, self.shadow)
            self._last = last = _Rendered(t, canvas.pixels, canvas.labels)
        return last

    def _developed(self, pixels: np.ndarray, t: int, rng: Generator) -> np.ndarray:
        """Light, sensor and compression."""
        rgb = unpack(pixels)
        if self.light is None and not self.sensor.noise:
            picture = rgb.copy()
        else:
            values = rgb.reshape(self.height, -1).astype(np.float32)
            if self.light is not None:
                values *= self.light.gains(t, self.height, self.width)
            if self.sensor.noise:
                values += _noise(rng, values.size).reshape(values.shape) * np.float32(self.sensor.noise)
            picture = values.clip(0, 255, out=values).astype(np.uint8).reshape(self.height, self.width, 3)
        return picture if self.sensor.jpeg_quality is None else _through_jpeg(picture, self.sensor.jpeg_quality)

    def __repr__(self) -> str:
        return f"Scene(seed={self.seed}, {self.num_frames} frames of {self.height}x{self.width}, {self.num_objects} objects)"


def make_scene(seed: int, options: SceneOptions | None = None) -> Scene:
    """The scene of a seed (0 or more). The same seed and options give the same scene on every machine.

    Raises:
        ConfigError: the seed is negative, or ``options.pictures`` is not a folder of pictures.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    options = options or SceneOptions()
    rngs = {name: default_rng([seed, number]) for number, name in enumerate(_STREAMS)}
    camera = make_camera(rngs["camera"], options)
    world = rngs["world"]
    shutter = float((world.random() < options.motion_blur) * world.uniform(0.3, 0.9))
    shadow = None
    if world.random() < options.shadows:
        shadow = (*world.uniform((-0.4, 0.1), (0.4, 0.5)).tolist(), float(world.uniform(0.25, 0.6)))
    scheme = palette(world)
    backdrop = _make_backdrop(world, options, camera, scheme, shutter)
    objects = _make_objects(rngs["looks"], rngs["motion"], options, camera, scheme, shutter)
    light, sensor = make_light(rngs["light"], options), _make_sensor(rngs["sensor"], options)
    return Scene(seed, options, objects, backdrop, camera, light, sensor, shadow)


def _surface(rng: Generator, size: int, options: SceneOptions, colours: np.ndarray) -> np.ndarray:
    """A texture from one of the pictures, or a pattern."""
    if options.pictures is not None and rng.random() < options.picture_share:
        return picture_texture(rng, size, options.pictures)
    return pattern_texture(rng, size, colours)


def _make_backdrop(rng: Generator, options: SceneOptions, camera: Camera, scheme: np.ndarray, shutter: float) -> Backdrop:
    height, width = options.size
    size = 1 << (2 * max(height, width) - 1).bit_length()
    schemes = [scheme, palette(rng), palette(rng)][: rng.choice([1, 2, 3], p=[0.35, 0.45, 0.2])]
    surfaces: list[Surface] = [partial(_surface, options=options, colours=colours) for colours in schemes]
    blur = int(rng.choice([2, 4])) if rng.random() < options.defocus else 1
    density = size / (1.25 * max(height, width))
    drift_T2, ripple = np.full((options.frames, 2), size / 2) - camera.middle_2 * density, 0.0  # its middle in view
    if rng.random() < options.moving_background:
        curves = [wander(rng, options.frames) for _ in range(2)]
        drift_T2 += np.stack(curves, axis=1) * rng.uniform(0, 0.1) * size
        ripple = float(rng.uniform(0, 0.008) * size)
    way_T2 = camera.project(np.broadcast_to(camera.middle_2, (options.frames, 2))) - drift_T2 / density
    blur_T2 = np.gradient(way_T2, axis=0) * shutter if options.frames > 1 else np.zeros_like(way_T2)
    pixels, regions = make_background(rng, size, surfaces, blur, mirror=options.pictures is not None)
    return Backdrop(pixels, regions, density, drift_T2, ripple, blur_T2)


def _make_objects(
    looks: Generator, moves: Generator, options: SceneOptions, camera: Camera, scheme: np.ndarray, shutter: float
) -> tuple[SceneObject, ...]:
    count = int(moves.integers(options.objects[0], options.objects[1] + 1))
    ranks = moves.permutation(count)
    low, high = np.log(options.diameter)
    diameters = np.exp(moves.uniform(low, high, count))
    objects: list[SceneObject] = []
    sprites: list[Sprite] = []
    label = 0
    for rank, diameter in zip(ranks, diameters):
        sprite = _twin_of(looks, sprites, options) or _make_sprite(looks, options, float(diameter), scheme)
        motion = make_motion(moves, options, camera, float(diameter * min(options.size)), float(rank), shutter)
        objects.append(SceneObject(sprite, motion, label))
        sprites.append(sprite)
        label += 1 + sprite.num_parts
    return tuple(objects)


def _twin_of(rng: Generator, sprites: list[Sprite], options: SceneOptions) -> Sprite | None:
    if rng.random() >= options.twins or not sprites:
        return None
    return sprites[rng.integers(len(sprites))]


def _make_sprite(rng: Generator, options: SceneOptions, diameter: float, scheme: np.ndarray) -> Sprite:
    pixels = diameter * min(options.size) * 1.25 * _SHARPNESS
    size = int(np.clip(pixels, 32, _LARGEST_SPRITE)) // 4 * 4
    colours = scheme if rng.random() < options.camouflage else palette(rng)
    parts = int(rng.integers(1, 3)) if rng.random() < options.parts and diameter >= _SMALLEST_WHOLE else 0
    schemes = [colours, *(palette(rng) for _ in range(parts))]
    return make_sprite(rng, size, [partial(_surface, options=options, colours=one) for one in schemes])


def _make_sensor(rng: Generator, options: SceneOptions) -> Sensor:
    noise = float(rng.choice([0, 1.5, 4, 9], p=[0.25, 0.4, 0.25, 0.1]) * rng.uniform(0.6, 1.4) * options.noise)
    return Sensor(noise, int(rng.integers(20, 85)) if rng.random() < options.compression else None)


@lru_cache(maxsize=1)
def _noise_values() -> np.ndarray:
    return default_rng(0).standard_normal(_NOISE_VALUES, np.float32)


def _noise(rng: Generator, count: int) -> np.ndarray:
    """Normal values, float32 ``[count]``: a stretch of a long list, many times faster than drawing them anew."""
    values = _noise_values()
    if count < len(values):
        start = int(rng.integers(len(values) - count))
        return values[start : start + count]
    return np.resize(np.roll(values, int(rng.integers(len(values)))), count)


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, "JPEG", quality=quality)
    return np.array(Image.open(stored))
