"""Masks come back sorted, all of them, in memory that does not grow with their number."""

import errno
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pytest
from scipy import ndimage

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode, encode
from sam2_pipeline.masklets.schema import MASKLETS, MASKS
from sam2_pipeline.masklets.statistics import measure
from sam2_pipeline.masklets.verdict import Judgement

RNG = np.random.default_rng(0)


def mask_frame(index, rle=None):
    rle = encode(RNG.random((12, 16)) > 0.5) if rle is None else rle
    scores = float(RNG.random()), float(RNG.normal()), float(RNG.random())
    return MaskletFrame(index, index / 24, rle, *scores, raw_area=int(RNG.integers(100)))


def seed(masklet_id, **prompt):
    prompt = prompt or {"points_xy": [[3, 4]], "point_labels": [1]}
    return MaskletSeed(masklet_id, "auto", Prompt(object_id=masklet_id, frame_index=0, **prompt))


def expected_row(video_id, masklet_id, frame, before):
    """``before``: the masklet's frame before, None for the first."""
    x, y, w, h = frame.rle.bbox_xywh
    mask = decode(frame.rle)
    _, components = ndimage.label(mask, np.ones((3, 3)))
    padded = np.pad(mask, 1)
    outline = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    border = sum(int(side.sum()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    temporal = None
    if before is not None and (mask | decode(before.rle)).any():
        temporal = np.float32((mask & decode(before.rle)).sum() / (mask | decode(before.rle)).sum())
    return {
        "video_id": video_id,
        "masklet_id": masklet_id,
        "frame_index": frame.frame_index,
        "timestamp_s": frame.timestamp_s,
        "rle": frame.rle.to_coco(),
        "area": frame.rle.area,
        "bbox_x": x,
        "bbox_y": y,
        "bbox_w": w,
        "bbox_h": h,
        "predicted_iou": np.float32(frame.predicted_iou),
        "object_score": np.float32(frame.object_score),
        "stability_score": np.float32(frame.stability_score),
        "raw_area": frame.raw_area,
        "num_components": components,
        "border_touch": np.float32(border / outline) if outline else None,
        "temporal_iou": temporal,
    }


def test_equals_a_naive_sort(tmp_path):
    frames = [
        (masklet_id, mask_frame(index * 4, encode(RNG.random((12, 16)) < RNG.choice([0, 0.05, 0.5]))))
        for masklet_id in range(7)
        for index in range(100)
    ]
    random.Random(0).shuffle(frames)
    with MaskSpool("a/b", tmp_path) as spool:
        for masklet_id, frame in frames:
            spool.add(masklet_id, frame)
        assert spool.num_rows == len(frames)
        table = pa.Table.from_batches(spool.sorted_batches())
        assert "7 masklets, 700 masks" in repr(spool)
    frames.sort(key=lambda pair: (pair[0], pair[1].frame_index))
    assert table.schema.equals(MASKS, check_metadata=True)
    before = [None] + [earlier[1] if earlier[0] == later[0] else None for earlier, later in itertools.pairwise(frames)]
    assert table.to_pylist() == [expected_row("a/b", *pair, last) for pair, last in zip(frames, before, strict=True)]
    assert os.listdir(tmp_path) == []


def test_masklet_rows():
    rle = encode(np.pad(np.ones((3, 4), bool), ((2, 7), (5, 7))))
    prompted = Prompt(object_id=70, frame_index=4, box_xyxy=[5, 2, 9, 5], points_xy=[[6.5, 3]], point_labels=[0])
    with MaskSpool("v") as spool:
        for index in (8, 4, 0):
            spool.add(1, MaskletFrame(index, index / 24, rle, 0.75, 2.0, 0.5))
            spool.add(0, mask_frame(index))
        second, first = spool.masklet_rows([MaskletSeed(1, "prompted", prompted, 70), seed(0)])[::-1]
    assert pa.Table.from_pylist([first, second], schema=MASKLETS).to_pylist() == [first, second]
    assert list(first) == MASKLETS.names
    assert first["prompt_points"] == [[3.0, 4.0, 1.0]]
    assert (first["object_id"], first["prompt_box"]) == (None, None)
    assert second == {
        "video_id": "v",
        "masklet_id": 1,
        "masklet_type": "prompted",
        "object_id": 70,
        "first_frame_index": 0,
        "last_frame_index": 8,
        "frame_count": 3,
        "visible_frame_count": 3,
        "size_abs": 12.0,
        "size_rel": 12 / 192,
        "size_bucket": "small",
        "visibility_changes": 0,
        "predicted_iou_mean": 0.75,
        "object_score_mean": 2.0,
        "stability_score_mean": 0.5,
        "stability_score_min": 0.5,
        "prompt_frame_index": 4,
        "prompt_points": [[6.5, 3.0, 0.0]],
        "prompt_box": [5.0, 2.0, 9.0, 5.0],
        "attributes": None,
        "shot_index": None,
        "parent_masklet_id": None,
        "predicted_iou_min": 0.75,
        "temporal_iou_mean": 1.0,
        "temporal_iou_min": 1.0,
        "num_components_max": 1,
        "border_touch_mean": 0.0,
        "flicker": 0.0,
        "cycle_iou": None,
        "reprompt_iou": None,
        "verdict": None,
        "verdict_reasons": None,
    }


def test_as_a_store_of_masks_and_with_judgements():
    frames = [mask_frame(0, Rle.empty(12, 16)), mask_frame(4), mask_frame(12)]
    with MaskSpool("v") as spool:
        for frame in (frames[2], frames[0]):
            spool.add(3, frame)
        assert spool.visible_frames(3).tolist() == [12]
        spool.add(3, frames[1])
        assert spool.visible_frames(3).tolist() == [4, 12]
        assert spool.mask(3, 4) == frames[1].rle
        with pytest.raises(KeyError, match="v: masklet 3 has no mask on frame 5"):
            spool.mask(3, 5)
        assert spool.measures(3) == measure(frames)
        spool.add_judgements({3: Judgement(0.5, None, "refine", ("cycle_iou",))})
        (row,) = spool.masklet_rows([seed(3)])
    assert pa.Table.from_pylist([row], schema=MASKLETS).to_pylist() == [row]
    assert (row["cycle_iou"], row["reprompt_iou"], row["verdict"], row["verdict_reasons"]) == (0.5, None, "refine", ["cycle_iou"])


def test_mask_prompt_and_no_masklets():
    with MaskSpool("v") as spool:
        assert spool.masklet_rows([]) == []
        assert list(spool.sorted_batches()) == []
        spool.add(0, mask_frame(0))
        (row,) = spool.masklet_rows([seed(0, mask=encode(np.ones((12, 16), bool)))])
    assert (row["prompt_points"], row["prompt_box"]) == ([], None)


def test_mistakes_are_refused():
    with MaskSpool("v") as spool:
        spool.add(0, mask_frame(0))
        with pytest.raises(ValueError, match="frame 0 was added twice"):
            spool.add(0, mask_frame(0))
        spool.add(1, mask_frame(0))
        with pytest.raises(ValueError, match=r"seeds are of masklets \[0\], masks of masklets \[0, 1\]"):
            spool.masklet_rows([seed(0)])
        spool.add(1, mask_frame(4))
        with pytest.raises(ValueError, match="masklet 0 has masks on 1 frames, expected one on each of the 2"):
            spool.masklet_rows([seed(0), seed(1)])
        assert pa.Table.from_batches(spool.sorted_batches()).num_rows == 3


def test_absent_directory(tmp_path):
    with pytest.raises(StorageError, match=r"cannot keep the masks of v"):
        MaskSpool("v", tmp_path / "absent")


def test_full_disk(tmp_path, monkeypatch):
    """SQLite's own limit on pages gives the very error that a full disk gives."""
    with MaskSpool("v", tmp_path) as spool:
        spool._database.execute("PRAGMA max_page_count=2")
        with pytest.raises(StorageError, match="cannot keep the masks of v: database or disk is full"):
            for index in range(10_000):
                spool.add(0, mask_frame(index))
    assert os.listdir(tmp_path) == []

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(StorageError, match="No space left"):
        MaskSpool("v", tmp_path)


def test_used_by_another_thread_than_its_maker():
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as pool, MaskSpool("v") as spool:
        pool.submit(spool.add, 0, mask_frame(0)).result()
        assert sum(batch.num_rows for batch in spool.sorted_batches()) == 1
    with pytest.raises(sqlite3.ProgrammingError):
        spool.add(0, mask_frame(1))


MEMORY_SCRIPT = """
import resource, sys
import numpy as np
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.masklets.masklet import MaskletFrame
from sam2_pipeline.masklets.rle import encode

rle = encode(np.random.default_rng(0).random((130, 130)) > 0.5)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def fill_and_drain(rows):
    with MaskSpool("v") as spool:
        for number in range(rows):
            spool.add(number % 10, MaskletFrame(rows - number, 0.0, rle, 0.0, 0.0, 0.0))
        last = (-1, -1)
        for batch in spool.sorted_batches():
            key = (batch["masklet_id"][0].as_py(), batch["frame_index"][0].as_py())
            assert key > last
            last, rows = key, rows - batch.num_rows
        assert rows == 0
fill_and_drain(500)
before = peak()
fill_and_drain(10_000)
print(len(rle.counts) * 10_000 / 2**20, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the peak in KiB, as Linux does")
def test_memory_stays_flat():
    """Twenty times the rows cost no more memory; the rows alone would be tens of MB."""
    result = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    spooled_mb, growth_mb = map(float, result.stdout.split())
    assert spooled_mb > 60
    assert growth_mb < 20


def test_masks_by_frame_are_those_that_are_visible():
    with MaskSpool("v") as spool:
        masks = {(n, t): make_mask(n, t) for n in (0, 2) for t in (7, 3, 1)}
        for (number, index), mask in masks.items():
            spool.add(number, MaskletFrame(index, index / 24, encode(mask), 0.5, 1.0, 0.25))
        found = list(spool.visible_masks())
        assert found == [
            {n: encode(masks[n, t]) for n in (0, 2) if masks[n, t].any()}
            for t in (1, 3, 7)
            if masks[0, t].any() or masks[2, t].any()
        ]
        assert [set(of_frame) for of_frame in found] == [{0, 2}, {2}]  # nothing is visible on frame 7, and 0 not on 3
        assert spool.statistics()[0]["visible_frame_count"] == 1 and spool.statistics()[2]["visible_frame_count"] == 2


def test_masklets_get_new_numbers_and_those_without_go():
    with MaskSpool("v") as spool:
        for number in range(5):
            for index in (2, 0, 1):
                spool.add(number, MaskletFrame(index, 0.0, encode(np.full((2, 3), True)), number / 10, 1.0, 0.25))
        spool.renumber({0: 0, 2: 1, 4: 2})
        rows = pa.Table.from_batches(spool.sorted_batches()).to_pylist()
        assert [(row["masklet_id"], row["frame_index"]) for row in rows] == [(n, t) for n in range(3) for t in range(3)]
        assert [round(row["predicted_iou"], 3) for row in rows[::3]] == [0.0, 0.2, 0.4]
        masklets = spool.masklet_rows([seed(number) for number in range(3)])
        assert [row["predicted_iou_mean"] for row in masklets] == pytest.approx([0.0, 0.2, 0.4])
        assert spool.num_rows == 9
        for wrong in ({0: 1, 1: 0}, {0: 1}, {0: 0, 1: 0}):
            with pytest.raises(ValueError, match="expected the order of the old ones"):
                spool.renumber(wrong)


def make_mask(number: int, index: int) -> np.ndarray:
    mask = np.zeros((6, 8), bool)
    if index < (3, 0, 7)[number]:
        mask[: number + 1, index % 4 :] = True
    return mask
