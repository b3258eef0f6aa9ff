"""Live streams: the same masks as from a file, prompts that count from the next frame, drops that are counted, flat memory."""

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from golden.synthetic_inputs import synthetic_frame, synthetic_mask
from random_weights import small_random_model

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.masklets.frames import Frame
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.model.memory_bank import MAX_POINTERS
from sam2_pipeline.model.sam2 import NO_OBJECT_LOGIT, Sam2
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.live import LiveOptions, LiveStream
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.torch_engine import TorchEngine
from sam2_pipeline.segment.video import VideoSegmenter

HEIGHT, WIDTH = 90, 120
EVERYTHING = GenerateOptions(
    points_per_side=2, crop_grids=(), pred_iou_thresh=0.0, stability_score_thresh=0.0, max_mask_share=1.0, box_nms_thresh=1.0
)


def click(object_id: int, frame: int, x: float = 40, y: float = 30) -> Prompt:
    return Prompt(object_id, frame, np.array([[x, y]]), np.array([1]))


def correction(frame: int, object_id: int = 1) -> Prompt:
    return Prompt(object_id, frame, np.array([[90, 60], [40, 30]]), np.array([1, 0]))


@pytest.fixture(scope="module")
def model() -> Sam2:
    return small_random_model(image_size=128)


@pytest.fixture(autouse=True)
def _frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """As streams go: a video's small frames are encoded two at a time, which rounds otherwise (see `test_session`)."""
    monkeypatch.setattr(TorchEngine, "together", 1)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """As many as the span of pointers at least: shorter videos are told apart from streams, see `plan_reading`."""
    return [synthetic_frame(t, HEIGHT, WIDTH, seed=2) for t in range(MAX_POINTERS + 2)]


def logits(result) -> dict[int, np.ndarray]:
    return {i: result.logits_NHW[row].numpy().copy() for row, i in enumerate(result.object_ids)}


def assert_equal(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_pushed_frames_give_the_masks_of_a_video(model: Sam2, pictures: list[np.ndarray]) -> None:
    """Bit by bit, with objects that join, corrections, a box and a mask."""
    mask = encode(synthetic_mask(HEIGHT, WIDTH, seed=2, blob=0))
    prompts = [
        click(1, 0),
        click(2, 3, 80, 60),
        Prompt(3, 5, box_xyxy=np.array([60, 10, 110, 50])),
        correction(6),
        Prompt(7, 8, mask=mask),
    ]
    expected = {r.frame_index: logits(r) for r in VideoSegmenter(model).track(pictures, prompts)}
    stream = VideoSegmenter(model).stream()
    for prompt in prompts:
        stream.prompt(prompt)
    for number, picture in enumerate(pictures):
        assert stream.push(picture) == number
        result = next(stream)
        assert result.frame_index == number and result.latency_s > 0
        np.testing.assert_array_equal(result.image, picture)
        assert_equal(logits(result), expected[number])
    stream.finish()
    assert list(stream) == []


def test_sources_are_waited_for(model: Sam2, pictures: list[np.ndarray]) -> None:
    expected = [logits(r) for r in VideoSegmenter(model).track(pictures, [click(1, 0)])]
    with VideoSegmenter(model).stream(iter(pictures)) as stream:
        stream.prompt(click(1, 0))
        for result, wanted in zip(stream, expected, strict=True):
            assert_equal(logits(result), wanted)
    assert stream.statistics().dropped == 0


def test_a_correction_counts_from_the_next_frame(model: Sam2, pictures: list[np.ndarray]) -> None:
    """Given for the latest frame or for one before it, it does what it does to a session that is on its way."""
    for corrected, after in ((6, 6), (4, 7)):
        expected = {}
        session = VideoSegmenter(model).open(pictures)
        session.prompt(click(1, 0))
        for result in session.propagate():
            expected[result.frame_index] = logits(result)
            if result.frame_index == after:
                session.prompt(correction(corrected))
        stream = VideoSegmenter(model).stream()
        stream.prompt(click(1, 0))
        for number, picture in enumerate(pictures):
            stream.push(picture)
            assert_equal(logits(next(stream)), expected[number])
            if number == after:
                stream.prompt(correction(corrected))


def test_prompts_of_another_thread(model: Sam2, pictures: list[np.ndarray]) -> None:
    """Whatever moment they come at, they count: at most the frame that is at the model goes without them."""
    taken, stop = [0], threading.Event()

    def source() -> Iterator[np.ndarray]:
        while not stop.is_set():
            yield pictures[taken[0] % len(pictures)]

    stream = VideoSegmenter(model).stream(source())
    given: dict[int, int] = {}

    def person() -> None:
        for object_id in range(1, 6):
            while taken[0] < 3 * object_id:
                time.sleep(0.001)
            given[object_id] = taken[0]
            stream.prompt(click(object_id, taken[0] - 1, 20 * object_id, 40))
        while taken[0] < 20:
            time.sleep(0.001)
        stream.remove_object(2)

    thread = threading.Thread(target=person)
    thread.start()
    first_seen: dict[int, int] = {}
    for result in stream:
        for row, object_id in enumerate(result.object_ids):
            assert not (result.logits_NHW[row] == NO_OBJECT_LOGIT).all() or float(result.object_score_N[row]) <= 0
            first_seen.setdefault(object_id, result.frame_index)
        taken[0] += 1
        if taken[0] > 20 and 2 not in result.object_ids:
            break
        assert taken[0] < 60
    stop.set()
    thread.join()
    stream.close()
    assert first_seen.keys() == given.keys()
    for object_id, frame in first_seen.items():
        assert given[object_id] <= frame <= given[object_id] + 1
    assert stream.object_ids == (1, 3, 4, 5)


def test_the_latest_frame_wins(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream(options=LiveOptions(queue_frames=2))
    stream.prompt(click(1, 0))
    for picture in pictures[:7]:
        stream.push(picture)
    assert stream.statistics().waiting == 2
    stream.finish()
    results = list(stream)
    assert [r.frame_index for r in results] == [5, 6]
    np.testing.assert_array_equal(results[1].image, pictures[6])
    found = stream.statistics()
    assert (found.received, found.segmented, found.dropped, found.waiting) == (7, 2, 5, 0)
    # The prompt for frame 0 has moved to frame 5; and the memory knows no gaps.
    expected = [logits(r) for r in VideoSegmenter(model).stream(pictures[5:7])]
    assert expected == [{}, {}]
    again = VideoSegmenter(model).stream(pictures[5:7])
    again.prompt(click(1, 0))
    for result, wanted in zip(results, again, strict=True):
        assert_equal(logits(result), logits(wanted))


def test_memories_know_no_gaps(model: Sam2, pictures: list[np.ndarray]) -> None:
    """A model that sees every third frame reads its six latest memories, not two."""
    stream = VideoSegmenter(model).stream()
    stream.prompt(click(1, 0))
    for number in range(3 * len(pictures)):
        stream.push(pictures[number // 3])
        if number % 3 == 0:
            result = next(stream)
            assert result.frame_index == number
    plain = list(VideoSegmenter(model).track(pictures, [click(1, 0)]))[-1]
    assert_equal(logits(result), logits(plain))
    with pytest.raises(ConfigError, match="frame 52 was dropped"):
        stream.push(pictures[0])
        next(stream)
        stream.prompt(click(1, 52))


def test_waiting_for_room(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream(options=LiveOptions(when_slow="wait", queue_frames=2))
    stream.push(pictures[0])
    stream.push(pictures[1])
    with pytest.raises(TimeoutError, match="2 frames wait"):
        stream.push(pictures[2], timeout_s=0.01)
    assert next(stream).frame_index == 0
    assert stream.push(pictures[2], timeout_s=0.01) == 2
    assert stream.statistics().dropped == 0


def test_a_stream_without_objects_goes_on(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream()
    for number, picture in enumerate(pictures[:3]):
        stream.push(picture, timestamp_s=number / 10)
        result = next(stream)
        assert result.object_ids == () and result.masks().shape == (0, HEIGHT, WIDTH)
        assert result.timestamp_s == number / 10
    stream.prompt(click(4, 2))
    stream.push(pictures[3])
    assert next(stream).object_ids == (4,)
    stream.remove_object(4)
    stream.push(pictures[4])
    assert next(stream).object_ids == ()


def test_what_cannot_be_asked(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream(history_frames=2)
    for picture in pictures[:6]:
        stream.push(picture)
        next(stream)
    with pytest.raises(ConfigError, match=r"frame 2 is no longer held; held are 3 frames of 3\.\.5"):
        stream.prompt(click(1, 2))
    with pytest.raises(ConfigError, match="outside the 120x90 picture"):
        stream.prompt(click(1, 5, 500, 1))
    with pytest.raises(ConfigError, match="no object 1 in this stream"):
        stream.remove_object(1)
    with pytest.raises(ConfigError, match="frame is 45x60, expected 90x120"):
        stream.push(pictures[0][::2, ::2])
    with pytest.raises(ConfigError, match="uint8"):
        stream.push(pictures[0].astype(np.int32))
    stream.prompt(click(1, 3))
    stream.push(pictures[6])
    assert next(stream).object_ids == (1,)
    stream.close()
    with pytest.raises(ConfigError, match="has ended"):
        stream.push(pictures[7])
    with pytest.raises(ConfigError, match="open_stream"):
        VideoSegmenter(model).stream("rtsp://camera/1")
    with pytest.raises(ConfigError, match="source of its own"):
        VideoSegmenter(model).stream(pictures).push(pictures[0])
    for wrong in ({"history_frames": None}, {"own_timeline": False}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            VideoSegmenter(model).stream(**wrong)
    for options in ({"when_slow": "sleep"}, {"queue_frames": 0}, {"prompted_frames": 1}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            LiveOptions(**options)


def test_prompts_that_came_before_the_pictures_are_checked_then(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream()
    stream.prompt(click(1, 0, 500, 1))
    stream.prompt(click(2, 0))
    with pytest.raises(ConfigError, match="outside the 120x90 picture"):
        stream.push(pictures[0])
    stream.push(pictures[0])
    assert next(stream).object_ids == (2,)


def test_the_end_of_a_source(model: Sam2, pictures: list[np.ndarray]) -> None:
    def breaks() -> Iterator[Frame]:
        for number in range(2):
            yield Frame(number, number / 5, pictures[number])
        raise VideoError("the camera was stolen")

    stream = VideoSegmenter(model).stream(breaks())
    assert [next(stream).timestamp_s, next(stream).timestamp_s] == [0, 0.2]
    with pytest.raises(VideoError, match="stolen"):
        next(stream)
    assert list(stream) == []


def test_closing_ends_the_source_and_whoever_waits(model: Sam2, pictures: list[np.ndarray]) -> None:
    ended = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        try:
            while True:
                yield pictures[0]
        finally:
            ended.set()

    stream = VideoSegmenter(model).stream(camera())
    next(stream)
    stream.close()
    assert ended.wait(5) and list(stream) == []
    idle = VideoSegmenter(model).stream()
    waiting = threading.Thread(target=lambda: list(idle))
    waiting.start()
    idle.close()
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_forgotten_stream_stops_its_source(model: Sam2, pictures: list[np.ndarray]) -> None:
    ended = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        try:
            while True:
                yield pictures[0]
        finally:
            ended.set()

    stream = VideoSegmenter(model).stream(camera())
    next(stream)
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None and ended.wait(5)


def test_discovery(model: Sam2, pictures: list[np.ndarray]) -> None:
    stream = VideoSegmenter(model).stream()
    stream.discover(EVERYTHING)
    stream.push(pictures[0])
    found = next(stream)
    assert len(found.object_ids) >= 1 and found.object_ids == tuple(range(1, len(found.object_ids) + 1))
    assert (found.logits_NHW > 0).flatten(1).any(1).all()
    twice = VideoSegmenter(model).stream()
    twice.discover(EVERYTHING)
    twice.discover(EVERYTHING)
    twice.push(pictures[0])
    again = logits(next(twice))
    assert_equal({i: again[i] for i in found.object_ids}, logits(found))
    # What is known is not found again, but for masks of this model that are mere noise, and other ones when enlarged.
    assert len(twice.object_ids) < 1.5 * len(found.object_ids)


def held(stream: LiveStream) -> tuple[int, ...]:
    """How much of everything a stream remembers."""
    session, recent = stream._session, stream._recent
    assert session is not None and recent is not None
    sizes = [len(recent._frames), len(recent._names), len(stream._orders._held), len(stream._orders._scheduled)]
    for obj in session.objects.values():
        bank = obj.bank
        sizes += [len(bank.prompted), len(bank.tracked), sum(r.memory_TC is not None for r in bank.tracked.values())]
        sizes += [len(obj.points), len(obj.masked_frames), len(obj.visits._runs)]
    return tuple(sizes)


def test_memory_is_flat_whatever_is_asked(model: Sam2, pictures: list[np.ndarray]) -> None:
    """However long the stream and however often it is corrected; the first prompt of all stays."""
    segmenter = VideoSegmenter(model, TrackingOptions(history_frames=4))
    stream = segmenter.stream(options=LiveOptions(prompted_frames=3))
    stream.prompt(click(1, 0))
    sizes = []
    for number in range(60):
        stream.push(pictures[number % len(pictures)])
        next(stream)
        if number % 2:
            stream.prompt(correction(number - 1))
        sizes.append(held(stream))
    assert sizes[20:58] == sizes[18:56]
    assert sorted(stream._session.objects[1].bank.prompted) == [0, 54, 56]


def resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says how much memory a process has")
@pytest.mark.parametrize("frames", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_process_does_not_grow(model: Sam2, pictures: list[np.ndarray], frames: int) -> None:
    """Two objects, corrected now and then, one of them replaced; memory at intervals, from when the history is full."""
    stream = VideoSegmenter(model, TrackingOptions(history_frames=16)).stream(options=LiveOptions(prompted_frames=4))
    stream.prompt(click(1, 0))
    stream.prompt(click(2, 0, 80, 60))
    sizes = []
    for number in range(frames):
        stream.push(pictures[number % len(pictures)])
        next(stream)
        if number % 25 == 24:
            stream.prompt(correction(number))
        if number % 60 == 59:
            stream.remove_object(2 + number // 60)
            stream.prompt(click(3 + number // 60, number, 80, 60))
        if number >= 100 and number % 20 == 0:
            sizes.append(resident_mb())
    assert max(sizes) < 1.05 * min(sizes), sizes
    assert stream.statistics().segmented == frames
