"""What is compared: masks of objects over frames, and who supplies them."""

from typing import Protocol

from sam2_pipeline.masklets.rle import Rle

Masks = dict[int, dict[int, Rle]]  # of one video: object id -> native frame number -> mask, empty where it is not visible


class MaskSource(Protocol):
    """The masks of many videos, read a video at a time. Picklable.

    Attributes:
        url: where they are.
        automatic: whether object ids are mere numbers, so that they say nothing about which true object is meant.
    """

    url: str
    automatic: bool

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Sorted."""
        ...

    def read(self, video_id: str) -> Masks:
        """The masks of one video.

        Raises:
            VideoError: they cannot be read, or are none.
        """
        ...
