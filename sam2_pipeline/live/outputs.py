"""Where a stream goes: an overlay video, masks as JSON lines, and a view in the browser."""

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TextIO

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.render.overlay import overlay
from sam2_pipeline.render.video import VideoWriter
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.live import LiveResult

if TYPE_CHECKING:
    from sam2_pipeline.live.view import View

STDOUT = "-"


class Outputs:
    """Takes results as they come; whole at any moment and in the end. A context manager.

    Args:
        video: where the frames with their masks go as mp4; None: nowhere.
        masks: where one line of JSON for each frame goes, ``-`` for standard output; None: nowhere.
        fps: usual frames a second of the video; each frame has its own time besides.
        view: port of the view in the browser; None: there is none. ``view`` tells its address.

    Raises:
        ConfigError: the port cannot be had, or the web server is not installed.
        StorageError: a file cannot be written.
    """

    def __init__(self, video: str | None, masks: str | None, fps: float, view: int | None = None) -> None:
        with ExitStack() as opened:
            self._video = None if video is None else opened.enter_context(VideoWriter(video, fps))
            self._masks = None if masks is None else _open_lines(masks, opened)
            self.view = None if view is None else opened.enter_context(_open_view(view))
            self._opened = opened.pop_all()

    def write(self, result: LiveResult) -> None:
        if self._masks is not None:
            print(json.dumps(mask_line(result)), file=self._masks, flush=True)
        watched = self.view is not None and self.view.watched
        if result.image is not None and (self._video is not None or watched):
            picture = overlay(result.image, result.masks().cpu().numpy(), result.object_ids)
            if self._video is not None:
                self._video.write(picture, result.timestamp_s)
            if self.view is not None and watched:
                self.view.show(picture)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()


def mask_line(result: LiveResult) -> dict:
    """A frame's masks as JSON: COCO run-length codes, boxes (x, y, width, height), areas and scores."""
    objects = [
        {
            "object_id": object_id,
            "rle": mask.rle.to_coco(),
            "bbox": list(mask.rle.bbox_xywh),
            "area": mask.rle.area,
            "predicted_iou": round(mask.predicted_iou, 4),
            "object_score": round(mask.object_score, 4),
        }
        for object_id, mask in collect_frame(result).masks.items()
    ]
    return {
        "frame_index": result.frame_index,
        "timestamp_s": round(result.timestamp_s, 6),
        "latency_s": round(result.latency_s, 4),
        "objects": objects,
    }


def _open_view(port: int) -> "View":
    try:
        from sam2_pipeline.live.view import View
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed, which --view needs: pip install 'sam2-pipeline[serve]'") from error
    return View(port)


def _open_lines(place: str, opened: ExitStack) -> TextIO:
    if place == STDOUT:
        return sys.stdout
    try:
        return opened.enter_context(open(place, "w", encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{place}: cannot be written: {error.strerror or error}") from error
