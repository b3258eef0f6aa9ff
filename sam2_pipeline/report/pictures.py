"""Pictures for a page: frames with masklets on them, as JPEG inside of it."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from sam2_pipeline.errors import PipelineError
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.render.layout import fit
from sam2_pipeline.render.overlay import colour, draw_outlines, overlay
from sam2_pipeline.report.sheets import Pick

Masks = dict[int, dict[int, Rle]]  # frame -> masklet -> mask

_FRAMES = 3  # of a masklet
_CROP, _THUMB = (240, 180), 320  # pixels: width and height of a masklet's picture, width of a video's
_ROOM = 2.2  # a crop is so many times as large as the mask's box
_TINT = 0.35  # how strongly a single mask is coloured, so that its object can be seen
_QUALITY = 78
_GREY = 128


@dataclass(frozen=True)
class Artist:
    """Draws; where a video is not to be had, on grey.

    Attributes:
        video_options: fsspec's options for the address of a video.
        unreadable: of every video that could not be opened, why.
    """

    dataset: MaskletDataset
    video_options: Callable[[str], Mapping[str, Any]]
    unreadable: dict[str, str] = field(default_factory=dict)

    def masklets(self, picks: Iterable[Pick]) -> dict[tuple[str, int], list[str]]:
        """Of every masklet a few frames that show it, cut around it."""
        by_video: dict[str, list[int]] = {}
        for pick in picks:
            by_video.setdefault(pick.video_id, []).append(pick.masklet_id)
        pictures: dict[tuple[str, int], list[str]] = {}
        for video_id, ids in by_video.items():
            masks = {number: self._spread(video_id, number) for number in ids}
            frames = self._frames(video_id, {frame: {n: rle} for n in ids for frame, rle in masks[n].items()})
            for number in ids:
                drawn = [_cut(frames[frame], number, rle) for frame, rle in masks[number].items()]
                pictures[video_id, number] = [embed(picture) for picture in drawn]
        return pictures

    def video(self, video_id: str, frame: int) -> str:
        """One frame with all its masklets."""
        rows = self.dataset.masks(video_id, columns=["masklet_id", "rle"], filter=pc.field("frame_index") == frame).to_pylist()
        masks = {row["masklet_id"]: Rle.from_coco(row["rle"]) for row in rows}
        image = self._frames(video_id, {frame: masks})[frame]
        return embed(fit(overlay(image, np.stack([decode(rle) for rle in masks.values()]), list(masks)), _THUMB))

    def _spread(self, video_id: str, number: int) -> dict[int, Rle]:
        """A few masks of a masklet, evenly spread over the frames that show it."""
        seen = pc.field("area") > 0
        frames = self.dataset.masks(video_id, number, columns=["frame_index"], filter=seen)["frame_index"].to_pylist()
        places = np.unique(np.linspace(0, len(frames) - 1, min(_FRAMES, len(frames))).round().astype(int))
        chosen = [frames[place] for place in places]
        wanted = pc.field("frame_index").isin(chosen)
        rows = self.dataset.masks(video_id, number, columns=["frame_index", "rle"], filter=wanted).to_pylist()
        return {row["frame_index"]: Rle.from_coco(row["rle"]) for row in rows}

    def _frames(self, video_id: str, masks: Masks) -> dict[int, np.ndarray]:
        """Decoded frames of these numbers; grey ones in the size of the masks where there are none."""
        uri = self.dataset.videos(video_id, columns=["uri"])["uri"][0].as_py()
        try:
            if uri is None:
                raise PipelineError("nothing says where it is")
            with open_video(uri, storage_options=dict(self.video_options(uri))) as video:
                return {number: video[number].image for number in sorted(masks)}
        except (PipelineError, IndexError) as error:
            self.unreadable[video_id] = str(error)
            sizes = {number: next(iter(found.values())) for number, found in masks.items()}
            return {number: np.full((rle.height, rle.width, 3), _GREY, np.uint8) for number, rle in sizes.items()}


def embed(picture: np.ndarray) -> str:
    """A picture, uint8 RGB ``[H, W, 3]``, as a data URL."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _cut(frame: np.ndarray, number: int, rle: Rle) -> np.ndarray:
    """The mask on its frame, with some room around it, in the size of all such pictures."""
    x, y, width, height = rle.bbox_xywh
    aspect = _CROP[0] / _CROP[1]
    tall = min(max(height * _ROOM, width * _ROOM / aspect, 48), frame.shape[0], frame.shape[1] / aspect)
    box = _inside((x + width / 2, y + height / 2), (tall * aspect, tall), frame.shape)
    mask = decode(rle)[None]
    drawn = draw_outlines(overlay(frame, mask, [number], strength=_TINT, numbers=False), mask, [colour(number)])
    return np.asarray(Image.fromarray(drawn).resize(_CROP, Image.Resampling.LANCZOS, box=box))


def _inside(centre: Sequence[float], size: Sequence[float], shape: Sequence[int]) -> tuple[float, float, float, float]:
    """A box (x0, y0, x1, y1) of this size around the centre, moved so that it lies in the picture."""
    left = min(max(centre[0] - size[0] / 2, 0.0), shape[1] - size[0])
    top = min(max(centre[1] - size[1] / 2, 0.0), shape[0] - size[1])
    return left, top, left + size[0], top + size[1]
