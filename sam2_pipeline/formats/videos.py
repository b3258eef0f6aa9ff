"""Where videos are whose annotations lie elsewhere."""

from collections.abc import Callable
from typing import Any

from sam2_pipeline.io.storage import Storage


def videos_below(url: str, options: dict[str, Any]) -> Callable[[str], str]:
    """The address of a video by its id: a folder of pictures ``url/VIDEO`` if there is one, else ``url/VIDEO.mp4``."""
    storage = Storage(url, options)
    return lambda video_id: storage.locate(video_id if storage.exists(video_id) else f"{video_id}.mp4")
