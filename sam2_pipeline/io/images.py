"""Folders of pictures, and single pictures, as videos."""

import io
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sam2_pipeline.errors import ConfigError, StorageError, VideoError
from sam2_pipeline.io.listing import is_folder
from sam2_pipeline.io.urls import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, extension, filesystem_of, is_local
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.frames import Frame

DEFAULT_FRAME_RATE = 24.0  # that of SA-V and DAVIS


def is_image_source(url: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether ``url`` is a picture (by its extension) or a folder, rather than a video file."""
    fs, path = filesystem_of(url, storage_options)
    # Asking a remote store costs a request, and a name such as clip.mp4 says enough.
    surely_video = extension(url) in VIDEO_EXTENSIONS and not is_local(url) and not url.endswith("/")
    return extension(url) in IMAGE_EXTENSIONS or (not surely_video and is_folder(fs, path))


def frame_order(names: Sequence[str]) -> list[str]:
    """Pictures in the order of their frames: by number when every stem is one, else naturally (a2 before a10)."""

    def natural(name: str) -> tuple:
        stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return (*((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", stem)), name)

    # A stem that is a number is its own only part, so that one order serves for both.
    return sorted(names, key=natural)


class ImageSequence(Video):
    """One picture, or a folder of equally large ones, read one by one (JPEG, PNG, WebP, BMP, TIFF).

    Pictures are turned as their EXIF orientation says unless ``exif_orientation`` is False (then as SAM 2's own loader
    takes them, which ignores it). ``size`` resamples with Pillow's antialiased bicubic filter, as that loader does.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        max_pixels: int,
        frame_rate: float = DEFAULT_FRAME_RATE,
        exif_orientation: bool = True,
    ) -> None:
        super().__init__(url)
        if not frame_rate > 0:
            raise ConfigError(f"frame_rate is {frame_rate}, expected frames per second above 0")
        self._max_pixels, self._exif = max_pixels, exif_orientation
        self._fs, path = filesystem_of(url, storage_options)
        self._paths = self._list(path)
        self.fps, self.num_frames = frame_rate, len(self._paths)
        self.duration_s = self.num_frames / frame_rate
        self.rotation = 0
        with self._open(0) as first:
            self.codec = (first.format or "unknown").lower()
            self.width, self.height = self._upright(first).size

    def _list(self, path: str) -> list[str]:
        if not is_folder(self._fs, path):
            return [path]
        names = [entry["name"] for entry in self._fs.ls(path, detail=True) if entry["type"] == "file"]
        hidden = [name for name in names if name.rsplit("/", 1)[-1].startswith(".")]
        pictures = [name for name in names if extension(name) in IMAGE_EXTENSIONS and name not in hidden]
        if not pictures:
            wanted = " ".join(sorted(IMAGE_EXTENSIONS))
            raise VideoError(f"{self.url}: the folder holds {len(names)} files but no pictures, expected {wanted}")
        return frame_order(pictures)

    def _open(self, number: int) -> Image.Image:
        """Open picture ``number`` (its header: pixels are decoded later) and check its size."""
        path = self._paths[number]
        try:
            image = Image.open(io.BytesIO(self._fs.cat_file(path)))
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise VideoError(f"{self.url}: cannot be read: {type(error).__name__}: {path}") from error
        except UnidentifiedImageError as error:
            raise VideoError(f"{self.url}: frame {number} ({path}) is in no picture format that Pillow knows") from error
        except Image.DecompressionBombError as error:
            raise VideoError(f"{self.url}: frame {number} ({path}): {error}") from error
        except OSError as error:
            raise StorageError(f"{self.url}: reading {path} failed: {type(error).__name__}: {error}") from error
        if image.width * image.height > self._max_pixels:
            raise VideoError(
                f"{self.url}: {path} is {image.width}x{image.height} pixels, expected at most {self._max_pixels} in all"
            )
        return image

    def _upright(self, image: Image.Image) -> Image.Image:
        return ImageOps.exif_transpose(image) if self._exif else image

    def _read(self, number: int, size: tuple[int, int] | None) -> Frame:
        with self._open(number) as stored:
            try:
                image = self._upright(stored)
                width, height = image.size
                image = image.convert("RGB")
            except (OSError, SyntaxError, ValueError) as error:  # truncated or damaged pixels: Pillow raises all of these
                raise VideoError(f"{self.url}: frame {number} ({self._paths[number]}) is damaged: {error}") from error
        if (width, height) != (self.width, self.height):
            raise VideoError(
                f"{self.url}: frame {number} ({self._paths[number]}) is {width}x{height} pixels, "
                f"expected {self.width}x{self.height} like the first frame"
            )
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return Frame(number, number / self.fps, np.array(image))

    def _forward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        for number in range(start, stop):
            yield self._read(number, size)

    def _backward(self, start: int, stop: int, size: tuple[int, int] | None) -> Generator[Frame, None, None]:
        for number in range(start, stop - 1, -1):
            yield self._read(number, size)
