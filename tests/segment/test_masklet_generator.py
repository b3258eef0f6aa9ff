"""Masklets of whole videos: every masklet has a mask on every annotated frame, from any order of prompts."""

import numpy as np
import pytest

from sam2_pipeline.masklets.masklet import Masklet
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.video import VideoSegmenter

EASY = GenerateOptions(points_per_side=4, crop_grids=(), pred_iou_thresh=0.1, stability_score_thresh=0.3, max_objects=5)
PROMPTS = [
    Prompt(10, 0, np.array([[40, 30]]), np.array([1])),
    Prompt(30, 6, np.array([[80, 60]]), np.array([1])),
    Prompt(10, 8, np.array([[20, 70]]), np.array([0])),
]


def source(video: list[np.ndarray]) -> ArrayFrames:
    return ArrayFrames(video, fps=24)


def frames_of(masklet: Masklet) -> list[int]:
    return [mask.frame_index for mask in masklet.frames]


def test_automatic_masklets(model: Sam2, video: list[np.ndarray]) -> None:
    masklets = MaskletGenerator(model, EASY).generate(source(video), video_id="clip")
    assert [m.masklet_id for m in masklets] == list(range(len(masklets))) and 1 <= len(masklets) <= 5
    for masklet in masklets:
        assert masklet.kind == "auto" and masklet.seed.object_id is None and masklet.video_id == "clip"
        assert frames_of(masklet) == list(range(14))
        first = decode(masklet.frames[0].rle)
        x, y = masklet.seed.prompt.points_xy[0]
        assert first.shape == (90, 120) and first.any() and 0 <= x < 120 and 0 <= y < 90
        assert masklet.frames[0].predicted_iou == 1.0  # a mask prompt is its own result


def test_an_empty_picture_has_no_masklets(model: Sam2, video: list[np.ndarray]) -> None:
    stream = MaskletGenerator(model, GenerateOptions(points_per_side=2, crop_grids=(), pred_iou_thresh=1.1)).stream(source(video))
    frames = list(stream)
    assert stream.seeds == [] and [f.frame_index for f in frames] == list(range(14)) and not any(f.masks for f in frames)


@pytest.mark.parametrize("backward", [True, False])
def test_prompted_masklets_cover_the_video(model: Sam2, video: list[np.ndarray], backward: bool) -> None:
    masklets = MaskletGenerator(model, backward=backward).generate(source(video), PROMPTS)
    assert [(m.masklet_id, m.seed.object_id, m.seed.prompt.frame_index) for m in masklets] == [(0, 10, 0), (1, 30, 6)]
    assert all(frames_of(m) == list(range(14)) for m in masklets)
    before_birth = masklets[1].frames[:6]
    if backward:
        assert any(mask.rle.area for mask in before_birth)
    else:
        assert all(mask.rle.area == 0 and mask.object_score == NO_OBJECT_LOGIT for mask in before_birth)


def test_prompted_masklets_are_the_segmenters(model: Sam2, video: list[np.ndarray]) -> None:
    """The generator adds nothing: forward, its masks are those of `VideoSegmenter.track`."""
    [first, _] = MaskletGenerator(model).generate(source(video), PROMPTS)
    for result in VideoSegmenter(model).track(source(video), PROMPTS):
        row = result.object_ids.index(10)
        np.testing.assert_array_equal(decode(first.frames[result.frame_index].rle), result.masks()[row].numpy())


@pytest.mark.parametrize("prompts", [None, PROMPTS, PROMPTS[1:2]])
def test_annotating_fewer_frames_changes_no_mask(model: Sam2, video: list[np.ndarray], prompts: list[Prompt] | None) -> None:
    """At 6 of 24 frames a second every fourth is handed out, tracked as before; backward passes choose the same frames."""
    generator = MaskletGenerator(model, EASY)
    every = generator.generate(source(video), prompts)
    some = generator.generate(source(video), prompts, annotate_fps=6)
    assert len(some) == len(every) >= 1
    for sparse, dense in zip(some, every, strict=True):
        assert frames_of(sparse) == [0, 4, 8, 12]
        assert [mask.rle for mask in sparse.frames] == [dense.frames[i].rle for i in (0, 4, 8, 12)]


def test_a_stream_comes_frame_by_frame(model: Sam2, video: list[np.ndarray]) -> None:
    """Masks arrive while later frames have not been asked for: nothing waits for the end of the video."""
    asked: list[int] = []

    class Watched(ArrayFrames):
        def frames(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            for frame in super().frames(*args, **kwargs):
                asked.append(frame.index)
                yield frame

    stream = iter(MaskletGenerator(model).stream(Watched(video), PROMPTS[:1]))
    next(stream), next(stream)
    assert max(asked) <= 2
