"""Masks of others, wherever they are: tables of a run, SA-V's JSON, folders of PNG pictures, COCO or YouTube-VIS."""

import os
from typing import Any, Literal, get_args

import ijson

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.coco import CocoMasks
from sam2_pipeline.formats.davis import PngMasks
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.formats.sav import SavMasks
from sam2_pipeline.formats.tables import TableMasks
from sam2_pipeline.formats.ytvis import YtvisMasks
from sam2_pipeline.io.storage import Storage

SourceFormat = Literal["tables", "sav", "davis", "coco", "ytvis"]

SAV_ENDS = ("_manual.json", "_auto.json")
_EXPECTED = "a run's output, SA-V JSON files, folders of PNGs, or a JSON file of COCO or YouTube-VIS"


def open_masks(
    url: str | os.PathLike[str], options: dict[str, Any] | None = None, *, sav: str | None = None, format: str | None = None
) -> MaskSource:
    """Finds out what is at a path or fsspec URL: a run's output, SA-V's JSON (a file or a folder), folders of PNGs, or the JSON
    file of COCO or YouTube-VIS, itself or in a folder of its own.

    Args:
        options: for fsspec.
        sav: ``"manual"``, ``"auto"`` or ``"both"``: which of SA-V's two files of a video is meant.
        format: one of `SourceFormat`, if it shall not be found out.

    Raises:
        ConfigError: none of these is there, or several are, or not what ``format`` says.
        StorageError: the place cannot be read.
    """
    if format is not None and format not in get_args(SourceFormat):
        raise ConfigError(f"there is no format {format!r} to read, expected one of {', '.join(get_args(SourceFormat))}")
    storage = Storage(url, options)
    if storage.url.lower().endswith(".json"):
        folder, _, name = storage.url.rpartition("/")
        storage, names = Storage(folder or "/", options), [name]
    else:
        names = [name for name, _ in storage.list(recursive=True)]
    found = _find_out(storage, names)
    if format is not None and found != format:
        raise ConfigError(f"{url} holds {found}, expected {format}")
    if found == "tables":
        return TableMasks(storage)
    if found == "davis":
        return PngMasks(storage, [name for name in names if name.lower().endswith(".png")])
    jsons = [name for name in names if name.lower().endswith(".json")]
    if found == "sav":
        return SavMasks(storage, jsons, sav)
    if len(jsons) > 1:
        raise ConfigError(f"{storage.url} holds {', '.join(jsons[:3])}: name the file that is meant")
    return (YtvisMasks if found == "ytvis" else CocoMasks)(storage, jsons[0])


def _find_out(storage: Storage, names: list[str]) -> SourceFormat:
    if any(name.startswith("_run/") for name in names):
        return "tables"
    sav_json, json, png = ([n for n in names if n.lower().endswith(ends)] for ends in (SAV_ENDS, ".json", ".png"))
    if sav_json and png:
        raise ConfigError(f"{storage.url} holds {len(sav_json)} SA-V files and {len(png)} PNGs, expected one kind")
    if png:
        return "davis"
    if not json:
        raise ConfigError(f"{storage.url} holds no masks: expected {_EXPECTED}")
    return "sav" if sav_json else _kind_of_json(storage, json[0])


def _kind_of_json(storage: Storage, name: str) -> SourceFormat:
    """By the first lists and their items, of which the file may have very many."""
    try:
        with storage.open(name) as file:
            for prefix, event, _ in ijson.parse(file):
                if prefix in ("masklet", "annotations.item.segmentations", "videos.item.file_names"):
                    return "sav" if prefix == "masklet" else "ytvis"
                if prefix in ("images.item", "annotations.item.segmentation") and event.startswith("start"):
                    return "coco"
    except ijson.JSONError:
        pass  # whoever reads it will say what is wrong
    return "sav"
