"""Scenes as sources of frames, and as files that say the same when they are read back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.sources import list_videos
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.training.synthetic import SceneOptions, make_scene
from sam2_pipeline.training.synthetic.files import SyntheticVideo, make_dataset, write_clip

OPTIONS = SceneOptions(size=(96, 128), frames=9, parts=0.5, objects=(4, 4), late=0.4)


def test_a_scene_is_a_source_of_frames():
    scene = make_scene(3, OPTIONS)
    video = SyntheticVideo(scene)
    assert (video.height, video.width, video.num_frames, len(video)) == (96, 128, 9, 9)
    forward = list(video.frames(2, 7))
    assert [frame.index for frame in forward] == [2, 3, 4, 5, 6]
    assert forward[1].timestamp_s == 3 / 24
    for frame in (*forward, *video.frames(8, reverse=True)):
        np.testing.assert_array_equal(frame.image, scene.frame(frame.index))
    small = next(iter(video.frames(1, size=(64, 64))))
    assert small.image.shape == (64, 64, 3) and small.image.dtype == np.uint8
    with pytest.raises(ConfigError, match="start is frame 10"):
        video.frames(10)


@pytest.mark.parametrize("every", [1, 4])
def test_annotations_agree_with_the_masks(tmp_path: Path, every: int):
    scene = make_scene(8, OPTIONS)
    files = write_clip(scene, tmp_path, "clip", annotate_every=every)
    annotation = json.loads(files.annotation.read_text())
    frames = range(0, 9, every)
    assert len(annotation["masklet"]) == len(frames) == annotation["masklet_frame_count"][0]
    ids = annotation["masklet_id"]
    assert annotation["masklet_num"] == len(ids) > 1
    assert [path.name for path in sorted(files.pictures.iterdir())] == [f"{t:05d}.png" for t in frames]
    for t, rles in zip(frames, annotation["masklet"], strict=True):
        masks = scene.masks(t)
        for number, rle in zip(ids, rles, strict=True):
            np.testing.assert_array_equal(decode(Rle.from_coco(rle)), masks[number])
        unseen = np.setdiff1d(np.arange(scene.num_objects), ids)
        assert not masks[unseen].any()
        with Image.open(files.pictures / f"{t:05d}.png") as picture:
            assert picture.mode == "P" and picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            labels = np.asarray(picture)
        np.testing.assert_array_equal(labels, scene.labels(t))
        for number in range(scene.num_objects):
            family = [number, *np.flatnonzero(scene.parents == number)]
            np.testing.assert_array_equal(np.isin(labels, np.array(family) + 1), masks[number])


def test_measures_in_the_annotation(tmp_path: Path):
    scene = make_scene(8, OPTIONS)
    annotation = json.loads(write_clip(scene, tmp_path, "clip", annotate_every=2).annotation.read_text())
    areas_TN = np.stack([scene.masks(t).sum((1, 2)) for t in range(0, 9, 2)])[:, annotation["masklet_id"]]
    np.testing.assert_allclose(annotation["masklet_size_abs"], areas_TN.sum(0) / (areas_TN > 0).sum(0))
    np.testing.assert_allclose(annotation["masklet_size_rel"], np.array(annotation["masklet_size_abs"]) / (96 * 128))
    assert annotation["masklet_first_appeared_frame"] == (areas_TN > 0).argmax(0).tolist()
    assert max(annotation["masklet_first_appeared_frame"]) > 0
    assert (annotation["video_height"], annotation["video_width"], annotation["video_frame_count"]) == (96, 128, 9)
    assert annotation["video_duration"] == 9 / 24


def test_the_video_shows_the_scene(tmp_path: Path):
    scene = make_scene(1, replace(OPTIONS, noise=0, compression=0))
    with open_video(str(write_clip(scene, tmp_path, "clip", crf=4).video)) as video:
        assert (video.num_frames, video.fps, video.height, video.width) == (9, 24, 96, 128)
        for frame in video:
            # H.264 keeps a quarter of the colour: edges between vivid colours bleed.
            assert np.abs(frame.image.astype(int) - scene.frame(frame.index)).mean() < 12
            assert np.abs(frame.image.mean(-1) - scene.frame(frame.index).mean(-1)).mean() < 6


def test_coarse_compression_makes_smaller_files(tmp_path: Path):
    scene = make_scene(1, replace(OPTIONS, compression=0))
    squeezed = make_scene(1, replace(OPTIONS, compression=1))
    fine, coarse, asked = (
        write_clip(one, tmp_path, name, crf=crf).video.stat().st_size
        for one, name, crf in ((scene, "fine", None), (squeezed, "coarse", None), (scene, "asked", 45))
    )
    assert coarse < 0.8 * fine and asked < 0.5 * fine


def test_a_dataset_is_deterministic_and_can_be_listed(tmp_path: Path):
    for folder in ("a", "b"):
        clips = make_dataset(tmp_path / folder, [4, 11], OPTIONS, annotate_every=4)
        assert [clip.video.name for clip in clips] == ["synthetic_000004.mp4", "synthetic_000011.mp4"]
    written = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(written) == 2 * (1 + 1 + 3)
    for path in written:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    assert [video.video_id for video in list_videos(str(tmp_path / "a" / "videos"))] == ["synthetic_000004", "synthetic_000011"]


def test_what_cannot_be_written(tmp_path: Path):
    with pytest.raises(ConfigError, match="even sides"):
        write_clip(make_scene(0, replace(OPTIONS, size=(95, 128))), tmp_path, "odd")
    with pytest.raises(ConfigError, match="annotate_every is 0"):
        write_clip(make_scene(0, OPTIONS), tmp_path, "none", annotate_every=0)
    with pytest.raises(ConfigError, match="crf is 60"):
        write_clip(make_scene(0, OPTIONS), tmp_path, "bad", crf=60)
    assert not list(tmp_path.iterdir())
