"""Tables into the formats of others, a video at a time, so that memory stays flat."""

import io
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import pyarrow.compute as pc
from PIL import Image

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.coco import CocoWriter
from sam2_pipeline.formats.davis import DavisWriter
from sam2_pipeline.formats.sav import SavWriter
from sam2_pipeline.formats.yolo import YoloWriter
from sam2_pipeline.formats.ytvis import YtvisWriter
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.io.urls import extension, fetch
from sam2_pipeline.io.verdicts import WORDS, Word
from sam2_pipeline.masklets.annotated import AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet

Format = Literal["sav", "coco", "ytvis", "davis", "yolo"]
FORMATS: tuple[Format, ...] = get_args(Format)

_JPEG_QUALITY = 95


class Writer(Protocol):
    """Takes annotated videos one after the other; `finish` completes what is one file for all of them."""

    storage: Storage

    def add(self, video: AnnotatedVideo) -> None:
        """Raises a `VideoError` for a video that the format cannot hold."""
        ...

    def finish(self) -> None: ...

    def picture_name(self, video_id: str, frame: int) -> str | None:
        """Where the format has the picture of a frame; None: it has whole videos, beside the annotations."""
        ...

    def notes(self) -> list[str]:
        """What of the masklets the format could not hold."""
        ...


_WRITERS: dict[Format, Callable[[Storage], Writer]] = {
    "sav": SavWriter,
    "coco": CocoWriter,
    "ytvis": YtvisWriter,
    "davis": DavisWriter,
    "yolo": YoloWriter,
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        failures: (video id, reason) of the videos that are not in it.
        left_out: videos that the run failed on.
        notes: what the format could not hold.
    """

    videos: int
    masklets: int
    failures: tuple[tuple[str, str], ...]
    left_out: int
    notes: tuple[str, ...]


def export(
    dataset: MaskletDataset,
    destination: Storage,
    format: Format,
    *,
    only: Collection[Word] = (),
    frames: bool = False,
    overwrite: bool = False,
    video_options: Callable[[str], Mapping[str, Any]] = lambda uri: {},
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Writes every video that was done.

    Args:
        only: verdicts: masklets of others, or of none, are left out. What a person said last counts, otherwise the judge's.
        frames: also write the annotated frames as JPEG where the format has them; for SA-V, copy the videos.
        overwrite: the destination may hold something.
        video_options: fsspec's options for the address of a video.
        on_video: told after every video how many are done, and of how many.

    Raises:
        ConfigError: there is no such format or verdict, or the destination is not empty.
        StorageError: tables cannot be read, or files not be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}, expected one of {', '.join(FORMATS)}")
    if unknown := set(only) - set(WORDS):
        raise ConfigError(f"there is no verdict {min(unknown)!r}, expected some of {', '.join(WORDS)}")
    if not overwrite and (there := next(destination.list(recursive=True), None)):
        raise ConfigError(f"{destination.locate(there[0])} is there already; choose an empty place, or --overwrite")
    writer = _WRITERS[format](destination)
    wanted = dataset.videos(columns=["video_id"], filter=pc.field("status") == "ok").column(0).to_pylist()
    said = {(row["video_id"], row["masklet_id"]): row["verdict"] for row in dataset.verdicts().to_pylist()} if only else {}
    masklets, passed_over, failures = 0, 0, []
    for done, video_id in enumerate(wanted, 1):
        video = dataset.video(video_id)
        if only:
            chosen = _chosen(video, said, only)
            passed_over += len(video.masklets) - len(chosen.masklets)
            video = chosen
        try:
            if frames:
                _copy_frames(video, writer, video_options)
            writer.add(video)
            masklets += len(video.masklets)
        except VideoError as error:
            failures.append((video_id, str(error)))
        on_video(done, len(wanted))
    writer.finish()
    left_out = len(dataset.video_ids) - len(wanted)
    notes = writer.notes()
    if passed_over:
        notes = [f"{passed_over} masklets of other verdicts than {', '.join(only)}, or of none, are left out", *notes]
    return Exported(len(wanted) - len(failures), masklets, tuple(failures), left_out, tuple(notes))


def _chosen(video: AnnotatedVideo, said: Mapping[tuple[str, int], Word], only: Collection[Word]) -> AnnotatedVideo:
    """The video with the masklets of these verdicts; who is part of one that is left out is part of none."""

    def verdict(masklet: Masklet) -> Word | None:
        judged = masklet.judgement.verdict if masklet.judgement else None
        return said.get((video.video_id, masklet.masklet_id), judged)

    kept = {masklet.masklet_id: masklet for masklet in video.masklets if verdict(masklet) in only}
    orphaned = (
        replace(masklet, seed=replace(masklet.seed, parent_masklet_id=None))
        if masklet.seed.parent_masklet_id not in kept
        else masklet
        for masklet in kept.values()
    )
    return replace(video, masklets=tuple(orphaned))


def _copy_frames(video: AnnotatedVideo, writer: Writer, video_options: Callable[[str], Mapping[str, Any]]) -> None:
    if not video.uri:
        raise VideoError("nothing says where the video is, so there are no frames to write")
    options = dict(video_options(video.uri))
    if writer.picture_name(video.video_id, 0) is None:
        path = fetch(video.uri, options)
        try:
            writer.storage.put_file(path, f"{video.video_id}{extension(video.uri)}")
        finally:
            os.unlink(path)
        return
    wanted = set(video.frames)
    with open_video(video.uri, storage_options=options) as source:
        for frame in source.frames(min(wanted, default=0), max(wanted, default=-1) + 1):
            if frame.index in wanted:
                name = writer.picture_name(video.video_id, frame.index)
                file = io.BytesIO()
                Image.fromarray(frame.image).save(file, "JPEG", quality=_JPEG_QUALITY)
                writer.storage.write_bytes(str(name), file.getvalue())
