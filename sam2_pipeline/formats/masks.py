"""Annotated videos and who supplies them."""

from abc import ABC, abstractmethod

from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.rle import Rle

Masks = dict[int, dict[int, Rle]]  # of one video: object id -> native frame number -> mask, empty where it is not visible

USUAL_FPS = 24.0  # of SA-V and DAVIS: stands in where annotations do not say how fast their video is


class MaskSource(ABC):
    """The masklets of many videos, read a video at a time. Picklable.

    Attributes:
        url: where they are.
        automatic: whether object ids are mere numbers, so that they say nothing about which true object is meant.
    """

    url: str
    automatic: bool

    @property
    @abstractmethod
    def video_ids(self) -> tuple[str, ...]:
        """Sorted."""

    @abstractmethod
    def load(self, video_id: str) -> AnnotatedVideo:
        """All that is known of one video.

        Raises:
            VideoError: it cannot be read, or is no such annotation.
        """

    def read(self, video_id: str) -> Masks:
        """The masks of one video by the numbers of the objects; raises as `load`."""
        video = self.load(video_id)
        return {
            number: {frame.frame_index: frame.rle for frame in masklet.frames}
            for number, masklet in zip(video.numbers(), video.masklets)
        }

    def video_url(self, video_id: str) -> str | None:
        """Where the format has the video itself (a file, or a folder of pictures); None where that cannot be told."""
        return None
