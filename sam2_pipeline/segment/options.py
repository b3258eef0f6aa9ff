"""How objects are tracked."""

from dataclasses import dataclass, field

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.conventions import DecodingRules
from sam2_pipeline.model.memory_bank import MAX_POINTERS, MemoryBank, MemoryRules


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """How objects are tracked. The defaults do what a user means; `compat` sets what the reference does.

    Attributes:
        memory: which memories are read.
        decoding: how one mask is chosen among the decoder's.
        binarise_prompted: masks of prompted frames are remembered as 0 or 1, not as probabilities.
        fill_hole_area: background components up to this many low-resolution pixels are filled.
        non_overlapping: a pixel belongs to the object with the highest logit only (in what is handed out, not in memory).
        corrections_condition: a prompt on a frame that was tracked makes it a conditioning frame. The reference stores the
            result where the next propagation forgets it.
        own_timeline: an object is tracked only where a prompt of its own lies behind, in the direction of travel; prompts
            given while frames are walked through count from the next frame on.
        forget_around_corrections: a prompt makes the object forget what was tracked within seven strides of it.
        history_frames: how far from the current frame results can be corrected without losing their neighbours'
            memories; None keeps everything for ever. Costs about 0.8 MB per object and frame at 1024 pixels.
        row_batch: at most this many objects go through the network together; halved when memory runs out.
    """

    memory: MemoryRules = field(default_factory=MemoryRules)
    decoding: DecodingRules = field(default_factory=DecodingRules)
    binarise_prompted: bool = True
    fill_hole_area: int = 8
    non_overlapping: bool = False
    corrections_condition: bool = True
    own_timeline: bool = True
    forget_around_corrections: bool = False
    history_frames: int | None = 32
    row_batch: int = 16

    def __post_init__(self) -> None:
        if self.row_batch < 1:
            raise ConfigError(f"row_batch is {self.row_batch}, expected at least 1")
        if self.history_frames is not None and self.history_frames < 0:
            raise ConfigError(f"history_frames is {self.history_frames}, expected None or at least 0")

    def forget(self, bank: MemoryBank, frame: int) -> None:
        """Drops what the history need not hold, never what the next frame may read."""
        if self.history_frames is not None:
            read = max(self.history_frames, self.memory.map_horizon)
            bank.forget_far_from(frame, shown=self.history_frames, read=read, pointers=MAX_POINTERS, min_iou=self.memory.min_iou)
