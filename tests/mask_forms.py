"""Masks in every form that can be compared."""

import json

import numpy as np
from PIL import Image

from sam2_pipeline.io.commits import commit_unit
from sam2_pipeline.io.parts import UnitWriter
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.masklet import MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import decode, encode
from sam2_pipeline.masklets.schema import VIDEOS
from sam2_pipeline.masklets.work import Commit

SIZE = (24, 32)


def disc(y, x, radius, size=SIZE):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return encode((rows - y) ** 2 + (columns - x) ** 2 < radius**2)


def moving_discs(frames=range(0, 24, 4), shift=0):
    """Two objects that move and do not overlap; the second is not there at first."""
    return {
        1: {f: disc(7 + f / 8 + shift, 6 + f / 4, 4) for f in frames},
        2: {f: disc(16, 24 - f / 4 + shift, 0 if f < 8 else 5) for f in frames},
    }


def write_tables(url, videos, kind="prompted", failed=(), facts=None, facts_of=None, score=0.5, judgements=None):
    """The output of a run: video id -> object id -> frame -> mask. Masklet ids run against the order of object ids.

    ``facts`` are further columns of all videos, ``facts_of`` of one by its id; ``score`` is every mask's predicted IoU and
    stability, ``judgements`` are on the masklets of all videos, by masklet id."""
    storage = Storage(url)
    with UnitWriter(storage, "u", "1", {}) as writer:
        for video_id, objects in sorted(videos.items()):
            seeds = []
            with MaskSpool(video_id) as spool:
                for masklet_id, object_id in enumerate(sorted(objects, reverse=True)):
                    prompt = Prompt(object_id, 0, points_xy=[[1, 2]], point_labels=[1])
                    seeds.append(MaskletSeed(masklet_id, kind, prompt, None if kind == "auto" else object_id))
                    for frame, rle in objects[object_id].items():
                        spool.add(masklet_id, MaskletFrame(frame, frame / 24, rle, score, 1.0, score))
                spool.add_judgements(judgements or {})
                writer.add_video(
                    _row(video_id, "ok", len(objects)) | (facts or {}) | (facts_of or {}).get(video_id, {}), spool, seeds
                )
        for video_id in failed:
            with MaskSpool(video_id) as spool:
                row = _row(video_id, "failed", 0) | {"error_type": "VideoError", "error_message": "no frames"}
                writer.add_video(row, spool, [])
        parts = writer.finish()
    assert commit_unit(storage, Commit("u", "1", parts, (*videos, *failed), len(videos) + len(failed), len(failed)))
    return str(url)


def _row(video_id, status, masklets):
    row = dict.fromkeys(VIDEOS.names) | {"width": SIZE[1], "height": SIZE[0], "fps": 24.0, "frame_count": 24, "duration_s": 1.0}
    return row | {"video_id": video_id, "status": status, "masklet_count": masklets, "annotated_frame_count": 6}


def write_sav(folder, videos, kind="manual", total=None):
    """SA-V's files, with its oddities: sizes and numbers as floats."""
    for video_id, objects in videos.items():
        frames = sorted(next(iter(objects.values())))
        masks = [[objects[number][frame].to_coco() for number in objects] for frame in frames]
        for mask in masks[0]:
            mask["size"] = [float(side) for side in mask["size"]]
        annotation = {"video_id": video_id, "masklet_id": list(objects), "masklet": masks}
        annotation |= {"video_frame_count": float(total or 4 * len(frames)), "masklet_stability_score": [None] * len(objects)}
        path = folder / f"{video_id}_{kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(annotation))
    return str(folder)


def write_palette(folder, videos):
    """As DAVIS: one palette picture a frame."""
    for video_id, objects in videos.items():
        (folder / video_id).mkdir(parents=True, exist_ok=True)
        for frame in next(iter(objects.values())):
            values = np.zeros(SIZE, np.uint8)
            for number, masks in objects.items():
                values[decode(masks[frame])] = number
            picture = Image.frombytes("P", SIZE[::-1], values.tobytes())
            picture.putpalette([(37 * i) % 256 for i in range(3 * 256)])
            picture.save(folder / video_id / f"{frame:05}.png")
    return str(folder)


def write_folders(folder, videos):
    """As SA-V's validation set: a folder an object, a picture of 0 and 255 a frame."""
    for video_id, objects in videos.items():
        for number, masks in objects.items():
            place = folder / video_id / f"{number:03}"
            place.mkdir(parents=True, exist_ok=True)
            for frame, mask in masks.items():
                Image.fromarray(decode(mask).astype(np.uint8) * 255).save(place / f"{frame:05}.png")
    return str(folder)


WRITERS = {"tables": write_tables, "sav": write_sav, "palette": write_palette, "folders": write_folders}
