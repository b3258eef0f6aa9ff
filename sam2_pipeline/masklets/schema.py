"""The three tables: their columns, in order, and what each means. The descriptions travel inside the Parquet files.

Versions only add columns: what an older one wrote reads as null in them.
"""

import pyarrow as pa

from sam2_pipeline.masklets.verdict import REASONS

SCHEMA_VERSION = 3
VERSION_KEY = b"sam2_pipeline.schema_version"

_FLOATS = pa.list_(pa.field("element", pa.float32()))
_STRINGS = pa.list_(pa.field("element", pa.string()))
_POINTS = pa.list_(pa.field("element", _FLOATS))
_RLE = pa.struct([("size", pa.list_(pa.field("element", pa.int32()))), ("counts", pa.string())])


_SINCE = b"since"  # of columns that came after version 1


def _schema(*columns: tuple[str, pa.DataType, str] | tuple[str, pa.DataType, str, int]) -> pa.Schema:
    """Columns as (name, type, description) and, if it is not the first, the version that brought them."""
    fields = []
    for name, kind, description, *since in columns:
        notes = {b"description": description.encode()} | ({_SINCE: str(since[0]).encode()} if since else {})
        fields.append(pa.field(name, kind, metadata=notes))
    return _versioned(fields, SCHEMA_VERSION)


def _versioned(fields: list[pa.Field], version: int) -> pa.Schema:
    return pa.schema(fields, {VERSION_KEY: str(version).encode()})


_BORDER = (
    "share of the mask's outline, that is of the sides of its pixels where it ends, around holes too, that lies on the border of "
    "the picture; null for an empty mask"
)
_TEMPORAL = "IoU with the masklet's mask on the annotated frame before; null on the first one, and where both are empty"
_FLICKER = (
    "visibility_changes, and frames on which a visible mask has more than twice or less than half the area of the visible one "
    "before it, per visible frame; null if on none"
)
_CYCLE = (
    "tracked from its last visible mask back to the visible frame nearest to its prompt, IoU with the mask there (from the first "
    "one, too, if it begins earlier; then the lower of the two); null if not judged, or visible on one frame only"
)
_REPROMPT = (
    "segmented anew, without memory, from its masks' centres and boxes on some frames: IoU with these masks, mean; null if not "
    "judged"
)
_PAIRS = "over the frames on which the mask and the one before it are visible; null if on none"

VIDEOS = _schema(
    ("video_id", pa.string(), "URL of the video relative to the input, extension dropped; unique within a run"),
    ("uri", pa.string(), "where the video was read from"),
    ("status", pa.string(), "ok or failed"),
    ("error_type", pa.string(), "kind of failure; null when ok"),
    ("error_message", pa.string(), "what was found and what was expected; null when ok"),
    ("width", pa.int32(), "pixels, as displayed (rotation applied)"),
    ("height", pa.int32(), "pixels, as displayed (rotation applied)"),
    ("fps", pa.float64(), "native frames per second"),
    ("frame_count", pa.int32(), "native frames"),
    ("duration_s", pa.float64(), "seconds"),
    ("codec", pa.string(), "video codec, as FFmpeg names it"),
    ("size_bytes", pa.int64(), "bytes of the video file"),
    ("masklet_count", pa.int32(), "rows of this video in masklets"),
    ("annotated_frame_count", pa.int32(), "frames that every masklet has a mask row for"),
    ("unit_id", pa.string(), "work unit that the video belonged to"),
    ("wall_s", pa.float64(), "seconds spent on the video"),
    ("model", pa.string(), "model name"),
    ("weights_sha256", pa.string(), "SHA-256 of the model's weights"),
    ("config_hash", pa.string(), "hash of the resolved configuration, which _run/run.json holds"),
    ("package_version", pa.string(), "version of sam2_pipeline"),
    ("device", pa.string(), "what the model ran on"),
    ("attributes", pa.string(), "what else an imported annotation says of the video, as JSON; null for a run", 2),
    ("shot_count", pa.int32(), "shots of the video; null where they were not looked for (cuts.mode ignore)", 3),
)

MASKLETS = _schema(
    ("video_id", pa.string(), "see videos"),
    ("masklet_id", pa.int32(), "number of the masklet within its video, from 0"),
    ("masklet_type", pa.string(), "auto or prompted"),
    ("object_id", pa.int64(), "the prompt's number for the object; null for auto"),
    ("first_frame_index", pa.int32(), "first annotated frame on which the object is visible; null if on none"),
    ("last_frame_index", pa.int32(), "last annotated frame on which the object is visible; null if on none"),
    ("frame_count", pa.int32(), "annotated frames, that is rows in masks"),
    ("visible_frame_count", pa.int32(), "annotated frames on which the mask is not empty"),
    ("size_abs", pa.float64(), "mean area in pixels over the visible frames, as SA-V; 0 if on none"),
    ("size_rel", pa.float64(), "size_abs divided by the picture's area, as SA-V"),
    ("size_bucket", pa.string(), "small (size_abs below 32^2), medium (below 96^2) or large, as SA-V"),
    ("visibility_changes", pa.int32(), "disappearances and reappearances after the first appearance, as SA-V"),
    ("predicted_iou_mean", pa.float64(), "over the visible frames; null if on none"),
    ("object_score_mean", pa.float64(), "over all annotated frames"),
    ("stability_score_mean", pa.float64(), "over the visible frames; null if on none"),
    ("stability_score_min", pa.float64(), "over the visible frames; null if on none"),
    ("prompt_frame_index", pa.int32(), "native frame of the prompt that the masklet was tracked from"),
    ("prompt_points", _POINTS, "points of that prompt as (x, y, label), label 1 object, 0 background; empty without"),
    ("prompt_box", _FLOATS, "box of that prompt as (x0, y0, x1, y1); null without"),
    ("attributes", pa.string(), "what else an imported annotation says of the object, as JSON; null for a run", 2),
    ("shot_index", pa.int32(), "number of the shot that the masklet lives in, from 0; null where shots were not looked for", 3),
    ("parent_masklet_id", pa.int32(), "smallest masklet that this one is part of; null if of none, or not looked for", 3),
    ("predicted_iou_min", pa.float64(), "over the visible frames; null if on none", 3),
    ("temporal_iou_mean", pa.float64(), _PAIRS, 3),
    ("temporal_iou_min", pa.float64(), _PAIRS, 3),
    ("num_components_max", pa.int32(), "over the visible frames; null if on none", 3),
    ("border_touch_mean", pa.float64(), "over the visible frames; null if on none", 3),
    ("flicker", pa.float64(), _FLICKER, 3),
    ("cycle_iou", pa.float64(), _CYCLE, 3),
    ("reprompt_iou", pa.float64(), _REPROMPT, 3),
    ("verdict", pa.string(), "accept, refine or reject, by the rules of judge in the configuration; null if not judged", 3),
    ("verdict_reasons", _STRINGS, f"what stands against accepting it: {', '.join(REASONS)}; null if not judged", 3),
)

MASKS = _schema(
    ("video_id", pa.string(), "see videos"),
    ("masklet_id", pa.int32(), "see masklets"),
    ("frame_index", pa.int32(), "native frame number, from 0"),
    ("timestamp_s", pa.float64(), "presentation time in seconds, 0 at the first frame"),
    ("rle", _RLE, "COCO compressed RLE, column-major; pycocotools.mask.decode takes it as it is"),
    ("area", pa.int64(), "pixels of the mask; 0 where the object is not visible"),
    ("bbox_x", pa.float32(), "left edge of the mask's box in pixels"),
    ("bbox_y", pa.float32(), "upper edge of the mask's box in pixels"),
    ("bbox_w", pa.float32(), "width of the mask's box in pixels"),
    ("bbox_h", pa.float32(), "height of the mask's box in pixels"),
    ("predicted_iou", pa.float32(), "the model's own estimate of the mask's IoU, 0 to 1"),
    ("object_score", pa.float32(), "presence logit; not above 0 means occluded"),
    ("stability_score", pa.float32(), "IoU of the mask cut at logits +1 and -1"),
    ("raw_area", pa.int64(), "pixels of the mask before it was cleaned (settings clean); null where nobody knows", 3),
    ("num_components", pa.int32(), "connected components of the mask, by sides and corners of pixels", 3),
    ("border_touch", pa.float32(), _BORDER, 3),
    ("temporal_iou", pa.float32(), _TEMPORAL, 3),
)

TABLES: dict[str, pa.Schema] = {"videos": VIDEOS, "masklets": MASKLETS, "masks": MASKS}

# Rows are sorted by these, and no two rows of a run share them.
KEYS: dict[str, tuple[str, ...]] = {
    "videos": ("video_id",),
    "masklets": ("video_id", "masklet_id"),
    "masks": ("video_id", "masklet_id", "frame_index"),
}


def schema_of(table: str, version: int) -> pa.Schema:
    """A table as ``version``, 1 to `SCHEMA_VERSION`, wrote it."""
    fields = [field for field in TABLES[table] if int((field.metadata or {}).get(_SINCE, b"1")) <= version]
    return _versioned(fields, version)


# What people add beside the tables of a run: not of a unit, and no commit names them.
VERDICTS = _schema(
    ("video_id", pa.string(), "see videos"),
    ("masklet_id", pa.int32(), "see masklets"),
    ("verdict", pa.string(), "accept, reject or refine; null takes earlier ones back"),
    ("note", pa.string(), "what the reviewer wrote, or null"),
    ("author", pa.string(), "who said so"),
    ("made_at", pa.timestamp("us", "UTC"), "when; of several verdicts on a masklet the latest counts"),
    ("verdict_id", pa.string(), "a name of its own"),
    ("undoes", pa.string(), "verdict_id of the verdict that this one takes back, or null"),
)

PROMPTS = _schema(
    ("video_id", pa.string(), "see videos"),
    ("object_id", pa.int64(), "see masklets"),
    ("frame_index", pa.int32(), "native frame number, from 0"),
    ("points", _POINTS, "points as (x, y) in pixels of the displayed video"),
    ("labels", pa.list_(pa.field("element", pa.int8())), "of each point: 1 object, 0 background"),
    ("box", _FLOATS, "(x0, y0, x1, y1); null without"),
    ("mask", _RLE, "mask that was given as a prompt, COCO compressed RLE; null without"),
)
