"""Pictures of videos for the browser: decoded a few at a time, kept as JPEG."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from PIL import Image

from sam2_pipeline.errors import VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.urls import SCHEMES, forbidden
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.work import VideoRef
from sam2_pipeline.serve.web import NotThere

_OPEN = 4  # videos
_CACHE_BYTES = 256 << 20
_AHEAD = 12  # frames decoded at once: who asks for one will ask for the next
_QUALITY = 85


class FrameStore:
    """Opens videos and gives their frames, at most `_OPEN` and `_CACHE_BYTES` at a time. Any thread may ask.

    ``videos`` are all there are; a client names one by its id and cannot name anything else. Tables
    name their videos, so addresses of other than the ``schemes`` are refused.
    """

    def __init__(
        self, videos: Mapping[str, VideoRef], options: Callable[[str], Mapping[str, Any]], schemes: Collection[str] = SCHEMES
    ) -> None:
        self.videos, self._options, self._schemes = videos, options, schemes
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[Video, threading.Lock]] = OrderedDict()
        self._jpegs: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._bytes = 0

    def open(self, video_id: str) -> Video:
        """The open video.

        Raises:
            NotThere: there is none of this id.
            VideoError: it cannot be read.
        """
        return self._opened(video_id)[0]

    def jpeg(self, video_id: str, index: int, width: int) -> bytes:
        """A frame, no wider than ``width`` pixels."""
        video, decoding = self._opened(video_id)
        if index >= video.num_frames:
            raise NotThere(f"{video_id} has frames 0..{video.num_frames - 1}, not {index}")
        width = min(width, video.width)
        found = self._found((video_id, index, width))
        if found is None:
            with decoding:
                found = self._found((video_id, index, width))  # another request may have been faster
                if found is None:
                    self._decode(video, video_id, index, width)
                    found = self._found((video_id, index, width))
        assert found is not None
        return found

    def _decode(self, video: Video, video_id: str, index: int, width: int) -> None:
        shown = False
        try:
            for frame in video.frames(index, index + _AHEAD):
                self._keep((video_id, frame.index, width), _encoded(frame.image, width))
                shown = True
        except VideoError:
            if not shown:  # damage further on is for whoever asks for that frame
                raise

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1][0].close()

    def _opened(self, video_id: str) -> tuple[Video, threading.Lock]:
        with self._lock:
            if video_id in self._open:
                self._open.move_to_end(video_id)
                return self._open[video_id]
        if video_id not in self.videos:
            raise NotThere(f"there is no video {video_id!r} here")
        uri = self.videos[video_id].uri
        if reason := forbidden(uri, self._schemes):
            raise VideoError(f"{video_id}: {reason}")
        opened = open_video(uri, storage_options=dict(self._options(uri))), threading.Lock()
        with self._lock:
            if video_id in self._open:  # opened twice at the same time
                opened[0].close()
                return self._open[video_id]
            self._open[video_id] = opened
            if len(self._open) > _OPEN:
                # not closed here: somebody may be reading it; it goes when nobody holds it any more
                self._open.popitem(last=False)
            return opened

    def _found(self, key: tuple[str, int, int]) -> bytes | None:
        with self._lock:
            if key in self._jpegs:
                self._jpegs.move_to_end(key)
            return self._jpegs.get(key)

    def _keep(self, key: tuple[str, int, int], jpeg: bytes) -> None:
        with self._lock:
            self._bytes += len(jpeg) - len(self._jpegs.get(key, b""))
            self._jpegs[key] = jpeg
            while self._bytes > _CACHE_BYTES and len(self._jpegs) > _AHEAD:
                self._bytes -= len(self._jpegs.popitem(last=False)[1])


def _encoded(image: np.ndarray, width: int) -> bytes:
    picture = Image.fromarray(image)
    if width < picture.width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
