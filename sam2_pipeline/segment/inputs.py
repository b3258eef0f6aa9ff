"""Pictures on their way into the network: what a session needs of a video, whatever holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.frames import Frame, FrameSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class NetworkFrame:
    """One frame as the network takes it: float32 ``[3, S, S]``, normalised, an array of the engine's."""

    index: int
    timestamp_s: float
    image_3SS: Any


class NetworkFrames(Protocol):
    """A video for a `VideoSession`: displayed size, length (None: unknown), frames in either direction."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def num_frames(self) -> int | None: ...

    def images(self, start: int, stop: int | None = None, *, reverse: bool = False) -> Iterator[NetworkFrame]: ...


class DecodedFrames:
    """Frames of a `FrameSource`, squeezed to S x S by the source and normalised by ``prepare``, the engine's."""

    def __init__(self, source: FrameSource, image_size: int, prepare: Callable[[np.ndarray], Any]):
        self.source, self.image_size, self.prepare = source, image_size, prepare
        self.height, self.width, self.num_frames = source.height, source.width, source.num_frames

    def images(self, start: int, stop: int | None = None, *, reverse: bool = False) -> Iterator[NetworkFrame]:
        for frame in self.pictures(start, stop, reverse=reverse):
            yield self.network_frame(frame)

    def pictures(self, start: int, stop: int | None = None, *, reverse: bool = False) -> Iterator[Frame]:
        """Frames squeezed to S x S."""
        return self.source.frames(start, stop, reverse=reverse, size=(self.image_size, self.image_size))

    def network_frame(self, frame: Frame) -> NetworkFrame:
        """One of them, prepared."""
        return NetworkFrame(frame.index, frame.timestamp_s, self.prepare(frame.image))


class TensorFrames:
    """Frames that are resized and normalised already: float32 ``[T, 3, S, S]``, on any device."""

    def __init__(self, images_T3SS: Tensor, height: int, width: int, device: torch.device, fps: float = 24.0):
        self.images_T3SS, self.height, self.width = images_T3SS, height, width
        self.num_frames, self.device, self.fps = len(images_T3SS), device, fps

    def images(self, start: int, stop: int | None = None, *, reverse: bool = False) -> Iterator[NetworkFrame]:
        stop = (0 if reverse else self.num_frames) if stop is None else stop
        for index in range(start, stop - 1, -1) if reverse else range(start, min(stop, self.num_frames)):
            yield NetworkFrame(index, index / self.fps, self.images_T3SS[index].to(self.device))


class ArrayFrames:
    """A `FrameSource` over arrays or PIL pictures of one size in memory; resizes as the reference does frames of a folder."""

    def __init__(self, images: Sequence[np.ndarray | Image.Image], fps: float = 24.0):
        if not len(images):
            raise ConfigError("a video of 0 frames was given, expected at least one")
        self._images, self.fps, self.num_frames = images, fps, len(images)
        self.height, self.width = check_picture(images[0]).shape[:2]

    def frames(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False, size: tuple[int, int] | None = None
    ) -> Iterator[Frame]:
        stop = (0 if reverse else self.num_frames) if stop is None else stop
        for index in range(start, stop - 1, -1) if reverse else range(start, min(stop, self.num_frames)):
            image = check_picture(self._images[index])
            if image.shape[:2] != (self.height, self.width):
                raise ConfigError(f"frame {index} is {image.shape[:2]}, expected {(self.height, self.width)} as frame 0")
            if size is not None:
                image = np.asarray(Image.fromarray(image).resize((size[1], size[0])))
            yield Frame(index, index / self.fps, image)


def check_picture(image: np.ndarray | Image.Image, *, floats: bool = False) -> np.ndarray:
    """RGB ``[H, W, 3]`` of an array or a PIL picture, uint8, or with ``floats`` also floating point.

    Raises:
        ConfigError: another shape or dtype, or NaN; the message states what came.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        found = f"shape {image.shape}" if isinstance(image, np.ndarray) else f"type {type(image).__name__}"
        raise ConfigError(f"picture has {found}, expected an RGB array [height, width, 3]")
    if floats and np.issubdtype(image.dtype, np.floating):
        if not np.isfinite(image).all():
            raise ConfigError("picture holds NaN or infinity, expected numbers in 0..1")
        return image
    if image.dtype != np.uint8:
        expected = "uint8 (0..255)" + (" or floating point (0..1)" if floats else "")
        raise ConfigError(f"picture has dtype {image.dtype}, expected {expected}")
    return image
