"""Masks to compare, wherever they come from: tables of a run, SA-V's JSON, or folders of PNG pictures."""

import os
from typing import Any

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.formats.davis import PngMasks
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.formats.sav import SavMasks
from sam2_pipeline.formats.tables import TableMasks
from sam2_pipeline.io.storage import Storage

SAV_ENDS = ("_manual.json", "_auto.json")


def open_masks(url: str | os.PathLike[str], options: dict[str, Any] | None = None, *, sav: str | None = None) -> MaskSource:
    """Finds out what is at a path or fsspec URL: a run's output, one SA-V JSON file or a folder of them, or folders of PNGs.

    Args:
        options: for fsspec.
        sav: ``"manual"``, ``"auto"`` or ``"both"``: which of SA-V's two files of a video is meant.

    Raises:
        ConfigError: none of these is there, or several are.
        StorageError: the place cannot be read.
    """
    storage = Storage(url, options)
    if storage.url.lower().endswith(".json"):
        folder, _, name = storage.url.rpartition("/")
        return SavMasks(Storage(folder or "/", options), [name], sav)
    if any(storage.list("_run", recursive=True)):
        return TableMasks(storage)
    names = [name for name, _ in storage.list(recursive=True)]
    sav_json, json, png = ([n for n in names if n.lower().endswith(ends)] for ends in (SAV_ENDS, ".json", ".png"))
    if sav_json and png:
        raise ConfigError(f"{storage.url} holds {len(sav_json)} SA-V files and {len(png)} PNGs, expected one kind")
    if png:
        return PngMasks(storage, png)
    if json:
        return SavMasks(storage, json, sav)
    raise ConfigError(f"{storage.url} holds no masks: expected a run's output, SA-V JSON files, or folders of PNGs")
