"""Prompts read the same from Parquet, CSV and JSON Lines, and every bad row is told by its line."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.prompts_table import PromptRow, check_prompts, read_prompts
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import encode

MASK = encode(np.pad(np.ones((2, 3), bool), ((1, 1), (2, 1))))
WRONG_SIZE = encode(np.ones((6, 4), bool))
ROWS = [
    {"video_id": "a/1", "object_id": 7, "frame_index": 0, "points": [[1.5, 2], [3, 1]], "labels": [1, 0], "note": "cat"},
    {"video_id": "a/1", "object_id": 7, "frame_index": 4, "box": [0, 1, 4.5, 4]},
    {"video_id": "b", "object_id": 1, "frame_index": 2, "points": [[1, 2]], "labels": [1], "box": [0, 0, 6, 4]},
    {"video_id": "b", "object_id": 2, "frame_index": 0, "mask": MASK.to_coco()},
]
VIDEOS = {"a/1": (6, 4, 5), "b": (6, 4, 3)}


def write_jsonl(path, rows):
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")


def write_csv(path, rows):
    cells = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
    pd.DataFrame(cells).to_csv(path, index=False)


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist([{**dict.fromkeys(ROWS[0] | ROWS[1] | ROWS[3]), **row} for row in rows]), path)


def write_pandas(path, rows):
    pd.DataFrame(rows).to_parquet(path)


WRITERS = [(".jsonl", write_jsonl), (".csv", write_csv), (".parquet", write_parquet), (".parquet", write_pandas)]


def describe(prompt):
    return (
        prompt.object_id,
        prompt.frame_index,
        prompt.points_xy.tolist(),
        prompt.point_labels.tolist(),
        None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
        prompt.mask,
    )


@pytest.mark.parametrize(("suffix", "write"), WRITERS)
def test_every_format_gives_the_same(tmp_path, suffix, write):
    write(tmp_path / f"prompts{suffix}", ROWS)
    rows = read_prompts(str(tmp_path / f"prompts{suffix}"))
    assert [row.video_id for row in rows] == ["a/1", "a/1", "b", "b"]
    assert [row.problem for row in rows] == [None] * 4
    assert [row.line for row in rows] == {".jsonl": [1, 3, 5, 7], ".csv": [2, 3, 4, 5], ".parquet": [1, 2, 3, 4]}[suffix]
    assert [describe(row.prompt) for row in rows] == [
        (7, 0, [[1.5, 2], [3, 1]], [1, 0], None, None),
        (7, 4, [], [], [0, 1, 4.5, 4], None),
        (1, 2, [[1, 2]], [1], [0, 0, 6, 4], None),
        (2, 0, [], [], None, MASK),
    ]
    assert check_prompts(rows, VIDEOS) == []


def test_from_s3(s3_url):
    text = "\n".join(map(json.dumps, ROWS)).encode()
    Storage(s3_url).write_bytes("in/prompts.jsonl", text)
    assert len(read_prompts(f"{s3_url}/in/prompts.jsonl")) == 4


def test_long_parquet_counts_on(tmp_path):
    rows = [ROWS[1] | {"object_id": number} for number in range(2500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    assert [row.line for row in read_prompts(str(tmp_path / "p.parquet"))] == list(range(1, 2501))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"points": None, "labels": None}, "has neither points, nor a box, nor a mask"),
        ({"points": [], "labels": []}, "has neither points, nor a box, nor a mask"),
        ({"points": [[1, 2, 3]]}, "points is [[1, 2, 3]], expected a list of [x, y]"),
        ({"points": [1, 2]}, "expected a list of [x, y]"),
        ({"points": [[1, 2], [3]]}, "expected a list of [x, y]"),
        ({"points": [["a", "b"]]}, "expected a list of [x, y]"),
        ({"points": "[[1, 2"}, "expected JSON"),
        ({"points": 5}, "points is 5, expected a list"),
        ({"points": [[1, 2]]}, "1 points but 2 labels"),
        ({"labels": [1, 2]}, "labels are [1.0, 2.0], expected 1 (object) or 0"),
        ({"labels": None}, "2 points but 0 labels"),
        ({"box": [4, 0, 1, 4]}, "expected x0 < x1 and y0 < y1"),
        ({"box": [4, 0, 1]}, "expected [x0, y0, x1, y1]"),
        ({"mask": MASK.to_coco()}, "a mask excludes points and box"),
        ({"mask": {"size": [4, 6]}, "points": None, "labels": None}, "expected size and counts"),
        ({"mask": encode(np.zeros((4, 6), bool)).to_coco(), "points": None, "labels": None}, "the mask is empty"),
        ({"mask": [1], "points": None, "labels": None}, "expected a mapping"),
        ({"object_id": None}, "object_id is None, expected a whole number"),
        ({"object_id": True}, "object_id is True"),
        ({"frame_index": 1.5}, "frame_index is 1.5"),
        ({"frame_index": "x"}, "frame_index is 'x'"),
        ({"frame_index": -1}, "the frame index is negative"),
        ({"video_id": None}, "video_id is empty"),
        ({"video_id": "a/2"}, "the run has no video 'a/2'; is 'a/1' meant?"),
        ({"frame_index": 5}, "frame 5 is past the end of 'a/1', which has 5 frames"),
        ({"points": [[1, 2], [6, 3]]}, "point (6, 3) is outside the picture of 6x4 pixels"),
        ({"points": [[1, -0.5], [5, 3]]}, "point (1, -0.5) is outside"),
        ({"box": [0, 0, 6.5, 4]}, "box (0, 0, 6.5, 4) reaches outside the picture of 6x4 pixels"),
        (
            {"mask": encode(np.ones((6, 4), bool)).to_coco(), "points": None, "labels": None},
            "mask has 4x6 pixels, the picture 6x4",
        ),
    ],
)
def test_bad_rows_are_told_by_line(tmp_path, change, says):
    write_jsonl(tmp_path / "p.jsonl", [ROWS[2], ROWS[0] | change])
    rows = read_prompts(str(tmp_path / "p.jsonl"))
    (problem,) = check_prompts(rows, VIDEOS)
    assert problem.startswith("line 3: ")
    assert says in problem
    assert check_prompts(rows[:1], VIDEOS) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"video_id": ', "line 1: not JSON"),
        ("[1, 2]", "line 1: a list, expected an object"),
        ('\n"text"', "line 2: text"),
        ("{}", "line 1: video_id is empty"),
    ],
)
def test_bad_json_lines(tmp_path, text, says):
    (tmp_path / "p.jsonl").write_text(text)
    (problem,) = check_prompts(read_prompts(str(tmp_path / "p.jsonl")), VIDEOS)
    assert problem.startswith(says)


def test_csv_lines_and_cells(tmp_path):
    header = "\ufeffvideo_id,object_id,frame_index,points,labels,note\n"
    lines = 'b,1,0,"[[1,1]]",[1],"two\nlines"\n', 'b,1.0,1,"[[1,1]]",,\n', "b,2,,,,,,more\n"
    (tmp_path / "p.csv").write_text(header + "".join(lines))
    rows = read_prompts(str(tmp_path / "p.csv"))
    assert [(row.line, row.problem is None) for row in rows] == [(2, True), (4, False), (5, False)]
    assert "1 points but 0 labels" in rows[1].problem
    assert "more cells than the header" in rows[2].problem


def test_large_ids_are_not_rounded(tmp_path):
    large = 2**60 + 1
    write_csv(tmp_path / "p.csv", [ROWS[0] | {"object_id": large}])
    assert read_prompts(str(tmp_path / "p.csv"))[0].prompt.object_id == large


def test_repeated_rows(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [ROWS[0], ROWS[1], ROWS[0]])
    rows = read_prompts(str(tmp_path / "p.jsonl"))
    assert check_prompts(rows[2:], VIDEOS) == ["line 5: object 7 of 'a/1' has a row for frame 0 in line 1 already"]


def test_unknown_length_is_not_checked():
    row = PromptRow(1, "v", Prompt(0, 10**6, points_xy=[[1, 1]], point_labels=[1]))
    assert check_prompts([row], {"v": (6, 4, None)}) == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", b"", "prompts come as .parquet, .csv, .jsonl, .ndjson, found .txt"),
        ("p", b"", "found no extension"),
        ("p.csv", b"", "columns are none; expected also video_id, object_id, frame_index"),
        ("p.csv", b"video_id,object_id,frame_index,label\n", "expected also points, box or mask"),
        ("p.csv", b"video_id,object_id,frame,box\n", "expected also frame_index"),
        ("p.csv", b"video_id,object_id,frame_index,box\n\xff\xfe", "cannot read prompts"),
        ("p.parquet", b"no parquet", "cannot read prompts"),
        ("absent/p.csv", None, "does not exist"),
    ],
)
def test_unreadable_tables(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_prompts(str(tmp_path / name))
    assert name in str(caught.value)
    assert says in str(caught.value)
