"""The prompts table: Parquet, CSV or JSON Lines, one row per object and frame, read and checked row by row.

Columns: ``video_id``, ``object_id``, ``frame_index``, and of ``points`` (list of [x, y]) with ``labels`` (list of 1 or 0),
``box`` ([x0, y0, x1, y1]) and ``mask`` (COCO RLE ``{"size": [h, w], "counts": str}``) what the row has. CSV cells hold JSON.
Other columns are left alone.
"""

import contextlib
import csv
import difflib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle

_REQUIRED = ("video_id", "object_id", "frame_index")
_LISTS = ("points", "labels", "box", "mask")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row: ``line`` counts from 1 (in a CSV file the header is line 1; in Parquet, the rows are counted).

    A row that cannot be used by itself, whatever the videos, has a ``problem`` and no prompt.
    """

    line: int
    video_id: str
    prompt: Prompt | None
    problem: str | None = None


def read_prompts(url: str, storage_options: dict[str, Any] | None = None) -> list[PromptRow]:
    """Every row of the table at ``url`` (a path or fsspec URL ending in .parquet, .csv, .jsonl or .ndjson), bad ones too.

    Raises:
        ConfigError: the table cannot be read at all, is of another format, or lacks a column.
    """
    suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
    readers = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows}
    if suffix not in readers:
        raise ConfigError(f"{url}: prompts come as {', '.join(readers)}, found {suffix or 'no extension'}")
    try:
        data = Storage(url, storage_options).read_bytes("")
        return _without_repeats([_parse(line, cells) for line, cells in readers[suffix](data)])
    except (StorageError, pa.ArrowException, UnicodeDecodeError, csv.Error, _BadTable) as error:
        raise ConfigError(f"{url}: cannot read prompts: {error}") from error


def check_prompts(rows: Iterable[PromptRow], videos: Mapping[str, tuple[int, int, int | None]]) -> list[str]:
    """What keeps rows from being used, as ``line N: ...``; empty when all are fit.

    ``videos`` maps the video ids of the run to (width, height, frame count); a frame count of None is not checked.
    """
    found = ((row.line, row.problem or _misfit(row, videos)) for row in rows)
    return [f"line {line}: {problem}" for line, problem in found if problem]


class _BadTable(Exception):
    """The table as a whole is of no use."""


def _parquet_rows(data: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    table = pq.read_table(pa.BufferReader(data))
    _check_columns(table.column_names)
    yield from enumerate((row for batch in table.to_batches(1024) for row in batch.to_pylist()), 1)


def _csv_rows(data: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    _check_columns(reader.fieldnames or [])
    line = reader.line_num
    for row in reader:
        yield line + 1, row
        line = reader.line_num  # a quoted cell may span lines; a row is named by its first


def _jsonl_rows(data: bytes) -> Iterator[tuple[int, Any]]:
    for number, text in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        if text.strip():
            try:
                yield number, json.loads(text)
            except ValueError as error:
                yield number, f"not JSON: {error}"


def _check_columns(names: Sequence[str]) -> None:
    missing = [name for name in _REQUIRED if name not in names]
    if missing or not {"points", "box", "mask"} & set(names):
        lacking = ", ".join(missing) or "points, box or mask"
        raise _BadTable(f"columns are {', '.join(names) or 'none'}; expected also {lacking}")


def _parse(line: int, cells: Any) -> PromptRow:
    if not isinstance(cells, Mapping):
        problem = cells if isinstance(cells, str) else f"a {type(cells).__name__}, expected an object with named values"
        return PromptRow(line, "", None, problem)
    video_id = "" if cells.get("video_id") is None else str(cells["video_id"])
    try:
        if not video_id:
            raise ConfigError("video_id is empty")
        if None in cells:
            raise ConfigError("has more cells than the header")
        object_id, frame_index = (_whole_number(cells.get(name), name) for name in ("object_id", "frame_index"))
        points, labels, box, mask = (_unpack(cells.get(name), name) for name in _LISTS)
        prompt = Prompt(
            object_id,
            frame_index,
            _numbers(points, "points", (None, 2)),
            _numbers(labels, "labels", (None,)),
            None if box is None else _numbers(box, "box", (4,)),
            None if mask is None else Rle.from_coco(mask),
        )
        if prompt.mask is not None and not prompt.mask.area:
            raise ConfigError("the mask is empty")
    except ConfigError as error:
        return PromptRow(line, video_id, None, str(error))
    return PromptRow(line, video_id, prompt)


def _whole_number(value: Any, name: str) -> int:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            if not isinstance(value, float):
                return int(value)  # not by way of a float, which rounds large ids
        with contextlib.suppress(ValueError):
            if float(value).is_integer():
                return int(float(value))  # data frames turn a column with a gap into floats
    raise ConfigError(f"{name} is {value!r}, expected a whole number")


def _unpack(value: Any, name: str) -> Any:
    """The list or mapping in a cell, None for an empty one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{name} is {_short(value)}, expected JSON: {error}") from error
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        return None
    kind, form = (dict, "a mapping with size and counts") if name == "mask" else (list, "a list")
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {_short(value)}, expected {form}")
    return value


def _numbers(values: list[Any] | None, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of this shape (None: any length); no values give an empty one."""
    if values is None:
        return np.zeros([size or 0 for size in shape], np.float32)
    form = {"points": "a list of [x, y]", "labels": "a list of 1 and 0", "box": "[x0, y0, x1, y1]"}[name]
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {_short(values)}, expected {form}") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape)):
        raise ConfigError(f"{name} is {_short(values)}, expected {form}")
    return array


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_repeats(rows: Iterable[PromptRow]) -> list[PromptRow]:
    """One row per object and frame: a second one of the same is a mistake that would go unnoticed otherwise."""
    first: dict[tuple[str, int, int], int] = {}
    checked = []
    for row in rows:
        if row.prompt is not None:
            key = row.video_id, row.prompt.object_id, row.prompt.frame_index
            line = first.setdefault(key, row.line)
            if line != row.line:
                problem = f"object {key[1]} of {key[0]!r} has a row for frame {key[2]} in line {line} already"
                row = PromptRow(row.line, row.video_id, None, problem)
        checked.append(row)
    return checked


def _misfit(row: PromptRow, videos: Mapping[str, tuple[int, int, int | None]]) -> str | None:
    """What does not fit the video."""
    prompt = row.prompt
    if row.video_id not in videos:
        near = difflib.get_close_matches(row.video_id, videos, 1)
        return f"the run has no video {row.video_id!r}" + (f"; is {near[0]!r} meant?" if near else "")
    width, height, frame_count = videos[row.video_id]
    if prompt is None:
        return "holds no prompt"
    if frame_count is not None and prompt.frame_index >= frame_count:
        return f"frame {prompt.frame_index} is past the end of {row.video_id!r}, which has {frame_count} frames"
    for x, y in prompt.points_xy.tolist():
        if not (0 <= x < width and 0 <= y < height):
            return f"point ({x:g}, {y:g}) is outside the picture of {width}x{height} pixels"
    if prompt.box_xyxy is not None:
        x0, y0, x1, y1 = prompt.box_xyxy.tolist()
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            return f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) reaches outside the picture of {width}x{height} pixels"
    if prompt.mask is not None and (prompt.mask.width, prompt.mask.height) != (width, height):
        return f"mask has {prompt.mask.width}x{prompt.mask.height} pixels, the picture {width}x{height}"
    return None
