"""Pictures on their way into the network: what a session needs of a video, whatever holds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
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
                image = squeeze(image, size)
            yield Frame(index, index / self.fps, image)


class RecentFrames:
    """A `FrameSource` over the latest ``kept`` frames of a stream, squeezed to S x S; frames are numbered as they are added."""

    num_frames: int | None = None

    def __init__(self, height: int, width: int, image_size: int, kept: int):
        self.height, self.width, self.image_size = height, width, image_size
        self._frames: deque[Frame] = deque(maxlen=kept)
        self._names: deque[int] = deque(maxlen=kept)
        self._added = 0

    @property
    def oldest(self) -> int:
        """Number of the oldest frame that is held."""
        return self._added - len(self._frames)

    def add(self, name: int, timestamp_s: float, image: np.ndarray) -> int:
        """Takes a frame, known as ``name`` outside, and gives its number here. The oldest makes room for it."""
        self._frames.append(Frame(self._added, timestamp_s, squeeze(image, (self.image_size, self.image_size))))
        self._names.append(name)
        self._added += 1
        return self._added - 1

    def number(self, name: int) -> int:
        """The number here of the first frame held that is ``name`` or later."""
        return self.oldest + next(place for place, held in enumerate(self._names) if held >= name)

    def frames(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False, size: tuple[int, int] | None = None
    ) -> Iterator[Frame]:
        if reverse or size != (self.image_size, self.image_size):
            raise ConfigError(f"recent frames of a stream come forward and squeezed to {self.image_size}, not {size}")
        if not self.oldest <= start < self._added:
            raise ConfigError(f"frame {start} is not among the recent ones, {self.oldest} to {self._added - 1}")
        for number in range(start, self._added if stop is None else min(stop, self._added)):
            yield self._frames[number - self.oldest]


def squeeze(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at (height, width), as the reference resizes frames of a folder."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0])))


def check_picture(image: np.ndarray | Image.Image, *, floats: bool = False) -> np.ndarray:
    """RGB ``[H, W, 3]`` of an array or a PIL picture, contiguous, uint8, or with ``floats`` also float32.

    Raises:
        ConfigError: another shape or dtype, or NaN; the message states what came.
        VideoError: a PIL picture whose file is damaged.
    """
    if isinstance(image, Image.Image):
        try:
            image = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of these
            raise VideoError(f"picture cannot be read: {error}") from error
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        found = f"shape {image.shape}" if isinstance(image, np.ndarray) else f"type {type(image).__name__}"
        raise ConfigError(f"picture has {found}, expected an RGB array [height, width, 3]")
    if floats and np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):
            image = np.ascontiguousarray(image, np.float32)
        if not np.isfinite(image).all():
            raise ConfigError("picture holds NaN or infinity, expected numbers in 0..1")
        return image
    if image.dtype != np.uint8:
        expected = "uint8 (0..255)" + (" or floating point (0..1)" if floats else "")
        raise ConfigError(f"picture has dtype {image.dtype}, expected {expected}")
    return np.ascontiguousarray(image)
