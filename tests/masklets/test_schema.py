"""The tables have the columns that others build on, and their descriptions survive Parquet."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from sam2_pipeline.masklets.schema import KEYS, MASKS, SCHEMA_VERSION, TABLES, VERSION_KEY, schema_of

COLUMNS = {
    "videos": "video_id:string uri:string status:string error_type:string error_message:string width:int32 height:int32 "
    "fps:double frame_count:int32 duration_s:double codec:string size_bytes:int64 masklet_count:int32 "
    "annotated_frame_count:int32 unit_id:string wall_s:double model:string weights_sha256:string config_hash:string "
    "package_version:string device:string attributes:string shot_count:int32",
    "masklets": "video_id:string masklet_id:int32 masklet_type:string object_id:int64 first_frame_index:int32 "
    "last_frame_index:int32 frame_count:int32 visible_frame_count:int32 size_abs:double size_rel:double size_bucket:string "
    "visibility_changes:int32 predicted_iou_mean:double object_score_mean:double stability_score_mean:double "
    "stability_score_min:double prompt_frame_index:int32 prompt_points:list<element:list<element:float>> "
    "prompt_box:list<element:float> attributes:string shot_index:int32 parent_masklet_id:int32 predicted_iou_min:double "
    "temporal_iou_mean:double temporal_iou_min:double num_components_max:int32 border_touch_mean:double flicker:double "
    "cycle_iou:double reprompt_iou:double verdict:string verdict_reasons:list<element:string>",
    "masks": "video_id:string masklet_id:int32 frame_index:int32 timestamp_s:double "
    "rle:struct<size:list<element:int32>,counts:string> area:int64 bbox_x:float bbox_y:float bbox_w:float bbox_h:float "
    "predicted_iou:float object_score:float stability_score:float raw_area:int64 num_components:int32 border_touch:float "
    "temporal_iou:float",
}


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_the_published_ones(table):
    found = " ".join(f"{field.name}:{field.type}".replace(": ", ":").replace(", ", ",") for field in TABLES[table])
    assert found == COLUMNS[table]
    assert all(field.metadata[b"description"] for field in TABLES[table])
    assert TABLES[table].names[: len(KEYS[table])] == list(KEYS[table])


@pytest.mark.parametrize("table", TABLES)
def test_versions_only_add_columns(table):
    assert schema_of(table, SCHEMA_VERSION).equals(TABLES[table], check_metadata=True)
    names = [schema_of(table, version).names for version in range(1, SCHEMA_VERSION + 1)]
    assert schema_of(table, 1).metadata[VERSION_KEY] == b"1"
    assert len(names) == 3 and all(newer[: len(older)] == older for older, newer in itertools.pairwise(names))
    assert names[1] == [*names[0], *(["attributes"] if table != "masks" else [])]


@pytest.mark.parametrize("table", TABLES)
def test_schema_survives_parquet(table, tmp_path):
    schema = TABLES[table]
    pq.write_table(schema.empty_table(), tmp_path / "part.parquet")
    found = pq.read_schema(tmp_path / "part.parquet")
    assert found.equals(schema)
    assert found.metadata[VERSION_KEY] == str(SCHEMA_VERSION).encode()
    assert [field.metadata[b"description"] for field in found] == [field.metadata[b"description"] for field in schema]


def test_rle_cell_goes_straight_into_pycocotools(tmp_path):
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    encoded = coco.encode(np.asfortranarray(mask, np.uint8))
    row = dict.fromkeys(MASKS.names) | {"rle": {"size": encoded["size"], "counts": encoded["counts"].decode()}}
    pq.write_table(pa.Table.from_pylist([row], schema=MASKS), tmp_path / "part.parquet")
    cell = pq.read_table(tmp_path / "part.parquet").column("rle")
    assert np.array_equal(coco.decode(cell[0].as_py()), mask)
    assert np.array_equal(coco.decode(cell.to_pandas()[0]), mask)
