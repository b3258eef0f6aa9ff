"""Whatever the segmenters are given, they do it or say in one of our errors why not; what comes out is finite.

Hypothesis looks for what breaks that; the cases it found, and those found by thinking, are named below.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from golden.synthetic_inputs import synthetic_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from random_weights import small_random_model

from sam2_pipeline.errors import ConfigError, PipelineError, VideoError
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, encode
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.image import ImageEmbedding, ImageSegmenter
from sam2_pipeline.segment.live import LiveOptions
from sam2_pipeline.segment.video import VideoSegmenter

HEIGHT, WIDTH, SIDE = 45, 60, 128
fuzz = settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
few = settings(fuzz, max_examples=20)


@pytest.fixture(scope="module")
def model() -> Sam2:
    return small_random_model(SIDE)


@pytest.fixture(scope="module")
def embedding(model: Sam2) -> ImageEmbedding:
    return ImageSegmenter(model).embed(synthetic_frame(0, HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [synthetic_frame(t, HEIGHT, WIDTH) for t in range(4)]


def ours(call: Callable[[], Any]) -> Any:
    """What a call gives, or None where it complains as documented."""
    try:
        return call()
    except PipelineError as error:
        assert str(error)
        return None


numbers = st.one_of(
    st.integers(-3, 70),
    st.floats(-10, 70),
    st.sampled_from([float("nan"), float("inf"), 1e38, -1e300, 2**70, None, True, "7", b"x", 1j]),
)
dtypes = st.sampled_from(["u1", "i1", "i8", ">i4", "f2", "f4", ">f4", "f8", "g", "?", "c8", "O", "U2", "M8[s]"]).map(np.dtype)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5), fill=st.nothing())
)
lists = st.recursive(numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
pairs = st.lists(st.tuples(st.floats(0, 59, width=32), st.floats(0, 44, width=32)), max_size=3)
boxes = st.tuples(*[st.floats(0, 44, width=32)] * 4).map(list)
marks = st.lists(st.integers(0, 1), max_size=3)
anything = st.one_of(st.none(), lists, arrays)


@fuzz
@given(picture=st.one_of(anything, hnp.arrays(np.uint8, st.tuples(*[st.integers(0, 4)] * 2, st.integers(2, 4)))))
def test_pictures(model: Sam2, picture: Any) -> None:
    found = ours(lambda: ImageSegmenter(model).embed(picture))
    assert found is None or torch.isfinite(found.features.stride16_VDHW).all()


@fuzz
@given(
    points=st.one_of(pairs, anything),
    labels=st.one_of(marks, anything),
    box=st.one_of(st.none(), boxes, anything),
    logits=st.one_of(st.none(), st.none(), anything),
    multimask=st.booleans(),
)
def test_image_prompts(
    model: Sam2, embedding: ImageEmbedding, points: Any, labels: Any, box: Any, logits: Any, multimask: bool
) -> None:
    segmenter = ImageSegmenter(model)
    call = {"points": points, "labels": labels, "boxes": box, "mask_logits": logits, "multimask": multimask}
    found = ours(lambda: segmenter.predict(embedding, **call))
    if found is not None:
        assert torch.isfinite(found.logits_NMHW).all() and torch.isfinite(found.predicted_iou_NM).all()
        assert found.masks().shape[2:] == (HEIGHT, WIDTH)


prompts = st.builds(
    lambda *given: ours(lambda: Prompt(*given)),
    st.one_of(st.integers(-2, 3), numbers),
    st.one_of(st.integers(-2, 6), numbers),
    st.one_of(pairs, anything),
    st.one_of(marks, anything),
    st.one_of(st.none(), boxes, anything),
    st.one_of(st.none(), st.none(), st.sampled_from([Rle.empty(HEIGHT, WIDTH), Rle.empty(3, 3)]), anything),
)


@settings(fuzz, max_examples=400)
@given(prompt=prompts)
def test_prompts_are_what_they_say(prompt: Prompt | None) -> None:
    if prompt is not None:
        assert type(prompt.object_id) is int and type(prompt.frame_index) is int and prompt.frame_index >= 0
        assert prompt.points_xy.shape == (len(prompt.point_labels), 2) and np.isfinite(prompt.points_xy).all()
        assert set(prompt.point_labels.tolist()) <= {0, 1}


walks = st.fixed_dictionaries(
    {}, optional={"start": numbers, "max_frames": numbers, "reverse": st.booleans(), "skip_visited": st.booleans()}
)
moves = st.one_of(
    st.tuples(st.just("prompt"), prompts, st.booleans()),
    st.tuples(st.just("schedule"), prompts),
    st.tuples(st.just("walk"), walks),
    st.tuples(st.just("remove"), numbers),
    st.tuples(st.just("clear"), numbers, numbers),
)
good = st.builds(
    lambda number, frame, x, y: Prompt(number, frame, np.array([[x, y]]), np.array([1])),
    st.integers(1, 2), st.integers(0, 3), st.floats(0, 59), st.floats(0, 44),
)  # fmt: skip


@few
@given(first=good, plan=st.lists(moves, max_size=5))
def test_sessions(model: Sam2, pictures: list[np.ndarray], first: Prompt, plan: list[tuple]) -> None:
    session = VideoSegmenter(model).open(pictures)
    session.prompt(first)
    for name, *values in plan:
        if name == "walk":
            for result in ours(lambda: list(session.propagate(**values[0]))) or ():  # noqa: B023
                assert 0 <= result.frame_index < len(pictures) and torch.isfinite(result.logits_NHW).all()
        elif name == "prompt":
            ours(lambda: session.prompt(values[0], keep_old=values[1]))  # noqa: B023
        else:
            call = {"schedule": session.schedule, "remove": session.remove_object, "clear": session.clear_prompts}[name]
            ours(lambda: call(*values))  # noqa: B023


events = st.one_of(
    st.tuples(st.just("prompt"), st.one_of(prompts, good)),
    st.tuples(st.just("remove"), numbers),
    st.tuples(st.just("push"), anything, numbers),
    st.tuples(st.just("frame"), st.integers(1, 4)),
)


@few
@given(plan=st.lists(events, max_size=8), history=st.integers(0, 3), queue=st.integers(1, 2))
def test_streams(model: Sam2, pictures: list[np.ndarray], plan: list[tuple], history: int, queue: int) -> None:
    stream = VideoSegmenter(model).stream(options=LiveOptions(queue_frames=queue), history_frames=history)
    stream.push(pictures[0])
    for name, *values in plan:
        if name == "prompt":
            ours(lambda: stream.prompt(*values))  # noqa: B023
        elif name == "remove":
            ours(lambda: stream.remove_object(*values))  # noqa: B023
        elif name == "push":
            assert ours(lambda: stream.push(*values)) is None  # noqa: B023
        else:
            for number in range(values[0]):
                stream.push(pictures[number])
            result = next(stream)
            assert torch.isfinite(result.logits_NHW).all() and result.masks().shape[1:] == (HEIGHT, WIDTH)
    stream.finish()
    assert len(list(stream)) <= queue


# ------------------------------------------------------------------------------------------------------ what was found


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"object_id": "a"}, "object_id is 'a', expected a whole number"),
        ({"object_id": 1.5}, "object_id is 1.5, expected a whole number"),
        ({"object_id": True}, "object_id is True, expected a whole number"),
        ({"frame_index": float("nan")}, "frame_index is nan, expected a whole number"),
        ({"points_xy": "ab"}, "points are 'ab', expected \\[P, 2\\] numbers"),
        ({"points_xy": [[1, 2], [3]]}, "expected \\[P, 2\\] numbers"),
        ({"points_xy": np.zeros((2, 3)), "point_labels": [1, 1, 1]}, "expected \\[P, 2\\] numbers"),
        ({"point_labels": [[1], [1, 2]]}, "labels are .* expected 1"),
        ({"box_xyxy": "abcd"}, "box is 'abcd', expected"),
        ({"points_xy": (), "point_labels": (), "mask": np.ones((4, 4), bool)}, "mask is a ndarray, expected an Rle"),
    ],
)
def test_prompts_that_are_none(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Prompt(**({"object_id": 1, "frame_index": 0, "points_xy": [[1, 2]], "point_labels": [1]} | given))


def test_numbers_of_numpy_are_numbers() -> None:
    prompt = Prompt(np.int64(3), np.uint8(0), [1, 2], [1])
    assert type(prompt.object_id) is int and prompt.frame_index == 0 and prompt.points_xy.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"points": [["a", "b"]], "labels": [1]}, "points are .* expected numbers"),
        ({"points": [[1, 2]], "labels": [7]}, "labels .* expected 1 .* or 0"),
        ({"points": [[1, 2]], "labels": [float("nan")]}, "labels .* expected 1 .* or 0"),
        ({"points": np.zeros((0, 1, 2)), "labels": np.zeros((0, 1))}, "0 prompts"),
        ({"points": [[1e38, 2]], "labels": [1]}, "NaN or infinity|too large"),
        ({"boxes": [1, 2, 3]}, "boxes are \\(3,\\), expected \\[4\\] or \\[N, 4\\]"),
        ({"boxes": [[1, 2], [3, 4]]}, "expected \\[4\\] or \\[N, 4\\]"),
        ({"mask_logits": [1.0, 2.0]}, "mask_logits is \\(2,\\), expected"),
        ({"mask_logits": np.full((SIDE // 4, SIDE // 4), np.nan)}, "mask_logits .* NaN"),
        ({"mask_logits": np.zeros((2, SIDE // 4, SIDE // 4)), "points": np.ones((3, 1, 2)), "labels": np.ones((3, 1))}, "2 mask"),
        ({"mask_logits": "ab"}, "mask_logits"),
    ],
)
def test_image_prompts_that_are_none(model: Sam2, embedding: ImageEmbedding, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ImageSegmenter(model).predict(embedding, **given)


def test_one_mask_goes_with_every_prompt(model: Sam2, embedding: ImageEmbedding) -> None:
    mask = np.zeros((SIDE // 4, SIDE // 4), np.float64)
    found = ImageSegmenter(model).predict(embedding, points=np.ones((3, 1, 2)), labels=np.ones((3, 1)), mask_logits=mask)
    assert found.logits_NMHW.shape[:2] == (3, 3)


def test_pictures_of_any_layout(model: Sam2) -> None:
    """Turned around (as BGR becomes RGB), big-endian, or of many digits."""
    picture = synthetic_frame(0, HEIGHT, WIDTH)
    segmenter = ImageSegmenter(model)
    wanted = segmenter.embed(np.ascontiguousarray(picture[..., ::-1])).features.stride16_VDHW
    torch.testing.assert_close(segmenter.embed(picture[..., ::-1]).features.stride16_VDHW, wanted)
    for dtype in (">f4", "g", "f8"):
        floats = (picture[..., ::-1] / 255).astype(dtype)
        torch.testing.assert_close(segmenter.embed(floats).features.stride16_VDHW, wanted, atol=1e-3, rtol=1e-3)
    with pytest.raises(ConfigError, match="infinity"):
        segmenter.embed(np.full((4, 4, 3), 1e300))


def test_a_damaged_picture(model: Sam2, tmp_path) -> None:
    Image.fromarray(synthetic_frame(0, 200, 200)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with pytest.raises(VideoError, match="picture cannot be read"):
        ImageSegmenter(model).embed(Image.open(tmp_path / "cut.png"))


@pytest.mark.parametrize("given", [{"start": -1}, {"start": 4}, {"start": "a"}, {"max_frames": -1}, {"start": 1.5}])
def test_walks_that_lead_nowhere(model: Sam2, pictures: list[np.ndarray], given: dict[str, Any]) -> None:
    session = VideoSegmenter(model).open(pictures)
    session.prompt(Prompt(1, 0, [[1, 2]], [1]))
    with pytest.raises(ConfigError, match=f"{next(iter(given))} is"):
        list(session.propagate(**given))


@pytest.mark.parametrize("given", [None, 5, {1: 2}, iter([])])
def test_videos_that_are_none(model: Sam2, given: Any) -> None:
    with pytest.raises(ConfigError, match="video is a"):
        VideoSegmenter(model).open(given)


def test_things_that_are_no_prompts(model: Sam2, pictures: list[np.ndarray]) -> None:
    for give in (VideoSegmenter(model).open(pictures).prompt, VideoSegmenter(model).open(pictures).schedule,
                 VideoSegmenter(model).stream().prompt):  # fmt: skip
        with pytest.raises(ConfigError, match="expected a Prompt"):
            give((1, 2))
    for wrong in (1.5, float("nan"), "2"):
        with pytest.raises(ConfigError, match="queue_frames"):
            LiveOptions(queue_frames=wrong)
    with pytest.raises(ConfigError, match="timestamp_s is 'a'"):
        VideoSegmenter(model).stream().push(pictures[0], "a")


def test_an_empty_mask_is_an_object_that_is_not_there(model: Sam2, pictures: list[np.ndarray]) -> None:
    session = VideoSegmenter(model).open(pictures)
    assert not session.prompt(Prompt(1, 0, mask=encode(np.zeros((HEIGHT, WIDTH), bool)))).masks().any()
    assert all(torch.isfinite(result.logits_NHW).all() for result in session.propagate())
