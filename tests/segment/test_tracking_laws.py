"""Objects do not feel each other: together is the same as alone, in one video and across several."""

import numpy as np
import pytest
import torch

from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.model.memory_bank import MemoryRules
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.batches import BatchSize
from sam2_pipeline.segment.engine import Row
from sam2_pipeline.segment.inputs import ArrayFrames, DecodedFrames
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.torch_engine import TorchEngine
from sam2_pipeline.segment.tracking import track_rows
from sam2_pipeline.segment.video import VideoSegmenter


def click(object_id: int, frame: int, x: float, y: float) -> Prompt:
    return Prompt(object_id, frame, np.array([[x, y]]), np.array([1]))


# One object begins on each of four frames; the last by a box.
PROMPTS = [
    click(1, 0, 40, 30),
    click(2, 3, 80, 60),
    click(3, 5, 20, 70),
    Prompt(4, 6, box_xyxy=np.array([60, 10, 110, 50])),
]


def tracks(model: Sam2, video: list[np.ndarray], prompts: list[Prompt], **options: object) -> dict[tuple[int, int], tuple]:
    """(object, frame): (logits, IoU, score) of one forward pass."""
    found = {}
    for result in VideoSegmenter(model, TrackingOptions(**options)).track(video, prompts):  # type: ignore[arg-type]
        for row, object_id in enumerate(result.object_ids):
            found[object_id, result.frame_index] = (
                result.logits_NHW[row].numpy(),
                float(result.predicted_iou_N[row]),
                float(result.object_score_N[row]),
            )
    return found


@pytest.mark.parametrize("row_batch", [16, 2])
def test_together_is_alone(model: Sam2, video: list[np.ndarray], row_batch: int) -> None:
    together = tracks(model, video, PROMPTS, row_batch=row_batch)
    for prompt in PROMPTS:
        alone = tracks(model, video, [prompt])
        assert {frame for _, frame in alone} == set(range(prompt.frame_index, len(video)))
        for key, (logits, iou, score) in alone.items():
            np.testing.assert_allclose(together[key][0], logits, atol=2e-3, rtol=1e-4)
            assert together[key][1:] == pytest.approx((iou, score), abs=1e-3)


def test_videos_share_a_batch(model: Sam2, video: list[np.ndarray]) -> None:
    """Rows of two lanes, walking in step, get what each gets in its own video."""
    videos = [video, video[::-1]]
    options = TrackingOptions()
    sessions = []
    for frames in videos:
        session = VideoSegmenter(model).open(frames)
        session.prompt(click(1, 0, 40, 30))
        with torch.inference_mode():
            session.settle()
        sessions.append(session)
    prepare = TorchEngine(model, options).prepare
    inputs = [list(DecodedFrames(ArrayFrames(frames), 128, prepare).images(0)) for frames in videos]
    for frame in range(1, 5):
        with torch.inference_mode():
            features = model.encode_frames(torch.stack([lane[frame].image_3SS for lane in inputs]))
            rows = [Row(s.objects[1].bank, frame, 1, len(video), lane) for lane, s in enumerate(sessions)]
            records = track_rows(model, features, rows, options, BatchSize(16))
            for lane, (session, record) in enumerate(zip(sessions, records, strict=True)):
                [alone] = track_rows(
                    model,
                    features.select(slice(lane, lane + 1)),
                    [Row(session.objects[1].bank, frame, 1, 14)],
                    options,
                    BatchSize(16),
                )
                assert alone.logits_HW is not None and record.logits_HW is not None
                np.testing.assert_allclose(record.logits_HW.numpy(), alone.logits_HW.numpy(), atol=2e-3, rtol=1e-4)
                session.objects[1].bank.tracked[frame] = record


@pytest.mark.parametrize(("min_iou", "more"), [(None, 0), (0.97, 6), (1.0, 0)])
def test_memory_is_flat(model: Sam2, video: list[np.ndarray], min_iou: float | None, more: int) -> None:
    """However long the video, a bounded number of frames is remembered."""
    long = [video[t % len(video)] for t in range(60)]
    session = VideoSegmenter(model, TrackingOptions(MemoryRules(min_iou=min_iou), history_frames=8)).open(long)
    session.prompt(click(1, 0, 40, 30))
    sizes = []
    for _ in session.propagate():
        tracked = session.objects[1].bank.tracked
        sizes.append((len(tracked), sum(r.memory_TC is not None for r in tracked.values())))
    assert max(size for size, _ in sizes) <= 17 + more and max(maps for _, maps in sizes) <= 9 + more
    assert more or sizes[30:] == [sizes[30]] * 30


def test_what_an_object_costs(model: Sam2, video: list[np.ndarray]) -> None:
    """Without a history, as masklets are made: the maps that are read, the newest one, and pointers (docs/benchmarks.md)."""
    session = VideoSegmenter(model, TrackingOptions(history_frames=0)).open([video[t % len(video)] for t in range(30)])
    session.prompt(click(1, 0, 40, 30))
    tokens, side, D, C = 8 * 8, 32, model.config.hidden_dim, model.config.memory_dim
    a_map, logits, pointer = 2 * tokens * C, 4 * side * side, 4 * (D + 2)
    for _ in session.propagate():
        bank = session.objects[1].bank
        tensors = [
            tensor
            for record in (*bank.prompted.values(), *bank.tracked.values())
            for tensor in (record.logits_HW, record.memory_TC, record.pointer_D, record.predicted_iou, record.object_score)
            if tensor is not None
        ]
        held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        assert held <= 9 * a_map + 2 * logits + 18 * pointer


@pytest.mark.parametrize("min_iou", [None, 0.97])
def test_history_does_not_change_tracking(model: Sam2, video: list[np.ndarray], min_iou: float | None) -> None:
    """What is forgotten is never what the next frame reads."""
    rules = MemoryRules(min_iou=min_iou)
    short = tracks(model, video, PROMPTS[:2], history_frames=0, memory=rules)
    whole = tracks(model, video, PROMPTS[:2], history_frames=None, memory=rules)
    for key, (logits, *_) in whole.items():
        np.testing.assert_array_equal(short[key][0], logits)
    if min_iou:
        unsure = {key for key, (_, iou, _) in whole.items() if iou < min_iou}
        assert 0 < len(unsure) < len(whole), "so that there is something to choose"
        as_ever = tracks(model, video, PROMPTS[:2], history_frames=0)
        assert any(not np.array_equal(as_ever[key][0], logits) for key, (logits, *_) in whole.items())
