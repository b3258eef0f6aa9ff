"""What a synthetic scene may contain: one frozen object of knobs."""

from dataclasses import dataclass, fields

from sam2_pipeline.errors import ConfigError

_CHANCES = ("parts", "twins", "late", "leave", "vanish", "shadows", "motion_blur", "defocus", "compression", "camouflage",
            "moving_background", "picture_share")  # fmt: skip
_STRENGTHS = ("speed", "deformation", "camera", "lighting", "noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """The kind of scene that `make_scene` draws. The defaults are varied and moderately hard.

    Strengths scale an effect (0: none, 1: as usual). Chances are probabilities, 0 to 1, per object or per scene.

    Attributes:
        size: (height, width) in pixels.
        frames: how many; leaving and coming back needs about 8 to be seen.
        fps: frames per second, for time stamps and files; the motion is per frame.
        objects: smallest and largest number of objects, parts not counted.
        diameter: smallest and largest size of an object, as shares of the picture's shorter side.
        parts: chance that an object has parts (one or two) that are objects of their own.
        twins: chance that an object looks exactly as another one.
        late: chance that an object is out of the picture at first and enters later.
        leave: chance that it leaves the picture and comes back.
        vanish: chance that it leaves for good.
        speed: strength of the objects' motion, turning and growing.
        deformation: strength of bending and wobbling.
        camera: strength of pan, zoom, roll and shake.
        lighting: strength of gradients, vignetting, and changes of brightness and tint.
        noise: strength of sensor noise.
        shadows: chance of a scene in which objects throw shadows.
        motion_blur: chance of a scene with blur along the motion. Masks are those of the middle of the exposure.
        defocus: chance of a background out of focus.
        compression: chance of a scene whose frames have been through JPEG.
        camouflage: chance that an object has the background's colours.
        moving_background: chance of a background that flows and ripples by itself.
        pictures: a folder of pictures to take textures from, besides those made from noise and patterns.
        picture_share: chance that a texture comes from a picture, when there are any.
    """

    size: tuple[int, int] = (256, 256)
    frames: int = 24
    fps: float = 24.0
    objects: tuple[int, int] = (3, 8)
    diameter: tuple[float, float] = (0.12, 0.7)
    parts: float = 0.15
    twins: float = 0.1
    late: float = 0.15
    leave: float = 0.15
    vanish: float = 0.05
    speed: float = 1.0
    deformation: float = 1.0
    camera: float = 1.0
    lighting: float = 1.0
    noise: float = 1.0
    shadows: float = 0.4
    motion_blur: float = 0.3
    defocus: float = 0.3
    compression: float = 0.3
    camouflage: float = 0.15
    moving_background: float = 0.2
    pictures: str | None = None
    picture_share: float = 0.6

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if min(self.size) < 16:
            raise ConfigError(f"scene size is {self.size}, expected at least 16 pixels in height and width")
        if self.frames < 1 or not self.fps > 0:
            raise ConfigError(f"scene has {self.frames} frames at {self.fps} per second, expected 1 or more and a rate above 0")
        fewest, most = self.objects
        if not 1 <= fewest <= most <= 64:
            raise ConfigError(f"scene objects are {self.objects}, expected (fewest, most) from 1 to 64")
        if not 0.01 <= self.diameter[0] <= self.diameter[1] <= 2:
            raise ConfigError(f"scene diameter is {self.diameter}, expected (smallest, largest) from 0.01 to 2")
        for name in _CHANCES:
            if not 0 <= given[name] <= 1:
                raise ConfigError(f"scene {name} is {given[name]}, expected a chance from 0 to 1")
        for name in _STRENGTHS:
            if not 0 <= given[name] <= 4:
                raise ConfigError(f"scene {name} is {given[name]}, expected a strength from 0 to 4")
        if self.late + self.leave + self.vanish > 1:
            raise ConfigError(f"late + leave + vanish is {self.late + self.leave + self.vanish}, expected at most 1")
