"""A masklet: one object's masks over time, and the pieces in which the segmenters hand it out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.verdict import Judgement

Kind = Literal["auto", "prompted"]


@dataclass(frozen=True, slots=True)
class MaskletFrame:
    """One object's mask on one annotated frame; an empty RLE where the object is not visible.

    Attributes:
        frame_index: native frame number.
        timestamp_s: presentation time in seconds.
        rle: mask at the displayed size.
        predicted_iou: the model's own estimate of the mask's IoU, 0..1.
        object_score: presence logit; not above zero means occluded.
        stability_score: IoU of the mask cut at logits +1 and -1 (0 when both are empty).
        raw_area: pixels of the mask before it was cleaned; None where nobody knows.
    """

    frame_index: int
    timestamp_s: float
    rle: Rle
    predicted_iou: float
    object_score: float
    stability_score: float
    raw_area: int | None = None


@dataclass(frozen=True, slots=True)
class MaskletSeed:
    """How a masklet began: its number in the video, and the prompt it was tracked from.

    ``object_id`` is the caller's number for prompted masklets and None for automatic ones. ``attributes`` is what else an
    imported annotation says of the object. ``shot_index`` is the shot in which it was found or prompted, None if shots were not
    looked for; ``parent_masklet_id`` the smallest masklet that this one is part of, None if there is none, or nobody looked.
    """

    masklet_id: int
    kind: Kind
    prompt: Prompt
    object_id: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shot_index: int | None = None
    parent_masklet_id: int | None = None


@dataclass(frozen=True, slots=True)
class FrameMasks:
    """Masks of several masklets on one frame, keyed by masklet id. Frames may arrive in any order (backward passes)."""

    frame_index: int
    timestamp_s: float
    masks: dict[int, MaskletFrame]


@dataclass(frozen=True, slots=True)
class Masklet:
    """A whole masklet: ``frames`` are in order of ``frame_index``, one for every annotated frame of the video.

    ``judgement`` is what was judged of it, None if nothing was.
    """

    video_id: str
    seed: MaskletSeed
    frames: tuple[MaskletFrame, ...]
    judgement: Judgement | None = None

    @property
    def masklet_id(self) -> int:
        return self.seed.masklet_id

    @property
    def kind(self) -> Kind:
        return self.seed.kind

    def __repr__(self) -> str:
        return f"Masklet({self.video_id!r}, {self.masklet_id}, {self.kind}, {len(self.frames)} frames)"
