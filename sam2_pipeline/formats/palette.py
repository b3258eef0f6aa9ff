"""One picture of object numbers: the PNG with a palette that DAVIS, MOSE and many others keep masks in."""

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from sam2_pipeline.errors import VideoError


def read_labels(file: Path | IO[bytes]) -> np.ndarray:
    """Pixel values ``[H, W]``: of a palette picture the indices, not the colours.

    Raises:
        VideoError: it is no readable picture of one value a pixel.
    """
    try:
        with Image.open(file) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"is not a readable picture: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise VideoError(f"is a picture of mode {mode}, expected palette or greyscale")
    return values.astype(np.uint8) if values.dtype == bool else values


def save_labels(labels: np.ndarray, file: Path | IO[bytes]) -> None:
    """Writes object numbers, uint8 ``[H, W]``, as PNG in DAVIS's colours."""
    picture = Image.fromarray(labels)
    picture.putpalette(_palette())  # makes a grey picture one of numbers
    picture.save(file, "PNG")


def _palette() -> bytes:
    """PASCAL's and DAVIS's colours: a number's bits, dealt to red, green and blue in turn, from the highest down."""
    number = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((number >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()
