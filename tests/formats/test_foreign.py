"""Annotations of others, which say less than ours or say it otherwise."""

import json
import pickle

import numpy as np
import pytest
import yaml
from mask_forms import disc, moving_discs, write_palette, write_sav
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.coco_items import Categories
from sam2_pipeline.formats.exporting import export
from sam2_pipeline.formats.sources import open_masks
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import annotated_masklet
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.pipeline.importing import import_masks

PICTURE = {"width": 32, "height": 24}
SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]]


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_pictures_of_coco(tmp_path):
    """COCO itself: no videos, polygons, and crowds as uncompressed run lengths."""
    crowd = {"size": [24, 32], "counts": [int(run) for run in disc(10, 20, 4).runs()]}
    content = {
        "images": [PICTURE | {"id": 9, "file_name": "000000000139.jpg"}, PICTURE | {"id": 3, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 50, "image_id": 9, "category_id": 18, "segmentation": SQUARE, "area": 60, "bbox": [2, 3, 10, 6], "iscrowd": 0},
            {"id": 51, "image_id": 9, "category_id": 1, "segmentation": crowd, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    source = open_masks(write(tmp_path / "instances_val2017.json", content))
    assert source.video_ids == ("000000000139", "b")
    found = pickle.loads(pickle.dumps(source)).read("000000000139")
    assert decode(found[50][0]).sum() == 60 and decode(found[50][0])[3:9, 2:12].all()
    assert found[51][0] == disc(10, 20, 4)
    assert source.load("b").masklets == () and source.load("b").frames == (0,)


@pytest.mark.parametrize("format", ["coco", "ytvis"])
def test_categories_and_crowds_come_back(format, tmp_path):
    categories = [{"id": 7, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person", "supercategory": "person"}]
    masks = [{"id": n, "image_id": 1, "category_id": number, "segmentation": SQUARE, "iscrowd": crowd}
             for n, (number, crowd) in enumerate([(7, 0), (1, 1), (1, 0)], 1)]  # fmt: skip
    content = {"images": [PICTURE | {"id": 1, "file_name": "a.jpg"}], "annotations": masks, "categories": categories}
    import_masks(open_masks(write(tmp_path / "in.json", content)), Storage(tmp_path / "tables"))
    dataset = MaskletDataset(tmp_path / "tables")
    export(dataset, Storage(tmp_path / "out"), format)
    written = json.loads((tmp_path / "out/annotations.json").read_text())
    assert written["categories"] == sorted(categories, key=lambda category: category["id"])
    assert [(item["category_id"], item["iscrowd"]) for item in written["annotations"]] == [(7, 0), (1, 1), (1, 0)]
    import_masks(open_masks(tmp_path / "out"), Storage(tmp_path / "back"))
    before, after = (MaskletDataset(tmp_path / name).masklets() for name in ("tables", "back"))
    assert after["attributes"].to_pylist() == before["attributes"].to_pylist()
    export(dataset, Storage(tmp_path / "yolo"), "yolo")
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"] == {0: "dog", 1: "person"}
    assert [line[0] for line in (tmp_path / "yolo/labels/a/00000.txt").read_text().splitlines()] == ["0", "1", "1"]


def test_numbers_of_categories_that_are_taken():
    known, mask = Categories(), {0: disc(8, 8, 4)}
    numbers = [
        known.number(annotated_masklet("v", 0, mask, 24.0, attributes=attributes))
        for attributes in ({}, {"category": {"id": 1, "name": "person"}}, {"category": {"id": 9, "name": "cat"}}, {})
    ]
    assert numbers == [1, 2, 9, 1]


def test_youtube_vis(tmp_path):
    rle = disc(10, 20, 4)
    uncompressed = {"size": [24, 32], "counts": [int(run) for run in rle.runs()]}
    content = {
        "videos": [PICTURE | {"id": 4, "length": 3, "file_names": [f"003/{n:05}.jpg" for n in (0, 5, 10)]}],
        "annotations": [{"id": 8, "video_id": 4, "category_id": 2, "segmentations": [None, uncompressed, SQUARE]}],
    }
    (tmp_path / "JPEGImages" / "003").mkdir(parents=True)
    (tmp_path / "JPEGImages" / "003" / "00000.jpg").touch()
    video = open_masks(write(tmp_path / "train.json", content)).load("003")
    assert video.frames == (0, 5, 10) and video.uri == str(tmp_path / "JPEGImages/003")
    (masklet,) = video.masklets
    assert (masklet.kind, masklet.masklet_id, masklet.seed.object_id) == ("prompted", 0, 8)
    assert [frame.rle.area for frame in masklet.frames] == [0, rle.area, 60]
    assert masklet.seed.prompt.frame_index == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentations": [None]}, "annotation 8 has 1 segmentations, its video 2 frames"),
        ({"segmentations": [None, {"size": [2, 2], "counts": "4"}]}, "of 2x2 pixels, its picture of 24x32"),
        ({"segmentations": [None, [[1, 2]]]}, "expected polygons of 3 points"),
        ({"segmentations": [None, None], "verdict": "fine"}, "a verdict is 'fine', expected one of accept, refine, reject"),
    ],
)
def test_broken_youtube_vis(tmp_path, changes, message):
    video = {"id": 4, "width": 32, "height": 24, "length": 2, "file_names": ["v/0.jpg", "v/1.jpg"]}
    content = {"videos": [video], "annotations": [{"id": 8, "video_id": 4, "category_id": 2} | changes]}
    source = open_masks(write(tmp_path / "train.json", content))
    with pytest.raises(VideoError, match=message):
        source.load("v")


def test_two_masks_of_a_track_on_one_picture(tmp_path):
    image = {"id": 1, "video_id": 1, "file_name": "v/0.jpg", "frame_index": 0, "width": 32, "height": 24}
    mask = {"image_id": 1, "video_id": 1, "track_id": 1, "category_id": 1, "segmentation": SQUARE}
    content = {"videos": [{"id": 1, "name": "v"}], "images": [image], "annotations": [mask | {"id": 1}, mask | {"id": 2}]}
    with pytest.raises(VideoError, match="track 1 has two masks on image 1"):
        open_masks(write(tmp_path / "a.json", content | {"tracks": []})).load("v")


def test_a_json_file_that_ends_early(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"videos": [{"id": 1, "file_names": ["v/0.jpg"]}, {"id"')
    with pytest.raises(VideoError, match=r"train\.json: not readable as JSON"):
        open_masks(path)


def test_the_root_of_davis(tmp_path):
    videos = {"swan": moving_discs()}
    write_palette(tmp_path / "Annotations" / "480p", videos)
    (tmp_path / "JPEGImages" / "480p" / "swan").mkdir(parents=True)
    source = open_masks(tmp_path)
    assert source.video_ids == ("swan",) and source.read("swan") == videos["swan"]
    assert source.video_url("swan") == str(tmp_path / "JPEGImages/480p/swan")
    write_palette(tmp_path / "Annotations" / "1080p", videos)
    with pytest.raises(ConfigError, match=r"holds masks in Annotations/1080p/ and Annotations/480p/, expected one"):
        open_masks(tmp_path)


def test_objects_in_folders_that_have_frames_of_their_own(tmp_path):
    for number, frames in ((0, (0, 4)), (2, (4, 8))):
        folder = tmp_path / "v" / f"{number:03}"
        folder.mkdir(parents=True)
        for frame in frames:
            Image.fromarray(decode(disc(8, 8, 4)).astype(np.uint8) * 255).save(folder / f"{frame:05}.png")
    video = open_masks(tmp_path).load("v")
    assert video.frames == (0, 4, 8) and video.numbers() == (0, 2)
    assert [[frame.rle.area > 0 for frame in m.frames] for m in video.masklets] == [[True, True, False], [False, True, True]]


def test_manual_and_automatic_masklets_together(tmp_path):
    videos = moving_discs()
    write_sav(tmp_path, {"v": videos})
    write_sav(tmp_path, {"v": videos}, kind="auto")
    video = open_masks(tmp_path, sav="both").load("v")
    assert [m.masklet_id for m in video.masklets] == [1, 2, 3, 4]
    assert video.masklets[2].frames == video.masklets[0].frames


def test_formats_that_were_not_asked_for(tmp_path):
    write_sav(tmp_path, {"v": moving_discs()})
    with pytest.raises(ConfigError, match="holds sav, expected coco"):
        open_masks(tmp_path, format="coco")
    with pytest.raises(ConfigError, match="no format 'yolo' to read"):
        open_masks(tmp_path, format="yolo")
