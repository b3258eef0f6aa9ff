"""What goes out comes back: tables into every format and back into tables, and the real example of SA-V the other way round."""

import json
from pathlib import Path

import numpy as np
import pytest
from mask_forms import disc
from pycocotools import mask as coco
from pycocotools.coco import COCO

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.exporting import export
from sam2_pipeline.formats.sav_content import read_annotation, write_annotation
from sam2_pipeline.formats.sources import open_masks
from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.verify import verify_output
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode
from sam2_pipeline.masklets.schema import VIDEOS
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.masklets.work import Commit
from sam2_pipeline.pipeline.importing import import_masks

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "sav_example.json").read_text())
EXAMPLE = {kind: GOLDEN[kind] for kind in ("auto", "manual")}
MASK_FACTS = ("predicted_iou", "object_score", "stability_score", "raw_area")
JUDGEMENTS = {  # of masklet 2 there is none
    0: Judgement(0.875, 0.625, "accept"),
    1: Judgement(None, 0.5, "refine", ("reprompt_iou", "flicker")),
    3: Judgement(None, None, "reject", ("never_visible",)),
}


def write_run(url, kind, frames=range(0, 24, 4), videos=("a", "nested/b"), total=24):
    """Tables as of a run: objects that overlap, come late, are hidden for a while, or are never seen."""
    storage = Storage(url)
    with UnitWriter(storage, "u", "1", {}) as writer:
        for video_id in videos:
            row = dict.fromkeys(VIDEOS.names) | {
                "video_id": video_id,
                "uri": f"/in/{video_id}.mp4",
                "status": "ok",
                "codec": "h264",
            }
            row |= {"width": 32, "height": 24, "fps": 24.0, "frame_count": total, "duration_s": total / 24}
            row |= {"masklet_count": 4, "annotated_frame_count": len(frames)}
            with MaskSpool(video_id) as spool:
                for n, (y, x, radius) in enumerate([(8, 8, 6), (12, 14, 7), (16, 24, 5), (0, 0, 0)]):
                    for place, frame in enumerate(frames):
                        seen = place >= 2 * n and not (n == 0 and place == 3)
                        scores = (np.float32(0.9) - n / 8, np.float32(4.0 if seen else -4.0), np.float32(0.97) - place / 64)
                        rle = disc(y + place / 4, x - place, radius if seen else 0)
                        known = tuple(float(np.float32(score)) for score in scores)
                        spool.add(n, MaskletFrame(frame, frame / 24, rle, *known, raw_area=rle.area + n * place))
                spool.add_judgements(JUDGEMENTS)
                writer.add_video(row, spool, [_seed(n, kind) for n in range(4)])
        parts = writer.finish()
    assert commit_unit(storage, Commit("u", "1", parts, tuple(videos), len(videos), 0))
    return MaskletDataset(url)


def _seed(n, kind):
    number = 7 + 3 * n
    box = [1, 2, 3, 4] if n == 1 else None
    prompt = Prompt(number if kind == "prompted" else n, 8 * n, [[n + 0.5, 2]] * 2, [1, 0], box)
    shot, parent = n // 2, 2 if n == 1 else None
    return MaskletSeed(n, kind, prompt, number if kind == "prompted" else None, {}, shot, parent)


def there_and_back(dataset, folder, format):
    found = export(dataset, Storage(folder / "out"), format)
    assert (found.videos, found.failures) == (len(dataset.video_ids), ())
    summary = import_masks(open_masks(folder / "out", sav="both"), Storage(folder / "back"))
    assert (summary.ok, summary.failed) == (len(dataset.video_ids), 0)
    assert verify_output(Storage(folder / "back")) == []
    return MaskletDataset(folder / "back")


def facts(video: AnnotatedVideo):
    """All that is known of masklets, as something that compares (a prompt is arrays)."""
    found = []
    for m in video.masklets:
        prompt, place = m.seed.prompt, (m.seed.shot_index, m.seed.parent_masklet_id)
        box = None if prompt.box_xyxy is None else prompt.box_xyxy.tolist()
        asked = (prompt.frame_index, prompt.points_xy.tolist(), prompt.point_labels.tolist(), box, prompt.mask)
        frames = [(f.frame_index, f.timestamp_s, f.rle, *(getattr(f, fact) for fact in MASK_FACTS)) for f in m.frames]
        found.append((m.masklet_id, m.kind, m.seed.object_id, place, asked, m.judgement, frames))
    return found


@pytest.mark.parametrize("kind", ["auto", "prompted"])
@pytest.mark.parametrize("format", ["sav", "ytvis", "coco"])
def test_formats_with_run_lengths_keep_everything(format, kind, tmp_path):
    before = write_run(tmp_path / "run", kind)
    after = there_and_back(before, tmp_path, format)
    assert after.video_ids == before.video_ids
    for video_id in before.video_ids:
        old, new = before.video(video_id), after.video(video_id)
        assert new.info == old.info and facts(new) == facts(old)
    for video_id in before.video_ids:
        assert after.masks(video_id).equals(before.masks(video_id))
    old, new = before.masklets(), after.masklets()
    assert new.drop_columns("attributes").equals(old.drop_columns("attributes"))
    if format == "sav":  # which says of every masklet on how many frames people edited it
        edited = {"auto": 0, "prompted": 1}[kind]
        assert new["attributes"].to_pylist() == [json.dumps({"masklet_edited_frame_count": edited})] * len(new)
    else:
        assert new["attributes"].equals(old["attributes"])


@pytest.mark.parametrize("format", ["sav", "ytvis", "coco"])
def test_frames_at_any_distance(format, tmp_path):
    before = write_run(tmp_path / "run", "auto", frames=[0, 5, 9, 10], videos=["v"], total=11)
    after = there_and_back(before, tmp_path, format)
    assert facts(after.video("v")) == facts(before.video("v"))


def test_davis_keeps_what_a_picture_can(tmp_path):
    before = write_run(tmp_path / "run", "prompted")
    after = there_and_back(before, tmp_path, "davis")
    for video_id in before.video_ids:
        old, new = before.video(video_id), after.video(video_id)
        assert [m.seed.object_id for m in new.masklets] == [7, 10, 13]  # the fourth is never seen
        assert new.frames == old.frames
        for place in range(len(old.frames)):
            masks = {m.seed.object_id: decode(m.frames[place].rle) for m in old.masklets}
            for number, mask in masks.items():
                smaller = [
                    m for other, m in masks.items() if 0 < m.sum() < mask.sum() or (m.sum() == mask.sum() and other > number)
                ]
                mine = mask & ~np.any(smaller, axis=0) if smaller else mask
                found = [decode(m.frames[place].rle) for m in new.masklets if m.seed.object_id == number]
                assert np.array_equal(found[0], mine) if found else not mine.any()
    listed = (tmp_path / "out/ImageSets/2017/val.txt").read_text().split()
    assert listed == ["a", "nested/b"]
    notes = export(before, Storage(tmp_path / "again"), "davis").notes
    assert "lie under other masks" in notes[0]


def test_davis_numbers_from_one(tmp_path):
    before = write_run(tmp_path / "run", "auto", videos=["v"])
    after = there_and_back(before, tmp_path, "davis")
    assert [m.seed.object_id for m in after.video("v").masklets] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["auto", "manual"])
def test_the_real_example_is_written_as_it_was(kind):
    example = EXAMPLE[kind]
    written = json.loads(json.dumps(write_annotation(read_annotation(example, "sav_000001")), allow_nan=False))
    assert list(written) == list(example)
    for key in example:
        if key in ("masklet_size_rel", "masklet_size_abs"):
            np.testing.assert_allclose(written[key], example[key], rtol=0, atol=1e-9)
        else:
            assert written[key] == example[key], key
    for key in example:
        assert type(written[key]) is type(example[key]), key


def test_the_real_example_through_tables(tmp_path):
    for kind, content in EXAMPLE.items():
        (tmp_path / f"sav_000001_{kind}.json").write_text(json.dumps(content))
    import_masks(open_masks(tmp_path, sav="both"), Storage(tmp_path / "tables"))
    dataset = MaskletDataset(tmp_path / "tables")
    rows = dataset.masklets().to_pylist()
    assert [(row["masklet_type"], row["masklet_id"], row["object_id"]) for row in rows] == [
        ("prompted", 0, 0), ("prompted", 3, 3), ("auto", 4, None), ("auto", 7, None), ("auto", 8, None)
    ]  # fmt: skip
    manual, auto = EXAMPLE["manual"], EXAMPLE["auto"]
    changes = [*manual["masklet_visibility_changes"], *auto["masklet_visibility_changes"]]
    assert [row["visibility_changes"] for row in rows] == changes
    np.testing.assert_allclose(
        [row["size_abs"] for row in rows], [*manual["masklet_size_abs"], *auto["masklet_size_abs"]], atol=1e-9
    )
    assert [row["first_frame_index"] for row in rows] == [0, 4 * 113, 0, 0, 0]
    assert [row["predicted_iou_mean"] for row in rows] == [None] * 5
    scores = [row["stability_score_mean"] for row in rows]
    assert scores[:2] == [None, None] and min(scores[2:]) > 0.8
    for format in ("ytvis", "coco"):
        dataset = there_and_back(dataset, tmp_path / format, format)
    export(dataset, Storage(tmp_path / "out"), "sav")
    for kind, content in EXAMPLE.items():
        written = json.loads((tmp_path / f"out/sav_000001_{kind}.json").read_text())
        # Automatic masklets have made room for the manual ones' numbers; COCO has no scores of what is not visible.
        same = ["masklet", "video_environment", "video_split", "masklet_edited_frame_count", "masklet_frame_count"]
        assert [written[key] for key in same] == [content[key] for key in same]


def test_pycocotools_reads_what_we_wrote(tmp_path, capsys):
    dataset = write_run(tmp_path / "run", "auto")
    export(dataset, Storage(tmp_path / "out"), "coco")
    read = COCO(str(tmp_path / "out/annotations.json"))
    assert [category["name"] for category in read.loadCats(read.getCatIds())] == ["object"]
    assert len(read.getImgIds()) == 2 * 6
    seen = 0
    for image in read.loadImgs(read.getImgIds()):
        masks = {m.masklet_id: f for m in dataset.video(read.dataset["videos"][image["video_id"] - 1]["name"]).masklets
                 for f in m.frames if f.frame_index == image["frame_index"] and f.rle.area}  # fmt: skip
        found = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        assert len(found) == len(masks)
        for item in found:
            (track,) = [track for track in read.dataset["tracks"] if track["id"] == item["track_id"]]
            mask = read.annToMask(item)
            assert np.array_equal(mask, decode(masks[track["masklet_id"]].rle))
            assert item["area"] == mask.sum() and item["bbox"] == coco.toBbox(item["segmentation"]).tolist()
            seen += 1
    assert seen == len(read.getAnnIds()) > 20


def test_an_import_that_was_cut_short_goes_on(tmp_path):
    export(write_run(tmp_path / "run", "auto", videos=("a", "b", "c")), Storage(tmp_path / "sav"), "sav")
    (tmp_path / "sav/b_auto.json").rename(tmp_path / "b")
    output = Storage(tmp_path / "back")
    assert import_masks(open_masks(tmp_path / "sav"), output).videos == 2
    (tmp_path / "b").rename(tmp_path / "sav/b_auto.json")
    commits = {path.name for path in (tmp_path / "back/_run/commits").iterdir()}
    assert import_masks(open_masks(tmp_path / "sav"), output).videos == 3
    assert commits < {path.name for path in (tmp_path / "back/_run/commits").iterdir()}
    with pytest.raises(ConfigError, match="holds masklets of"):
        import_masks(open_masks(tmp_path / "sav"), output, fps=25.0)


def test_a_broken_annotation_is_a_failed_video(tmp_path):
    export(write_run(tmp_path / "run", "auto", videos=("a", "b")), Storage(tmp_path / "sav"), "sav")
    (tmp_path / "sav/b_auto.json").write_text("{")
    summary = import_masks(open_masks(tmp_path / "sav"), Storage(tmp_path / "back"))
    assert (summary.ok, summary.failed, summary.exit_code) == (1, 1, 3)
    assert "b_auto.json" in summary.failures[0].error_message
    assert verify_output(Storage(tmp_path / "back")) == []
