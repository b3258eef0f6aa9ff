"""Video files: faults that are named, bounded memory, and nothing left behind."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import fsspec
import numpy as np
import pytest
import videos

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io import decode
from sam2_pipeline.io.decode import VideoFile, open_video

SHAPES = videos.moving_shapes(40)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """40 frames of 64x48 at 25 frames per second, with sound and the index in front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return videos.write_video(path, SHAPES, audio_s=1.6, muxing={"movflags": "faststart"})


def pictures(frames):
    return [frame.image for frame in frames]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


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
