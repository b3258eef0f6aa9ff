"""Masklets for PyTorch: clips of frames with their masks, to be read by a `DataLoader`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.dataset import MaskletDataset


class Clip(TypedDict):
    """A few annotated frames of a video; T frames, N masklets.

    ``frames_T3HW`` is uint8 RGB, ``masks_TNHW`` bool, ``masklet_ids_N`` and ``frame_indices_T`` are int64.
    """

    video_id: str
    frame_indices_T: Tensor
    masklet_ids_N: Tensor
    frames_T3HW: Tensor
    masks_TNHW: Tensor


@dataclass(frozen=True, slots=True)
class _Place:
    """A clip: the first of its annotated frames, by place."""

    video_id: str
    start: int


class TorchMaskletDataset(Dataset[Clip]):
    """Clips of `length` annotated frames, ``stride`` annotated frames apart; a video too short for one gives a shorter one.

    Clips differ in the number of masklets, and in size unless ``size`` is given: use ``DataLoader(..., batch_size=None)``, or
    a ``collate_fn`` of your own. Frames are decoded when a clip is asked for. Workers of a loader over a bucket need
    ``multiprocessing_context="spawn"``.

    Args:
        size: (height, width) to squeeze frames and masks to; default: as displayed.
        most: masklets in a clip, the largest ones; default: all that are visible in it.
        filter: of the masklets table, such as ``pc.field("stability_score_mean") > 0.9``.
        video_options: fsspec's options for the videos.

    Raises:
        ConfigError: an argument is out of range, or no video has such masklets.
    """

    def __init__(
        self,
        dataset: MaskletDataset,
        length: int = 8,
        *,
        stride: int = 1,
        size: tuple[int, int] | None = None,
        most: int | None = None,
        filter: pc.Expression | None = None,
        video_options: Mapping[str, Any] | None = None,
    ) -> None:
        if length < 1 or stride < 1 or (most is not None and most < 1):
            raise ConfigError(f"length is {length}, stride {stride}, most {most}; expected 1 or more")
        self.dataset, self.length, self.stride, self.size = dataset, length, stride, size
        self.most, self.video_options = most, video_options
        chosen = dataset.masklets(columns=["video_id", "masklet_id", "visible_frame_count"], filter=filter)
        self._masklets: dict[str, list[int]] = {}
        for row in chosen.to_pylist():
            if row["visible_frame_count"]:
                self._masklets.setdefault(row["video_id"], []).append(row["masklet_id"])
        counts = dataset.videos(columns=["video_id", "annotated_frame_count"]).to_pylist()
        span = (length - 1) * stride + 1
        self._places = [
            _Place(row["video_id"], start)
            for row in counts
            if row["video_id"] in self._masklets
            for start in range(0, max(row["annotated_frame_count"] - span + 1, 1), length * stride)
        ]
        if not self._places:
            raise ConfigError(f"{dataset.storage.url} holds no such masklets")

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._places)

    def __getitem__(self, index: int) -> Clip:
        """Raises a `VideoError` if the video cannot be read."""
        place = self._places[index]
        frames, ids = self._choose(place)
        shown = list(
            self.dataset.annotated_frames(
                place.video_id, ids, frame_indices=frames, size=self.size, storage_options=self.video_options
            )
        )
        if len(shown) != len(frames):
            raise VideoError(f"video {place.video_id!r} has {len(shown)} of the frames {frames}")
        return {
            "video_id": place.video_id,
            "frame_indices_T": torch.tensor(frames),
            "masklet_ids_N": torch.tensor(ids, dtype=torch.int64),
            "frames_T3HW": torch.from_numpy(np.stack([one.frame.image for one in shown])).permute(0, 3, 1, 2),
            "masks_TNHW": torch.from_numpy(np.stack([one.masks_NHW for one in shown])),
        }

    def _choose(self, place: _Place) -> tuple[list[int], list[int]]:
        """Frame numbers of a clip, and its masklets: those that it shows, or the first one if it shows none."""
        ids = self._masklets[place.video_id]
        columns = ["masklet_id", "frame_index", "area"]
        table = self.dataset.masks(place.video_id, columns=columns, filter=pc.field("masklet_id").isin(ids))
        masklets, indices, areas = (table[name].to_numpy() for name in columns)
        frames = np.unique(indices)[place.start :: self.stride][: self.length]
        sizes = {number: int(areas[(masklets == number) & np.isin(indices, frames)].sum()) for number in ids}
        largest: Sequence[int] = sorted(ids, key=lambda number: -sizes[number])[: self.most]
        shown = [number for number in largest if sizes[number]] or [largest[0]]
        return frames.tolist(), sorted(shown)
