"""What a session asks of whatever runs the networks: PyTorch (`torch_engine.py`), or onnxruntime (`sam2_pipeline.onnx`).

An engine remembers nothing. Its arrays (pictures, records, results) are its own; prompts reach it as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from sam2_pipeline.model.memory_bank import FrameRecord, MemoryBank, MemoryRules, ReadingPlan


class OfFrame(Protocol):
    """What is handed out for a frame knows which one it is of."""

    @property
    def frame_index(self) -> int: ...


Result = TypeVar("Result", bound=OfFrame, covariant=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One object to be tracked on one frame: its memory, and the lane (picture) it looks at."""

    bank: MemoryBank
    frame_index: int
    direction: int
    video_length: int | None
    lane: int = 0


def alike(rows: Sequence[Row], rules: MemoryRules) -> list[tuple[list[int], list[ReadingPlan]]]:
    """The numbers of the rows that see equally many memories, group by group, and what each of them reads.

    Grouping instead of padding: every row gets what it would get alone.
    """
    groups: dict[tuple[int, int], tuple[list[int], list[ReadingPlan]]] = {}
    for number, row in enumerate(rows):
        plan = row.bank.plan(row.frame_index, row.direction, row.video_length, rules)
        numbers, plans = groups.setdefault(plan.signature, ([], []))
        numbers.append(number)
        plans.append(plan)
    return list(groups.values())


class Engine(Protocol[Result]):
    """The networks, and what is done with their arrays. ``Result`` is what a frame's masks are handed out as."""

    @property
    def image_size(self) -> int:
        """Side S of the network input."""
        ...

    def prepare(self, image: np.ndarray) -> Any:
        """The network input ``[3, S, S]`` of a picture, uint8 ``[S, S, 3]``."""
        ...

    def mask_prompts(self, masks_NHW: np.ndarray) -> Any:
        """Masks of any size (bool), as `adopt_masks` takes them."""
        ...

    @property
    def together(self) -> int:
        """How many frames it pays to encode together, where they can be had."""
        ...

    def encode(self, images_3SS: Sequence[Any]) -> list[Any]:
        """Features of every frame."""
        ...

    def decode_points(
        self, features: Any, row: Row | None, points_P2: np.ndarray, labels_P: np.ndarray, earlier: FrameRecord | None
    ) -> FrameRecord:
        """The result of clicks in pixels of the S x S input, which refine an ``earlier`` result; ``row`` has a past to read."""
        ...

    def adopt_masks(self, features: Any, masks_NSS: Any) -> list[FrameRecord]:
        """Mask prompts as results."""
        ...

    def remember(self, features: Any, records: Sequence[FrameRecord]) -> None:
        """Encodes the memories of prompted records of one frame, from their stored masks."""
        ...

    def track(self, features: Any, rows: Sequence[Row]) -> list[FrameRecord]:
        """Results of every row on its frame, in their order, with their memories."""
        ...

    def result(
        self,
        frame_index: int,
        timestamp_s: float,
        records: dict[int, FrameRecord | None],
        height: int,
        width: int,
    ) -> Result:
        """What is handed out for a frame of a video of this displayed size; None: nothing is known of the object there."""
        ...
