"""Running out of memory halves the batch, and changes nothing else."""

import numpy as np
import pytest
import torch

from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.model.mask_decoder import DecodedTokens
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions

HOST_ERROR = "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


class Memory:
    """Room for ``rows`` rows; more fail as torch and numpy do."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows, self.error, self.largest = rows, error, 0

    def take(self, rows: int) -> None:
        if rows > self.rows:
            raise self.error
        self.largest = max(self.largest, rows)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError(HOST_ERROR)])
def test_the_batch_is_halved_until_it_fits(error: Exception) -> None:
    memory, batch_size = Memory(3, error), BatchSize(16)

    def work(batch: range) -> list[int]:
        memory.take(len(batch))
        return [item * item for item in batch]

    assert batch_size.run(range(21), work) == [item * item for item in range(21)]
    assert batch_size.size == memory.largest == 2
    assert batch_size.run(range(0), work) == []


def test_what_one_item_cannot_do_is_raised() -> None:
    batch_size = BatchSize(4)
    with pytest.raises(MemoryError):
        batch_size.run(range(5), lambda batch: Memory(0, MemoryError()).take(len(batch)))
    assert batch_size.size == 1


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        BatchSize(4).run(range(5), lambda batch: Memory(0, RuntimeError("shape")).take(len(batch)))


def test_a_video_goes_on_with_smaller_batches(model: Sam2, video: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Automatic masklets with room for three rows, from the first frame's grid to the last frame's tracking."""
    options = GenerateOptions(points_per_side=3, crop_grids=(), pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1.0)
    roomy = MaskletGenerator(model, options, TrackingOptions(row_batch=16)).generate(ArrayFrames(video[:4]))
    assert len(roomy) > 3
    memory = Memory(3, torch.OutOfMemoryError("CUDA out of memory."))
    attend = model.sam_mask_decoder.attend

    def limited(image_NDHW: torch.Tensor, *others: torch.Tensor) -> DecodedTokens:
        memory.take(len(image_NDHW))
        return attend(image_NDHW, *others)

    monkeypatch.setattr(model.sam_mask_decoder, "attend", limited)
    tight = MaskletGenerator(model, options, TrackingOptions(row_batch=16)).generate(ArrayFrames(video[:4]))
    assert memory.largest > 1
    assert len(tight) == len(roomy)
    for one, other in zip(tight, roomy, strict=True):
        for mine, theirs in zip(one.frames, other.frames, strict=True):
            assert (decode(mine.rle) != decode(theirs.rle)).mean() < 1e-3
