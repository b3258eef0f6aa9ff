"""Folders of pictures and single pictures as videos."""

import io

import fsspec
import numpy as np
import pytest
import videos
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.images import frame_order

SHAPES = videos.moving_shapes(12)


@pytest.fixture
def folder(tmp_path):
    return videos.write_pictures(tmp_path / "frames", SHAPES)


def numbers(frames):
    return [frame.index for frame in frames]


def test_a_folder_is_a_video(folder):
    with open_video(folder) as video:
        assert (video.height, video.width, video.num_frames, video.fps) == (48, 64, 12, 24.0)
        assert (video.codec, video.rotation, video.duration_s) == ("png", 0, pytest.approx(0.5))
        for index, frame in enumerate(video):
            assert frame.index == index and frame.timestamp_s == pytest.approx(index / 24)
            assert np.array_equal(frame.image, SHAPES[index])
        assert np.array_equal(video[-1].image, SHAPES[-1])
        assert numbers(video.frames(3, 6)) == [3, 4, 5]
        assert numbers(video.frames(6, 3, reverse=True)) == [6, 5, 4, 3]
        assert numbers(video.frames(2, reverse=True)) == [2, 1, 0]


def test_frame_rate_is_the_callers(folder):
    with open_video(folder, frame_rate=10) as video:
        assert (video.fps, video[5].timestamp_s, video.duration_s) == (10, 0.5, 1.2)
    with pytest.raises(ConfigError, match="frame_rate is 0"):
        open_video(folder, frame_rate=0)


def test_size_is_pillows_bicubic_to_the_bit(folder):
    with open_video(folder) as video:
        for frame in video.frames(size=(96, 100)):
            expected = Image.fromarray(SHAPES[frame.index]).resize((100, 96), Image.Resampling.BICUBIC)
            assert np.array_equal(frame.image, np.asarray(expected))


@pytest.mark.parametrize(
    "names",
    [
        ["0.png", "1.png", "2.png", "9.png", "10.png", "00011.png"],
        ["a1.jpg", "a2.jpg", "a10.jpg", "b0.jpg"],
        ["frame_1_a.png", "frame_1_b.png", "frame_2_a.png", "frame_10_a.png"],
        ["1.jpg", "1.png", "x.jpg"],
    ],
)
def test_order_of_frames(names):
    assert frame_order(names[::-1]) == names
    assert frame_order([f"a/b2/{name}" for name in names[::-1]]) == [f"a/b2/{name}" for name in names]


def test_what_is_not_a_picture_is_left_out(folder):
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".00000.png").write_bytes(b"hidden")
    (folder / "masks.png").mkdir()
    with open_video(folder) as video:
        assert len(list(video)) == 12


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    name = "picture.jpg" if mode == "CMYK" else "picture.png"
    Image.fromarray(SHAPES[0]).convert(mode).save(tmp_path / name)
    with open_video(tmp_path / name) as video:
        assert len(video) == 1 and video[0].image.shape == (48, 64, 3) and video[0].image.dtype == np.uint8


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    path = tmp_path / "turned.png"
    Image.fromarray(videos.corners()).save(path, exif=exif)
    with open_video(path) as video:
        assert (video.height, video.width) == (64, 48)
        assert np.array_equal(video[0].image, np.rot90(videos.corners(), -1))
    with open_video(path, exif_orientation=False) as video:
        assert np.array_equal(video[0].image, videos.corners())


def test_remote_folders_and_pictures(folder):
    fs = fsspec.filesystem("memory")
    fs.put(str(folder), "/pictures/clip", recursive=True)
    try:
        with open_video("memory://pictures/clip") as video:
            assert [np.array_equal(frame.image, SHAPES[frame.index]) for frame in video] == [True] * 12
        with open_video("memory://pictures/clip/00003.png") as video:
            assert len(video) == 1 and np.array_equal(video[0].image, SHAPES[3])
    finally:
        fs.rm("/pictures", recursive=True)


def jpeg(picture, quality=90):
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality)
    return data.getvalue()


def test_damage_is_named_with_its_file(tmp_path):
    for index, shape in enumerate(SHAPES[:3]):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg(shape))
    (tmp_path / "1.jpg").write_bytes(jpeg(SHAPES[1])[:-300])
    with open_video(tmp_path) as video, pytest.raises(VideoError, match=r"frame 1 \(.*1\.jpg\) is damaged: .*truncated"):
        list(video)
    (tmp_path / "1.jpg").write_text("this is no picture")
    with open_video(tmp_path) as video, pytest.raises(VideoError, match=r"frame 1 \(.*1\.jpg\) is in no picture format"):
        list(video)
    (tmp_path / "1.jpg").write_bytes(jpeg(videos.corners(10, 20)))
    with open_video(tmp_path) as video, pytest.raises(VideoError, match=r"1\.jpg\) is 20x10 pixels, expected 64x48"):
        list(video)
    with open_video(tmp_path) as video:
        (tmp_path / "1.jpg").unlink()
        with pytest.raises(VideoError, match=r"cannot be read: FileNotFoundError: .*1\.jpg"):
            list(video)


def test_what_cannot_be_opened(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(VideoError, match=r"empty: the folder holds 1 files but no pictures, expected .*\.jpg"):
        open_video(tmp_path / "empty")
    with pytest.raises(VideoError, match=r"absent\.jpg"):
        open_video(tmp_path / "absent.jpg")
    with pytest.raises(VideoError, match=r"00000\.png is 64x48 pixels, expected at most 100 in all"):
        open_video(folder, max_pixels=100)
