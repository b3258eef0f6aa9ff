"""What a user means by prompts, corrections, walks, removals."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from golden.synthetic_inputs import synthetic_mask
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.prompted import PromptedSession
from sam2_pipeline.segment.torch_engine import TorchEngine
from sam2_pipeline.segment.video import VideoSegmenter

FIRST = Prompt(1, 0, np.array([[40, 30]]), np.array([1]))


def correction(frame: int, object_id: int = 1) -> Prompt:
    return Prompt(object_id, frame, np.array([[90, 60], [40, 30]]), np.array([1, 0]))


def session_of(model: Sam2, video: list[np.ndarray], **options: object) -> PromptedSession:
    return VideoSegmenter(model, TrackingOptions(**options)).open(video)  # type: ignore[arg-type]


def walk(session: PromptedSession, *args: int | None, **kwargs: bool) -> dict[int, np.ndarray]:
    return {r.frame_index: r.logits_NHW.numpy().copy() for r in session.propagate(*args, **kwargs)}


def test_a_correction_conditions_the_other_frames(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video)
    session.prompt(FIRST)
    before = walk(session)
    corrected = session.prompt(correction(6))
    assert not np.allclose(corrected.logits_NHW.numpy(), before[6])
    after = walk(session)
    assert sorted(session.objects[1].bank.prompted) == [0, 6]
    np.testing.assert_array_equal(after[6], corrected.logits_NHW.numpy())
    assert np.abs(after[9] - before[9]).max() > 1e-2


def test_the_reference_forgets_it(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video, corrections_condition=False, own_timeline=False, history_frames=None)
    session.prompt(FIRST)
    before = walk(session)
    session.prompt(correction(6))
    after = walk(session)
    for frame, logits in before.items():
        np.testing.assert_array_equal(after[frame], logits)


def test_a_correction_during_the_walk_counts_from_the_next_frame(model: Sam2, video: list[np.ndarray]) -> None:
    plain = session_of(model, video)
    plain.prompt(FIRST)
    expected = walk(plain)
    session = session_of(model, video)
    session.prompt(FIRST)
    seen = {}
    for result in session.propagate():
        seen[result.frame_index] = result.logits_NHW.numpy().copy()
        if result.frame_index == 6:
            session.prompt(correction(6))
    for frame in range(7):
        np.testing.assert_array_equal(seen[frame], expected[frame])
    assert np.abs(seen[7] - expected[7]).max() > 1e-2
    assert 6 in session.objects[1].bank.prompted


def test_frames_encoded_together_are_those_encoded_alone(
    model: Sam2, video: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sizes, found = TorchEngine.encode, [], []

    def counted(engine: TorchEngine, images: Sequence[Tensor]) -> list[FrameFeatures]:
        sizes.append(len(images))
        return encode(engine, images)

    monkeypatch.setattr(TorchEngine, "encode", counted)
    for together in (1, 2, 3):
        monkeypatch.setattr(TorchEngine, "together", together)
        session = session_of(model, video)
        session.prompt(FIRST)
        seen = {}
        for result in session.propagate():
            seen[result.frame_index] = result.logits_NHW.numpy().copy()
            if result.frame_index in (4, 5):  # between two frames that were encoded together, and on another one
                session.prompt(correction(result.frame_index - 2))
        assert max(sizes) == together and sum(sizes) <= len(video) + 4  # the frames gone back to
        sizes.clear()
        found.append(seen)
    for others in found[1:]:
        for frame, logits in found[0].items():
            np.testing.assert_allclose(others[frame], logits, atol=2e-2)  # memories are kept in bfloat16


def test_a_frame_that_cannot_be_read_is_told_of_after_those_before_it(
    model: Sam2, video: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*video[:4], video[4][:-1], *video[5:]]
    for together in (1, 2):
        monkeypatch.setattr(TorchEngine, "together", together)
        session = session_of(model, broken)
        session.prompt(FIRST)
        seen = []
        with pytest.raises(ConfigError, match="frame 4 is"):
            for result in session.propagate():
                seen.append(result.frame_index)
        assert seen == [0, 1, 2, 3]


def test_scheduled_prompts_wait_for_their_frame(model: Sam2, video: list[np.ndarray]) -> None:
    by_hand = session_of(model, video)
    by_hand.prompt(FIRST)
    expected = {}
    for result in by_hand.propagate():
        if result.frame_index == 6:
            result = by_hand.prompt(correction(6))
        expected[result.frame_index] = result.logits_NHW.numpy().copy()
    tracked = VideoSegmenter(model).track(video, [correction(6), FIRST])
    for result in tracked:
        np.testing.assert_array_equal(result.logits_NHW.numpy(), expected[result.frame_index])


def test_each_object_has_its_own_timeline(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video)
    session.prompt(FIRST)
    session.prompt(correction(5, object_id=2))
    forward = walk(session)
    for frame in range(5):
        assert (forward[frame][1] == NO_OBJECT_LOGIT).all()
    backward = walk(session, reverse=True)
    assert sorted(backward) == list(range(6))
    assert not (backward[3][1] == NO_OBJECT_LOGIT).all()


def test_skip_visited_keeps_what_is_known(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video, history_frames=None)
    session.prompt(FIRST)
    session.prompt(correction(5, object_id=2))
    forward = walk(session)
    backward = walk(session, reverse=True, skip_visited=True)
    for frame in range(6):
        np.testing.assert_array_equal(backward[frame][0], forward[frame][0])


def test_objects_can_join_and_leave_later(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video)
    session.prompt(FIRST)
    alone = walk(session)
    session.prompt(correction(4, object_id=2))
    both = walk(session)
    assert both[8].shape[0] == 2
    np.testing.assert_allclose(both[8][0], alone[8][0], atol=2e-3)
    [left] = session.remove_object(2)
    assert left.frame_index == 4 and left.object_ids == (1,)
    np.testing.assert_allclose(walk(session)[8], alone[8], atol=2e-3)


def test_cleared_prompts_no_longer_condition(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video)
    session.prompt(FIRST)
    session.prompt(correction(6))
    session.clear_prompts(6, 1)
    walk(session)
    assert list(session.objects[1].bank.prompted) == [0]
    session.clear_prompts(0, 1)
    with pytest.raises(ConfigError, match="no prompt left"):
        walk(session)


def test_mask_prompts_are_the_result(model: Sam2, video: list[np.ndarray]) -> None:
    mask = synthetic_mask(90, 120, seed=2, blob=0)
    session = session_of(model, video, fill_hole_area=0)
    result = session.prompt(Prompt(7, 0, mask=encode(mask)))
    assert result.object_ids == (7,)
    agreement = (result.masks()[0].numpy() == mask).mean()
    assert agreement > 0.97


def test_max_frames_and_reverse(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video)
    session.prompt(correction(4))
    assert sorted(walk(session, 4, 3)) == [4, 5, 6, 7]
    assert list(walk(session, 4, 2, reverse=True)) == [4, 3, 2]
    assert walk(session, 0, reverse=True) == {}


def test_non_overlapping_gives_a_pixel_once(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video, non_overlapping=True)
    session.prompt(FIRST)
    session.prompt(correction(0, object_id=2))
    for result in session.propagate(0, 2):
        assert int(result.masks().sum(0).max()) <= 1


def test_a_video_of_one_frame(model: Sam2, video: list[np.ndarray]) -> None:
    session = session_of(model, video[:1])
    session.prompt(FIRST)
    walk(session)
    again = session.prompt(correction(0))
    assert torch.isfinite(again.logits_NHW).all()


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        (Prompt(1, 99, np.array([[1, 1]]), np.array([1])), "frames 0..13"),
        (Prompt(1, 0, np.array([[500, 1]]), np.array([1])), "outside the 120x90 picture"),
        (Prompt(1, 0, mask=encode(np.ones((5, 5), bool))), "mask is 5x5"),
    ],
)
def test_prompts_outside_the_video(model: Sam2, video: list[np.ndarray], prompt: Prompt, complaint: str) -> None:
    session = session_of(model, video)
    with pytest.raises(ConfigError, match=complaint):
        session.prompt(prompt)
    assert session.object_ids == ()


def test_walking_without_objects(model: Sam2, video: list[np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="no object"):
        walk(session_of(model, video))


def test_a_path_is_not_a_video(model: Sam2) -> None:
    with pytest.raises(ConfigError, match="open_video"):
        VideoSegmenter(model).open("clip.mp4")
