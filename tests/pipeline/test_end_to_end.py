"""The real model through the whole pipeline: random weights, the smallest pictures."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools import mask as coco
from videos import moving_shapes, write_video

import sam2_pipeline as sp
from sam2_pipeline import cli
from sam2_pipeline.masklets.clean import CleanRules, clean
from sam2_pipeline.masklets.quality import shape_of
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.schema import TABLES
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.verdict import REASONS, VERDICTS

SMALL = (  # noqa: SIM905
    "--ray=off --device=cpu --model=sam2.1_hiera_tiny --image-size=128 --quiet --set=generate.points_per_side=2 "
    "--set=generate.crop_grids=[] --set=generate.pred_iou_thresh=-1 --set=generate.stability_score_thresh=0 "
    "--set=generate.box_nms_thresh=1 --set=generate.max_mask_share=1 --set=generate.max_objects=2"
).split()


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other cost such small pictures more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with a video and a broken one, and a checkpoint."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "in").mkdir()
    write_video(folder / "in" / "clip.mp4", moving_shapes(4), fps=8)
    (folder / "in" / "broken.mp4").write_bytes(b"no video" * 50)
    torch.manual_seed(0)
    torch.save({"model": sp.build_model("sam2.1_hiera_tiny", image_size=128).state_dict()}, folder / "tiny.pt")
    return folder


def _run(places, name, *arguments) -> int:
    return cli.main(["run", str(places / "in"), str(places / name), "--checkpoint", str(places / "tiny.pt"), *SMALL, *arguments])


def test_automatic_masklets(places):
    assert _run(places, "auto") == 3  # the broken video
    tables = {table: pd.read_parquet(places / "auto" / table) for table in TABLES}
    for table, frame in tables.items():
        assert list(frame.columns) == TABLES[table].names
    assert dict(zip(tables["videos"].video_id, tables["videos"].status)) == {"clip": "ok", "broken": "failed"}
    assert 1 <= len(tables["masklets"]) <= 2 and set(tables["masklets"].masklet_type) == {"auto"}
    assert len(tables["masks"]) == 4 * len(tables["masklets"])
    for row in tables["masks"].itertuples():
        mask = coco.decode({"size": list(row.rle["size"]), "counts": row.rle["counts"]})
        assert mask.shape == (48, 64) and mask.sum() == row.area
    assert cli.main(["verify", str(places / "auto")]) == 0


def test_objects_are_looked_for_again_and_shots_told_apart(places, tmp_path):
    """With discovery, identity and cuts on: whole tables, parents that exist, and the same again in a second run."""
    first, second = moving_shapes(6), [255 - image[:, ::-1] // 3 for image in moving_shapes(6)]
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "two.mp4", [*first, *second], fps=8)
    settings = ("discover.every_s=0.25", "cuts.mode=split", "identity.merge_iou=0.95", "identity.part_share=0.5")
    more = [*(f"--set={one}" for one in settings), "--set=generate.max_objects=4", "--fps=4"]
    weights = ["--checkpoint", str(places / "tiny.pt")]
    for name in ("out", "again"):
        assert cli.main(["run", str(tmp_path / "in"), str(tmp_path / name), *weights, *SMALL, *more]) == 0
        assert cli.main(["verify", str(tmp_path / name)]) == 0
    tables, again = ({t: pd.read_parquet(tmp_path / name / t) for t in ("masklets", "masks")} for name in ("out", "again"))
    for table, frame in tables.items():
        pd.testing.assert_frame_equal(frame, again[table])
    masklets, masks = tables["masklets"], tables["masks"]
    [video] = pd.read_parquet(tmp_path / "out" / "videos").to_dict("records")
    assert video["shot_count"] == 2 and set(masklets.shot_index) == {0, 1} and video["masklet_count"] == len(masklets)
    assert masklets.masklet_id.tolist() == list(range(len(masklets)))
    assert set(masks.groupby("masklet_id").frame_index.apply(tuple)) == {(0, 2, 4, 6, 8, 10)}
    shots = dict(zip(masklets.masklet_id, masklets.shot_index))
    for row in masks[masks.area > 0].itertuples():
        assert (row.frame_index >= 6) == shots[row.masklet_id]
    for row in masklets.dropna(subset="parent_masklet_id").itertuples():
        assert row.parent_masklet_id != row.masklet_id and shots[row.parent_masklet_id] == row.shot_index
    assert cli.main(["run", str(tmp_path / "in"), str(tmp_path / "out"), *weights, *SMALL, *more, "--set=cuts.mode=ignore"]) == 2


def test_prompted_masklets_at_a_lower_rate(places):
    prompts = places / "prompts.jsonl"
    rows = [
        {"video_id": "clip", "object_id": 5, "frame_index": 2, "points": [[50, 20]], "labels": [1]},
        {"video_id": "clip", "object_id": 9, "frame_index": 0, "box": [2, 20, 20, 40]},
    ]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    assert _run(places, "prompted", "--prompts", str(prompts), "--fps", "4", "--set", "tracking.row_batch=1") == 3
    dataset = sp.MaskletDataset(places / "prompted")
    assert dataset.masklets().column("object_id").to_pylist() == [5, 9]
    assert dataset.masks("clip", 0).column("frame_index").to_pylist() == [0, 2]
    assert [mask.shape for _, mask in dataset.frames("clip", 1)] == [(48, 64)] * 2
    assert not np.isnan(dataset.masks().column("object_score").to_numpy()).any()


def test_verdicts_and_clean_masks(places):
    """What is judged is written, and changes nothing else; masks that are cleaned have their areas before beside them."""
    settings = ["--fps=4", "--set=clean.min_component_area=30", "--set=clean.max_hole_area=30"]
    assert _run(places, "plain", *settings) == _run(places, "judged", *settings, "--set=judge.enabled=true") == 3
    plain, judged = sp.MaskletDataset(places / "plain"), sp.MaskletDataset(places / "judged")
    asked = ["cycle_iou", "reprompt_iou", "verdict", "verdict_reasons"]
    assert judged.masks().equals(plain.masks())
    assert judged.masklets().drop_columns(asked).equals(plain.masklets().drop_columns(asked))
    assert all(value is None for name in asked for value in plain.masklets()[name].to_pylist())
    rows = judged.masklets().to_pylist()
    for row in rows:
        assert row["verdict"] in VERDICTS and set(row["verdict_reasons"]) <= set(REASONS)
        assert (row["verdict"] == "accept") == (row["verdict_reasons"] == [])
        if row["visible_frame_count"]:
            assert 0 <= row["reprompt_iou"] <= 1
    assert {masklet.masklet_id: masklet.judgement.verdict for masklet in judged} == {r["masklet_id"]: r["verdict"] for r in rows}
    for masklet, row in zip(judged, rows, strict=True):  # measured again from the masks table alone
        again = measure(masklet.frames)
        assert again.pop("size_bucket") == row["size_bucket"]
        assert {name: row[name] for name in again} == pytest.approx(again, rel=1e-6)
    masks = judged.masks().to_pylist()
    assert any(row["raw_area"] != row["area"] for row in masks)
    for row in masks:
        tidy = clean(Rle.from_coco(row["rle"]), CleanRules(30, 30))
        assert tidy.to_coco() == row["rle"] and shape_of(tidy).num_components == row["num_components"]
    assert cli.main(["verify", str(places / "judged")]) == 0
    assert _run(places, "judged", *settings) == 2, "a run without verdicts is another run"


def test_other_weights_are_refused(places):
    torch.manual_seed(1)
    torch.save(sp.build_model("sam2.1_hiera_tiny", image_size=128).state_dict(), places / "other.pt")
    assert _run(places, "weights") == 3
    assert _run(places, "weights", "--checkpoint", str(places / "other.pt")) == 2


def test_a_wrong_checkpoint_writes_nothing(places, capsys):
    (places / "wrong.pt").write_bytes(b"no weights")
    assert _run(places, "wrong", "--checkpoint", str(places / "wrong.pt")) == 2
    assert "wrong.pt" in capsys.readouterr().err
    assert not (places / "wrong").exists()
