"""Exports: pictures beside the annotations, what is refused, and memory that stays flat."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from mask_forms import disc, write_tables
from PIL import Image
from videos import write_video

from sam2_pipeline.cli import main
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.davis import MOST_OBJECTS
from sam2_pipeline.formats.exporting import FORMATS, export
from sam2_pipeline.formats.polygons import outline_polygon
from sam2_pipeline.formats.sources import open_masks
from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verdicts import Verdict, write_verdicts
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode
from sam2_pipeline.masklets.schema import VIDEOS
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.masklets.work import Commit


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Tables of 20 videos, and of these and 40 more, with 8 masks of 16 kB each: stripes, so that their codes are long."""
    folder = tmp_path_factory.mktemp("many")
    stripes = np.zeros((200, 160), bool)
    stripes[::2] = True
    for name, units in (("few", 2), ("many", 6)):
        storage = Storage(folder / name)
        for number in range(units):
            ids = tuple(f"{number:03}-{n:03}" for n in range(10))
            with UnitWriter(storage, f"u{number}", "1", {}) as writer:
                for video_id in ids:
                    with MaskSpool(video_id) as spool:
                        for n in range(8):
                            spool.add(n // 4, MaskletFrame(n % 4, n % 4 / 24, encode(stripes), 0.9, 1.0, 0.9))
                        row = dict.fromkeys(VIDEOS.names) | {"video_id": video_id, "status": "ok", "width": 160, "height": 200}
                        row |= {"fps": 24.0, "frame_count": 4, "duration_s": 4 / 24, "codec": "h264"}
                        seeds = [MaskletSeed(n, "auto", Prompt(n, 0, [[9, 9]], [1])) for n in range(2)]
                        writer.add_video(row, spool, seeds)
                commit_unit(storage, Commit(f"u{number}", "1", writer.finish(), ids, len(ids), 0))
    return MaskletDataset(folder / "few"), MaskletDataset(folder / "many")


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "yolo"])  # slow on stripes
def test_memory_does_not_grow_with_the_dataset(format, datasets, tmp_path):
    few, many = datasets
    export(few, Storage(tmp_path / "first"), format)  # pays for what is loaded once
    peaks = []
    for dataset in datasets:
        tracemalloc.start()
        export(dataset, Storage(tmp_path / f"{len(peaks)}"), format)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    growth = (peaks[1] - peaks[0]) / (len(many.video_ids) - len(few.video_ids))
    assert growth < 1500  # bytes a video: its name here and there, and none of its masks


@pytest.fixture
def run(tmp_path):
    """Tables with the video that they are of, and how its frames look."""
    pictures = [np.full((24, 32, 3), 8 * t, np.uint8) for t in range(12)]
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "v.mp4", pictures)
    objects = {1: {frame: disc(8, 8 + frame, 5) for frame in range(0, 12, 4)}}
    write_tables(tmp_path / "run", {"v": objects}, facts={"uri": str(tmp_path / "in" / "v.mp4"), "annotated_frame_count": 3})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("format", "folder"),
    [("coco", "images/v"), ("ytvis", "JPEGImages/v"), ("davis", "JPEGImages/Full-Resolution/v"), ("yolo", "images/v")],
)
def test_frames_where_the_format_has_them(format, folder, run, tmp_path):
    assert main(["export", str(run), str(tmp_path / "out"), "--format", format, "--frames", "--quiet"]) == 0
    pictures = sorted((tmp_path / "out" / folder).iterdir())
    assert [path.name for path in pictures] == ["00000.jpg", "00004.jpg", "00008.jpg"]
    with Image.open(pictures[1]) as picture:
        assert picture.size == (32, 24) and abs(np.asarray(picture).mean() - 32) < 6
    if format != "yolo":
        assert open_masks(tmp_path / "out").video_url("v") == str(tmp_path / "out" / folder)


def test_videos_beside_the_annotations_of_sa_v(run, tmp_path):
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "sav", "--frames"]) == 0
    assert (tmp_path / "out/v.mp4").read_bytes() == (tmp_path / "in/v.mp4").read_bytes()
    assert open_masks(tmp_path / "out").video_url("v") == str(tmp_path / "out/v.mp4")


def test_a_video_that_is_gone(run, tmp_path, capsys):
    (tmp_path / "in/v.mp4").unlink()
    assert main(["export", str(run), str(tmp_path / "out"), "--format", "coco", "--frames"]) == 3
    assert "not exported: v: " in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "without"), "--format", "coco"]) == 0


def test_what_is_there_is_not_mixed_with_what_comes(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    command = ["export", str(run), str(tmp_path / "out"), "--format", "sav"]
    assert main(command) == 2
    assert "notes.txt is there already; choose an empty place, or --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    with pytest.raises(ConfigError, match="no format 'voc'"):
        export(MaskletDataset(run), Storage(tmp_path / "x"), "voc")


def test_more_objects_than_a_picture_holds(tmp_path):
    masks = {frame: disc(9, 9, 4) for frame in (0, 4)}
    write_tables(tmp_path / "run", {"many": dict.fromkeys(range(MOST_OBJECTS + 1), masks), "one": {300: masks}})
    found = export(MaskletDataset(tmp_path / "run"), Storage(tmp_path / "out"), "davis")
    assert found.videos == 1 and [video_id for video_id, _ in found.failures] == ["many"]
    assert "DAVIS's pictures hold numbers up to 254" in found.failures[0][1]
    assert (tmp_path / "out/ImageSets/2017/val.txt").read_text() == "one\n"


def test_failed_videos_are_left_out(tmp_path, capsys):
    write_tables(tmp_path / "run", {"v": {1: {0: disc(9, 9, 4)}}}, failed=["w"])
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "ytvis"]) == 0
    assert "1 videos, 1 masklets" in (text := capsys.readouterr().out)
    assert "1 videos that the run failed on are left out" in text


def test_only_what_was_accepted(tmp_path, capsys):
    """The judge accepts masklets 0 and 1 of either video; of one of them somebody said otherwise, and of one that has no verdict
    that it is good."""
    objects = {n: {0: disc(5 + 6 * n, 9, 4), 4: disc(5 + 6 * n, 12, 4)} for n in range(3)}  # masklet ids are 2, 1, 0
    judged = {0: Judgement(1.0, 1.0, "accept"), 1: Judgement(1.0, 1.0, "accept")}
    url = write_tables(tmp_path / "run", {"v": objects, "w": objects}, judgements=judged)
    write_verdicts(Storage(url), [Verdict("v", 1, "reject", "ada"), Verdict("w", 2, "refine", "ada")])
    write_verdicts(Storage(url), [Verdict("w", 2, "accept", "bob")])
    assert main(["export", url, str(tmp_path / "out"), "--format", "ytvis", "--only", "accept"]) == 0
    assert "2 masklets of other verdicts than accept, or of none, are left out" in capsys.readouterr().out
    found = open_masks(tmp_path / "out")
    assert [sorted(found.load(name).numbers()) for name in ("v", "w")] == [[2], [0, 1, 2]]
    export(MaskletDataset(url), Storage(tmp_path / "doubtful"), "sav", only=("reject", "refine"))
    assert [open_masks(tmp_path / "doubtful").load(name).numbers() for name in ("v", "w")] == [(1,), ()]
    with pytest.raises(ConfigError, match="there is no verdict 'good', expected some of accept, reject, refine"):
        export(MaskletDataset(url), Storage(tmp_path / "none"), "sav", only=("good",))


def test_who_is_part_of_what_is_left_out_is_part_of_none(tmp_path):
    with MaskSpool("v") as spool:
        for n in range(3):
            spool.add(n, MaskletFrame(0, 0.0, disc(9, 9, 4), 0.9, 1.0, 0.9))
        spool.add_judgements({1: Judgement(1.0, 1.0, "accept"), 2: Judgement(1.0, 1.0, "accept")})
        prompt = Prompt(0, 0, [[9, 9]], [1])
        seeds = [MaskletSeed(n, "auto", prompt, parent_masklet_id=parent) for n, parent in enumerate((None, 0, 1))]
        with UnitWriter(Storage(tmp_path / "run"), "u", "1", {}) as writer:
            row = dict.fromkeys(VIDEOS.names) | {"video_id": "v", "status": "ok", "width": 64, "height": 48}
            writer.add_video(row | {"fps": 24.0, "frame_count": 1, "duration_s": 1 / 24, "codec": "h264"}, spool, seeds)
            parts = writer.finish()
    commit_unit(Storage(tmp_path / "run"), Commit("u", "1", parts, ("v",), 1, 0))
    export(MaskletDataset(tmp_path / "run"), Storage(tmp_path / "out"), "sav", only=("accept",))
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "back"), "--quiet"]) == 0
    rows = MaskletDataset(tmp_path / "back").masklets().to_pylist()
    assert [row["parent_masklet_id"] for row in rows] == [None, rows[0]["masklet_id"]]


def test_import_says_what_it_did(tmp_path, capsys):
    write_tables(tmp_path / "run", {"v": {1: {0: disc(9, 9, 4)}}})
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--format", "sav", "--quiet"]) == 0
    (tmp_path / "videos/v").mkdir(parents=True)
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "back"), "--videos", str(tmp_path / "videos")]) == 0
    assert "1 videos: 1 ok, 0 failed; 1 masklets" in capsys.readouterr().out
    row = MaskletDataset(tmp_path / "back").videos().to_pylist()[0]
    assert (row["uri"], row["model"]) == (str(tmp_path / "videos/v"), None)
    for verb, status in (("status", 0), ("verify", 0), ("retry", 2)):
        assert main([verb, str(tmp_path / "back")]) == status
    assert "were imported from" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "back"), str(tmp_path / "again")]) == 2
    assert "holds tables already" in capsys.readouterr().err


def inside(polygon, size):
    """Pixels whose centres lie in a polygon, by the even-odd rule; one column of crossings after the other."""
    height, width = size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    found = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        if y0 != y1:
            rows = (y0 <= y) != (y1 <= y)
            at = x0 + (y[rows, None] - y0) * (x1 - x0) / (y1 - y0)
            found[rows] ^= x > at
    return found


@pytest.mark.parametrize("seed", range(20))
def test_polygons_hold_every_pixel(seed):
    """Noise has holes, holes with islands, pixels that touch at corners, and the picture's edge."""
    mask = np.random.default_rng(seed).random((12, 17)) < (seed + 1) / 21
    assert np.array_equal(inside(outline_polygon(mask), mask.shape), mask)


def test_polygons_of_simple_masks():
    assert outline_polygon(np.zeros((4, 4), bool)).shape == (0, 2)
    assert inside(outline_polygon(np.ones((3, 5), bool)), (3, 5)).all()
    square = np.zeros((10, 20), bool)
    square[2:6, 5:15] = True
    assert len(outline_polygon(square)) == 8  # corners are cut


def test_lines_of_yolo(tmp_path):
    masks = {0: disc(9, 9, 5), 4: disc(0, 0, 0)}
    write_tables(tmp_path / "run", {"v": {1: masks, 2: masks}})
    export(MaskletDataset(tmp_path / "run"), Storage(tmp_path / "out"), "yolo")
    lines = Path(tmp_path / "out/labels/v/00000.txt").read_text().splitlines()
    assert len(lines) == 2 and (tmp_path / "out/labels/v/00004.txt").read_text() == ""
    number, *values = lines[0].split()
    points = np.array(values, float).reshape(-1, 2)
    assert number == "0" and points.min() >= 0 and points.max() <= 1
    rle = masks[0]
    assert inside(points * (32, 24), (24, 32)).sum() == rle.area
