"""Masks on a frame: one colour per object, an outline, its number; prompts as marks; captions.

Letters in names: N objects, H x W pixels.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.centre import centre
from sam2_pipeline.masklets.prompts import Prompt

Colour = tuple[int, int, int]

_GOLDEN = 0.6180339887498949  # the step between hues that keeps any number of them apart
_TONES = ((0.75, 1.0), (0.9, 1.0), (0.45, 1.0), (0.85, 0.8))  # saturation and value, in turn
_POSITIVE, _NEGATIVE, _BOX, _WHITE, _BLACK = (40, 220, 80), (240, 50, 50), (255, 220, 0), (255, 255, 255), (0, 0, 0)


def colour(number: int) -> Colour:
    """Red, green and blue, 0..255, of an object: the same everywhere, and unlike those of the numbers beside it."""
    saturation, value = _TONES[number % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlay(
    frame: np.ndarray, masks_NHW: np.ndarray, ids: Sequence[int], *, strength: float = 0.45, numbers: bool = True
) -> np.ndarray:
    """A frame with masks on it, uint8 ``[H, W, 3]``; the frame itself stays as it is.

    Small masks lie on large ones, so that parts show on their wholes.

    Args:
        frame: uint8 RGB ``[H, W, 3]``.
        masks_NHW: bool; empty ones are left out.
        ids: N numbers, which choose the colours.
        strength: how much of the colour covers the frame, 0 (outlines only) to 1.
        numbers: write each object's number at its centre.

    Raises:
        ConfigError: frame, masks and numbers do not fit together.
    """
    if frame.ndim != 3 or masks_NHW.shape != (len(ids), *frame.shape[:2]):
        raise ConfigError(f"frame is {frame.shape}, masks {masks_NHW.shape}, {len(ids)} ids; expected [H, W, 3], [N, H, W] and N")
    picture = frame.copy()
    order = [n for n in np.argsort(-masks_NHW.sum(axis=(1, 2)), kind="stable") if masks_NHW[n].any()]
    for n in order:
        tint = np.array(colour(ids[n]), np.float32)
        picture[masks_NHW[n]] = (picture[masks_NHW[n]] * (1 - strength) + tint * strength).astype(np.uint8)
        picture[outline(masks_NHW[n], _stroke(frame))] = tint.astype(np.uint8)
    for n in order if numbers else ():
        x, y, _ = centre(masks_NHW[n]) or (0, 0, 0.0)
        picture = write(picture, str(ids[n]), (x, y), anchor="mm")
    return picture


def outline(mask: np.ndarray, thickness: int = 1) -> np.ndarray:
    """The outermost ``thickness`` pixels of a bool mask ``[H, W]``, bool; the picture's edge is no outline."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edge = np.zeros_like(mask)
    if len(rows):
        # One pixel more than the mask needs, so that what is outside of it is seen.
        inside = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
        edge[inside] = mask[inside] & ~binary_erosion(mask[inside], iterations=thickness, border_value=1)
    return edge


def draw_outlines(frame: np.ndarray, masks_NHW: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """A frame with outlines only, each with a dark seam, so that they show on any background."""
    picture = frame.copy()
    for mask, tint in zip(masks_NHW, colours, strict=True):
        edge = outline(mask, _stroke(frame))
        picture[binary_dilation(edge) & ~edge] //= 2
        picture[edge] = tint
    return picture


def draw_prompt(frame: np.ndarray, prompt: Prompt) -> np.ndarray:
    """A frame with a prompt's marks: a green plus for a click on the object, a red minus beside it, a yellow box."""
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    unit = max(min(frame.shape[:2]) // 40, 3)
    if prompt.box_xyxy is not None:
        pen.rectangle(prompt.box_xyxy.tolist(), outline=_BOX, width=_stroke(frame))
    for (x, y), label in zip(prompt.points_xy.tolist(), prompt.point_labels.tolist()):
        pen.ellipse((x - unit, y - unit, x + unit, y + unit), fill=_POSITIVE if label else _NEGATIVE, outline=_WHITE)
        reach, width = unit * 0.6, max(unit // 3, 1)
        pen.line((x - reach, y, x + reach, y), fill=_WHITE, width=width)
        if label:
            pen.line((x, y - reach, x, y + reach), fill=_WHITE, width=width)
    return np.asarray(image)


def write(frame: np.ndarray, text: str, at: tuple[float, float], *, anchor: str = "la") -> np.ndarray:
    """A frame with white text, rimmed with black, at (x, y). ``anchor`` is Pillow's: ``la`` left and top, ``mm`` the middle."""
    image = Image.fromarray(frame)
    size = max(min(frame.shape[:2]) // 24, 10)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(at, text, _WHITE, font, anchor=anchor, stroke_width=max(size // 8, 1), stroke_fill=_BLACK)
    return np.asarray(image)


def _stroke(frame: np.ndarray) -> int:
    """Width of lines: a pixel in small pictures, more in large ones."""
    return max(min(frame.shape[:2]) // 240, 1)
