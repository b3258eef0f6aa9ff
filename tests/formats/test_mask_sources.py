"""Every form in which masks may come, and what is wrong with some."""

import json
import pickle

import fsspec
import numpy as np
import pytest
from mask_forms import SIZE, WRITERS, disc, moving_discs, write_folders, write_palette, write_sav, write_tables
from PIL import Image

from sam2_pipeline.errors import ConfigError, PipelineError, StorageError, VideoError
from sam2_pipeline.formats.sav_content import frame_step, read_annotation
from sam2_pipeline.formats.sources import open_masks

VIDEOS = {"a": moving_discs(), "b": moving_discs(shift=2)}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_masks(name, tmp_path):
    source = open_masks(WRITERS[name](tmp_path / "masks", VIDEOS))
    assert source.video_ids == ("a", "b") and not source.automatic
    source = pickle.loads(pickle.dumps(source))
    for video_id, expected in VIDEOS.items():
        assert source.read(video_id) == expected


@pytest.mark.parametrize("name", WRITERS)
def test_nested_videos(name, tmp_path):
    source = open_masks(WRITERS[name](tmp_path / "masks", {"x/y": VIDEOS["a"]}))
    assert source.video_ids == ("x/y",)
    assert source.read("x/y") == VIDEOS["a"]


def test_remote_places(tmp_path):
    write_palette(tmp_path / "masks", VIDEOS)
    fsspec.filesystem("memory").put(f"{tmp_path}/masks/", "/bucket/masks/", recursive=True)
    try:
        assert open_masks("memory://bucket/masks").read("b") == VIDEOS["b"]
    finally:
        fsspec.filesystem("memory").store.clear()


def test_tables(tmp_path):
    source = open_masks(write_tables(tmp_path / "out", VIDEOS, kind="auto", failed=["c"]))
    assert source.automatic and source.video_ids == ("a", "b", "c")
    assert source.read("a") == {0: VIDEOS["a"][2], 1: VIDEOS["a"][1]}  # by masklet id
    with pytest.raises(VideoError, match="the run failed on it: VideoError: no frames"):
        source.read("c")
    empty = open_masks(write_tables(tmp_path / "empty", {"a": {}}))
    assert empty.read("a") == {}


def test_one_sav_file(tmp_path):
    write_sav(tmp_path, VIDEOS)
    source = open_masks(tmp_path / "b_manual.json")
    assert source.video_ids == ("b",) and source.url.endswith("/b_manual.json")
    assert source.read("b") == VIDEOS["b"]


def test_manual_and_automatic_sav_files(tmp_path):
    write_sav(tmp_path, {"a": VIDEOS["a"]})
    with pytest.raises(ConfigError, match="holds no auto masklets"):
        open_masks(tmp_path, sav="auto")
    write_sav(tmp_path, {"a": VIDEOS["b"]}, kind="auto")
    with pytest.raises(ConfigError, match="manual and automatic masklets, expected one kind"):
        open_masks(tmp_path)
    manual, automatic = open_masks(tmp_path, sav="manual"), open_masks(tmp_path, sav="auto")
    assert manual.read("a") == VIDEOS["a"] and not manual.automatic
    assert automatic.read("a") == VIDEOS["b"] and automatic.automatic


def test_sav_oddities():
    rle = disc(5, 5, 3)
    counts = [float(run) for run in rle.runs()]
    annotation = {"masklet": [[{"size": [24.0, 32.0], "counts": counts}]], "masklet_id": [3.0], "video_frame_count": 4.0}
    video = read_annotation(annotation, "v")
    assert (video.numbers(), video.frames, video.masklets[0].frames[0].rle) == ((3,), (0,), rle)
    assert read_annotation({"masklet": []}, "v").masklets == ()


@pytest.mark.parametrize(
    ("total", "annotated", "duration", "step"),
    [
        (483, 121, 20.125, 4),
        (483, 121, None, 4),
        (24, 6, 1, 4),
        (9, 3, None, 4),
        (9, 3, 0.5, 3),
        (5, 5, None, 1),
        (None, 7, None, 1),
    ],
)
def test_the_step_between_annotated_frames(total, annotated, duration, step):
    annotation = {"masklet": [[]] * annotated, "video_frame_count": total, "video_duration": duration}
    assert frame_step(annotation) == step


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "no list named masklet"),
        ({"masklet": 3}, "no list named masklet"),
        ({"masklet": [[None]]}, "mask of object 0 on annotated frame 0 is None, expected an RLE"),
        ({"masklet": [[{"size": [2, 2], "counts": "4"}], []]}, "annotated frame 1 has 0 masks, expected 1"),
        ({"masklet": [[{"size": [2, 2], "counts": [3]}]]}, "add up to 3, expected 2x2 = 4"),
        ({"masklet": [[], []], "masklet_id": [1, 1]}, r"masklet_id is \[1, 1\], expected different numbers"),
        ({"masklet": [[{"size": [2, 2], "counts": "4"}]], "masklet_verdict": []}, "masklet_verdict is .*, expected a list of 1"),
        ({"masklet": [[{"size": [2, 2], "counts": "4"}]], "mask_raw_area": [[]]}, "mask_raw_area is .*, expected a list of 1"),
        ({"masklet": [[]] * 7, "video_frame_count": 10}, r"7 annotated frames of 10 \(video_frame_count\)"),
    ],
)
def test_broken_sav_files(tmp_path, content, message):
    path = tmp_path / "v_manual.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(VideoError, match=message) as caught:
        open_masks(tmp_path).read("v")
    assert str(path) in str(caught.value)


def test_pictures_that_are_none(tmp_path):
    write_palette(tmp_path, VIDEOS)
    (tmp_path / "a" / "00000.png").write_bytes(b"no picture")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "b" / "00000.png")
    source = open_masks(tmp_path)
    with pytest.raises(VideoError, match=r"a/00000.png is not a readable picture"):
        source.read("a")
    with pytest.raises(VideoError, match=r"b/00000.png is a picture of mode RGB, expected palette or greyscale"):
        source.read("b")


def test_an_objects_folder_with_several_objects(tmp_path):
    write_folders(tmp_path, {"a": VIDEOS["a"]})
    Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(SIZE)).save(tmp_path / "a" / "001" / "00000.png")
    with pytest.raises(VideoError, match=r"001/00000.png has the values \[0, 1, 2, 3, 4\], expected 0 and one other"):
        open_masks(tmp_path).read("a")


def test_binary_and_sixteen_bit_pictures(tmp_path):
    (tmp_path / "v").mkdir()
    mask = np.zeros(SIZE, bool)
    mask[3:9, 4:7] = True
    Image.fromarray(mask).save(tmp_path / "v" / "0.png")
    Image.fromarray(mask.astype(np.uint16) * 1000).save(tmp_path / "v" / "10.png")
    found = open_masks(tmp_path).read("v")
    assert {number: [frame for frame, rle in masks.items() if rle.area] for number, masks in found.items()} == {
        1: [0],
        1000: [10],
    }


def _lone_picture(folder):
    Image.new("L", (4, 4)).save(folder / "00000.png")


def _words_for_numbers(folder):
    (folder / "v").mkdir()
    Image.new("L", (4, 4)).save(folder / "v" / "first.png")


def _same_frame_twice(folder):
    (folder / "v").mkdir()
    for name in ("1.png", "01.png"):
        Image.new("L", (4, 4)).save(folder / "v" / name)


def _both_layouts(folder):
    write_palette(folder, {"v": VIDEOS["a"]})
    write_folders(folder, {"v": VIDEOS["a"]})


def _both_kinds(folder):
    write_palette(folder, VIDEOS)
    write_sav(folder, VIDEOS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "holds no masks: expected a run's output, SA-V JSON files, folders of PNGs, or"),
        (_lone_picture, "expected frame numbers in folders"),
        (_words_for_numbers, "first.png: expected frame numbers in folders"),
        (_same_frame_twice, "are the same frame of one video"),
        (_both_layouts, "v holds frames and folders of objects"),
        (_both_kinds, "holds 2 SA-V files and 12 PNGs, expected one kind"),
    ],
)
def test_places_that_are_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_masks(tmp_path)


def test_a_place_that_is_not_there(tmp_path):
    with pytest.raises(PipelineError, match="nowhere"):
        open_masks(tmp_path / "nowhere")
    with pytest.raises((StorageError, VideoError), match=r"nowhere\.json"):
        open_masks(tmp_path / "nowhere.json").read("nowhere")
