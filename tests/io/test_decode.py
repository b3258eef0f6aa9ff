"""Video files: exact frames in any order, in displayed orientation."""

import time

import av
import numpy as np
import pytest
import videos
from PIL import Image

from sam2_pipeline.io import decode
from sam2_pipeline.io.decode import open_video

SHAPES = videos.moving_shapes(40)
X264 = {"preset": "veryfast"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """40 frames of 64x48 at 25 frames per second, with sound and the index in front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return videos.write_video(path, SHAPES, audio_s=1.6, muxing={"movflags": "faststart"})


def pictures(frames):
    return [frame.image for frame in frames]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def difference(a, b):
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean()


def nearest(image):
    """Which of the shapes a picture shows."""
    return int(np.argmin([difference(image, shape) for shape in SHAPES]))


def test_what_a_plain_video_says_of_itself(clip):
    with open_video(clip, threads=1) as video:
        assert (video.height, video.width, video.num_frames, len(video)) == (48, 64, 40, 40)
        assert (video.fps, video.duration_s, video.codec, video.rotation) == (25.0, pytest.approx(1.6), "h264", 0)
        assert (video.info.width, video.info.height, video.info.frame_count) == (64, 48, 40)
        assert "clip.mp4" in repr(video) and "64x48" in repr(video)


def test_pictures_are_those_that_were_encoded(clip):
    with open_video(clip, threads=1) as video:
        for index, frame in enumerate(video):
            assert frame.index == index and frame.timestamp_s == pytest.approx(index / 25)
            assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
            assert nearest(frame.image) == index and difference(frame.image, SHAPES[index]) < 6
    assert index == 39


VARIANTS = {
    "closed-gop.mp4": {},
    "one-gop.mp4": {"gop": 1000},
    "open-gop.mkv": {"options": {**X264, "x264-params": "open-gop=1:keyint=6:bframes=3"}},
    "fragmented.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "stream.ts": {},
    "times-of-packets-lie.avi": {},
    "packed.avi": {"codec": "mpeg4"},
    "hidden-pictures.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "intra.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "variable.mkv": {"times": np.cumsum([0] + [0.04, 0.1] * 20)[:40]},
    "edit-list.mp4": {"times": [(index - 10) / 25 for index in range(40)]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_of_reaching_a_frame_gives_the_same_bits(tmp_path, name, monkeypatch):
    monkeypatch.setattr(decode, "REVERSE_BYTES", 7 * 48 * 64 * 3)  # so that going backward takes several chunks
    path = videos.write_video(tmp_path / name, SHAPES, **VARIANTS[name])
    with open_video(path, threads=1) as video:
        forward = pictures(video)
        count = 30 if name == "edit-list.mp4" else 40  # ten frames are hidden
        assert len(forward) == len(video) == count
        assert [nearest(image) for image in forward] == list(range(40 - count, 40))
        assert same(pictures(video), forward)
        assert same([video[index].image for index in range(count)], forward)
        assert np.array_equal(video[-1].image, forward[-1])
        for start, stop in ((1, 2), (5, 17), (13, None), (count - 1, None), (count, None), (20, 20), (20, 999)):
            assert same(pictures(video.frames(start, stop)), forward[start:stop])
        for start, stop in ((count - 1, None), (17, 3), (5, 5), (0, None)):
            backward = list(video.frames(start, stop, reverse=True))
            assert [frame.index for frame in backward] == list(range(start, (stop or 0) - 1, -1))
            assert same(pictures(backward), forward[stop or 0 : start + 1][::-1])


def test_prepared_frames_are_the_same_and_handed_out_once(clip):
    with open_video(clip) as video:
        expected = [frame.image for frame in video.frames(size=(16, 24))]
        decoded = []
        forward = video._forward
        video._forward = lambda *span: (decoded.append(frame) or frame for frame in forward(*span))
        video.prepare((16, 24))
        deadline = time.monotonic() + 20
        while not decoded and time.monotonic() < deadline:
            time.sleep(0.01)
        assert decoded  # though nobody has asked for a frame
        other = next(video.frames(size=(8, 8)))
        assert other.image.shape == (8, 8, 3)
        for _ in range(2):
            assert all(np.array_equal(a.image, b) for a, b in zip(video.frames(size=(16, 24)), expected, strict=True))
    with open_video(clip) as video:
        video.prepare((16, 24))  # and nobody takes them


def test_threads_do_not_change_a_bit(clip):
    for size in (None, (96, 80)):
        with open_video(clip, threads=1) as one, open_video(clip, threads=4) as four:
            assert same(pictures(one.frames(size=size)), pictures(four.frames(size=size)))


def test_size_squeezes_like_a_bicubic_filter(clip):
    with open_video(clip, threads=1) as video:
        full, small = video[7].image, next(video.frames(7, size=(32, 40))).image
    assert small.shape == (32, 40, 3)
    pillow = np.asarray(Image.fromarray(full).resize((40, 32), Image.Resampling.BICUBIC))
    assert difference(small, pillow) < 3  # chroma is stored at half the resolution: filtered once here, twice there


def turned(degrees_clockwise):
    return np.rot90(videos.corners(), -degrees_clockwise // 90)


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, clockwise):
    path = videos.write_video(tmp_path / "r.mp4", [videos.corners()] * 3, rotation=-clockwise)
    expected = turned(clockwise)
    with open_video(path, threads=1) as video:
        assert video.rotation == clockwise
        assert (video.height, video.width) == expected.shape[:2]
        assert difference(video[1].image, expected) < 8
        squeezed = next(video.frames(size=(20, 30))).image
    assert squeezed.shape == (20, 30, 3) and squeezed.flags.c_contiguous
    assert difference(squeezed, Image.fromarray(np.ascontiguousarray(expected)).resize((30, 20))) < 12


def test_mirroring_is_applied(tmp_path):
    with av.open(str(tmp_path / "m.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(videos.corners(), "rgb24")))
        output.mux(stream.encode(None))
    with open_video(tmp_path / "m.mp4", threads=1) as video:
        assert difference(video[0].image, videos.corners()[:, ::-1]) < 8


def test_the_old_rotate_tag_is_honoured():
    frame = av.VideoFrame(64, 48, "yuv420p")
    for clockwise in (0, 90, 180, 270):
        orientation = decode.Orientation.of(frame, {"ROTATE": str(clockwise)})
        assert orientation.rotation == clockwise
        assert np.array_equal(orientation.apply(videos.corners()), turned(clockwise))
    assert decode.Orientation.of(frame, {"rotate": "sideways"}) == decode.Orientation()


def test_variable_frame_rate_keeps_exact_times(tmp_path):
    times = [0.5, 0.54, 0.64, 1.2, 1.21, 3.0]
    with open_video(videos.write_video(tmp_path / "v.mkv", SHAPES[:6], times=times), threads=1) as video:
        assert [frame.timestamp_s for frame in video] == pytest.approx([time - 0.5 for time in times])
        assert video.fps == pytest.approx(5 / 2.5)
        assert video[4].timestamp_s == pytest.approx(0.71)


@pytest.mark.parametrize("height, width", [(47, 63), (1, 1), (2, 200)])
def test_odd_sizes(tmp_path, height, width):
    shapes = [np.full((height, width, 3), 10 * index, np.uint8) for index in range(4)]
    path = videos.write_video(tmp_path / "odd.mkv", shapes, codec="ffv1", pix_fmt="yuv444p")
    with open_video(path, threads=1) as video:
        assert (video.height, video.width) == (height, width)
        assert difference(pictures(video), shapes) < 3


def test_one_frame(tmp_path):
    with open_video(videos.write_video(tmp_path / "one.mp4", SHAPES[:1]), threads=1) as video:
        assert len(video) == 1 and video.fps == 25 and video.duration_s == pytest.approx(0.04)
        assert same(pictures(video), [video[0].image])


def test_a_size_that_changes_midway_is_scaled_to_the_first(tmp_path):
    path = videos.write_changing_size(tmp_path / "c.ts", SHAPES[:10], videos.moving_shapes(20, 96, 96)[10:])
    with open_video(path, threads=1) as video:
        images = pictures(video)
        assert len(images) == 20 and {image.shape for image in images} == {(48, 64, 3)}
        assert np.array_equal(video[15].image, images[15])


@pytest.mark.parametrize("name", ["clip.avi", "clip", "concat:clip.mp4", "%03d.mp4", "-clip.mp4"])
def test_names_mean_nothing_to_the_decoder(clip, tmp_path, name):
    (tmp_path / name).write_bytes(clip.read_bytes())
    with open_video(tmp_path / name, threads=1) as video:
        assert len(list(video)) == 40
