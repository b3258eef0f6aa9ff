"""Video files: exact frames in any order, displayed orientation, bounded memory, and faults that are named."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import av
import fsspec
import numpy as np
import pytest
import videos
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io import decode
from sam2_pipeline.io.decode import VideoFile, open_video

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


FAULTS = {
    "no such file": (lambda clip, path: path, "no such file"),
    "empty": (lambda clip, path: path.write_bytes(b""), "FFmpeg cannot read it"),
    "not a video": (lambda clip, path: path.write_text("hello " * 500), "FFmpeg cannot read it"),
    "no index": (lambda clip, path: videos.truncated(videos.write_video(f"{path}.mp4", SHAPES), path), "FFmpeg cannot read it"),
    "cut": (lambda clip, path: videos.truncated(clip, path), r"truncated: \d+ frames found, 40 expected"),
    "cut mkv": (
        lambda clip, path: videos.truncated(videos.write_video(f"{path}.mkv", SHAPES * 2), path),
        r"truncated: \d+ frames found up to 1.\d+ s, expected frames \(about 80\) up to 3.20 s",
    ),
    "audio only": (
        lambda clip, path: videos.write_audio_only(f"{path}.m4a").rename(path),
        "no video stream; the file holds audio",
    ),
    "zero frames": (lambda clip, path: videos.write_without_frames(f"{path}.mp4").rename(path), "holds no frames"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_when_opening(clip, tmp_path, fault):
    make, message = FAULTS[fault]
    path = tmp_path / "faulty"
    make(clip, path)
    with pytest.raises(VideoError, match=message) as caught:
        open_video(path, threads=1)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("threads", [1, 4])
def test_flipped_bytes_are_noticed_every_time(tmp_path, threads):
    noisy = list(np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3), np.uint8))
    sound = videos.write_video(tmp_path / "sound.mp4", noisy)
    path = videos.flipped(sound, tmp_path / "flipped.mp4", 5)
    messages = set()
    for _ in range(3):
        with open_video(path, threads=threads) as video, pytest.raises(VideoError, match=r"corrupt|damaged") as caught:
            list(video)
        messages.add(str(caught.value))
    assert len(messages) == 1 and "flipped.mp4: frame" in messages.pop()


def test_frames_that_the_decoder_leaves_out_are_noticed(clip, monkeypatch):
    numbered = VideoFile._numbered
    with open_video(clip, threads=1) as video:
        monkeypatch.setattr(VideoFile, "_numbered", lambda *a: (pair for pair in numbered(*a) if pair[0] != 20))
        with pytest.raises(VideoError, match="20 frames decoded, 40 expected"):
            list(video)


def test_absurd_sizes_are_refused(clip):
    with pytest.raises(VideoError, match=r"clip.mp4: pictures are 64x48 pixels, expected at most 3071"):
        open_video(clip, max_pixels=64 * 48 - 1)
    with pytest.raises(VideoError, match=r"clip.mp4: the video lasts 2 s, expected at most 1 s"):
        open_video(clip, max_duration_s=1)


def test_arguments_out_of_range(clip):
    with open_video(clip, threads=1) as video:
        for arguments in ({"start": 41}, {"start": -1}, {"start": 40, "reverse": True}, {"stop": -1}, {"size": (0, 5)}):
            with pytest.raises(ConfigError, match=r"clip\.mp4"):
                video.frames(**arguments)
        for index in (40, -41):
            with pytest.raises(IndexError, match=r"no frame -?4"):
                video[index]
    with pytest.raises(ConfigError, match="threads is 0"):
        open_video(clip, threads=0)


def held():
    """Read-ahead threads, native threads (FFmpeg's are invisible to Python), and open files."""
    gc.collect()
    names = [thread.name for thread in threading.enumerate() if thread.name == "sam2-read-ahead"]
    return len(names), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads and files by /proc")
@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_is_left_of_an_abandoned_iteration(clip, reverse):
    def abandon(video):
        for frame in video.frames(39 if reverse else 0, reverse=reverse, size=(32, 32)):
            if frame.index == 20:
                return  # the iterator is forgotten here

    video = open_video(clip, threads=4)
    abandon(video)  # whatever libraries start once has been started now
    before = held()
    for _ in range(5):
        abandon(video)
        iterators = [video.frames(size=(16, 16)) for _ in range(3)]
        for iterator in iterators:
            next(iterator)
        del iterator, iterators
    assert before[0] == 0 and all(now <= then for now, then in zip(held(), before))


def test_closing_ends_the_iterations_under_way(clip):
    with open_video(clip, threads=1) as video:
        iterator = iter(video)
        next(iterator)
    with pytest.raises(VideoError, match=r"clip.mp4: the video was closed"):
        list(iterator)
    with pytest.raises(VideoError, match=r"clip.mp4: the video has been closed"):
        video[0]
    assert held()[0] == 0


def test_the_interpreter_exits_cleanly_in_the_middle_of_videos(clip):
    script = (
        "import sys; from sam2_pipeline.io.decode import open_video\n"
        "videos = [open_video(sys.argv[1]) for _ in range(3)]\n"
        "iterators = [iter(video) for video in videos] + [v.frames(39, reverse=True) for v in videos]\n"
        "print(sum(next(i).index for i in iterators))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(clip)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "117\n", "")


@pytest.mark.parametrize("reverse", [False, True])
def test_pictures_in_memory_do_not_grow_with_length(tmp_path, monkeypatch, reverse):
    """One long group of pictures, which cannot be entered anywhere but at its start."""
    monkeypatch.setattr(decode, "REVERSE_BYTES", 20 * 48 * 64 * 3)
    path = videos.write_video(tmp_path / "long.mp4", videos.moving_shapes(300), gop=1000)
    made, most, picture = [], 0, VideoFile._picture

    def counted(*arguments):
        frame = picture(*arguments)
        made.append(weakref.ref(frame.image))
        return frame

    monkeypatch.setattr(VideoFile, "_picture", counted)
    with open_video(path, threads=1) as video:
        for frame in video.frames(299 if reverse else 0, reverse=reverse):
            most = max(most, sum(image() is not None for image in made[-100:]))
            del frame
    assert len(made) == 300
    assert 1 <= most <= (20 if reverse else 0) + 4 + 2  # the chunk; read ahead; in the producer's and the consumer's hands


def temporary_files():
    return set(os.listdir(os.environ["TMPDIR"]))


@pytest.fixture
def remote(clip, tmp_path, monkeypatch):
    """The clip in a store that is not the local disk, as a file and inside a tar."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/clip.mp4", clip.read_bytes())
    yield fs
    fs.rm("/bucket", recursive=True)


def test_remote_videos_are_fetched_and_removed(remote, clip):
    with open_video(clip, threads=1) as local, open_video("memory://bucket/clip.mp4", threads=1) as video:
        assert same(pictures(video), pictures(local)) and video.url == "memory://bucket/clip.mp4"
        assert len(temporary_files()) == 1
    assert not temporary_files()
    forgotten = open_video("memory://bucket/clip.mp4", threads=1)
    next(iter(forgotten))
    del forgotten
    gc.collect()
    assert not temporary_files()


def test_remote_faults_leave_no_file_behind(remote):
    remote.pipe_file("/bucket/text.mp4", b"hello " * 500)
    with pytest.raises(VideoError, match=r"memory://bucket/text.mp4: FFmpeg cannot read it"):
        open_video("memory://bucket/text.mp4")
    with pytest.raises(VideoError, match=r"memory://bucket/absent.mp4: there is no such file"):
        open_video("memory://bucket/absent.mp4")
    assert not temporary_files()
