"""The prompts that people made masklets with: one Parquet part per unit below ``prompts/``, beside the tables.

A part has the name of the unit's parts in the tables, so that of several it is known which belongs to the masklets that count.
It is a prompts table as `read_prompts` takes it.
"""

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sam2_pipeline.errors import StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.schema import PROMPTS
from sam2_pipeline.masklets.work import Commit

FOLDER = "prompts"


def prompts_name(unit_id: str, attempt_id: str) -> str:
    """Where the prompts of an attempt at a unit lie."""
    return f"{FOLDER}/unit-{unit_id}-{attempt_id}.parquet"


def write_prompt_part(storage: Storage, unit_id: str, attempt_id: str, video_id: str, prompts: Iterable[Prompt]) -> None:
    rows = [prompt_row(video_id, prompt) for prompt in sorted(prompts, key=lambda one: (one.object_id, one.frame_index))]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, PROMPTS), buffer, compression="zstd")
    storage.write_bytes(prompts_name(unit_id, attempt_id), buffer.getvalue())


def read_prompt_parts(storage: Storage, commits: Iterable[Commit]) -> pa.Table:
    """The prompts of committed units; those of units that a run or an import made are not kept here."""
    there = {name for name, _ in storage.list(FOLDER)}
    wanted = [prompts_name(commit.unit_id, commit.attempt_id) for commit in commits]
    try:
        parts = [pq.read_table(io.BytesIO(storage.read_bytes(name)), schema=PROMPTS) for name in wanted if name in there]
    except pa.ArrowException as error:
        raise StorageError(f"{storage.url}: cannot read prompts: {error}") from error
    order = [(name, "ascending") for name in ("video_id", "object_id", "frame_index")]
    return pa.concat_tables([PROMPTS.empty_table(), *parts]).sort_by(order)


def prompt_row(video_id: str, prompt: Prompt) -> dict[str, Any]:
    """A prompt as a row of a prompts table."""
    return {
        "video_id": video_id,
        "object_id": prompt.object_id,
        "frame_index": prompt.frame_index,
        "points": prompt.points_xy.tolist(),
        "labels": prompt.point_labels.tolist(),
        "box": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
        "mask": None if prompt.mask is None else prompt.mask.to_coco(),
    }
