"""SA-V's JSON files: ``sav_000001_manual.json`` and ``sav_000001_auto.json``. `sav_content` has what is in them."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.formats.masks import MaskSource
from sam2_pipeline.formats.sav_content import read_annotation, sav_kind, write_annotation
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.annotated import AnnotatedVideo

_NAME = re.compile(r"(?P<video>.+?)(_(?P<kind>manual|auto))?\.json", re.IGNORECASE)


class SavMasks(MaskSource):
    """The video id is the file's name relative to the folder, less ``_manual.json`` or ``_auto.json`` (see `MaskSource`).

    Files without either ending count only where no file has one. ``kind`` chooses where there are both, or takes ``both``.
    """

    def __init__(self, storage: Storage, names: Iterable[str], kind: str | None = None) -> None:
        self.url = storage.url
        self._storage = storage
        found = [match for match in map(_NAME.fullmatch, names) if match]
        kinds = {match["kind"].lower() for match in found if match["kind"]}
        if kind not in (None, "both", *kinds):
            raise ConfigError(f"{self.url} holds no {kind} masklets, expected files that end in _{kind}.json")
        if len(kinds) == 2 and kind is None:
            raise ConfigError(
                f"{self.url} holds manual and automatic masklets, expected one kind (for ground truth, choose with --sav)"
            )
        chosen = {kind} if kind in kinds else kinds or {""}
        self._names: dict[str, list[str]] = {}
        for match in found:
            if (match["kind"] or "").lower() in chosen:
                self._names.setdefault(match["video"], []).append(match[0])
        self.automatic = "auto" in chosen
        if len(found) == 1:
            self.url = storage.locate(found[0][0])

    @property
    def video_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._names))

    def load(self, video_id: str) -> AnnotatedVideo:
        files = sorted(self._names[video_id], reverse=True)  # manual first: its numbers stay
        videos = [self._load_file(video_id, name) for name in files]
        return replace(_merged(videos), uri=self.video_url(video_id))

    def video_url(self, video_id: str) -> str:
        return self._storage.locate(f"{video_id}.mp4")

    def _load_file(self, video_id: str, name: str) -> AnnotatedVideo:
        try:
            return read_annotation(json.loads(self._storage.read_bytes(name)), video_id)
        except (ValueError, TypeError) as error:  # ConfigErrors of masks are ValueErrors, too
            raise VideoError(f"{self._storage.locate(name)}: {error}") from error


class SavWriter:
    """Writes ``VIDEO_auto.json`` and ``VIDEO_manual.json``, each where a video has such masklets. A video without any has the one
    that the others have, or else an automatic one: readers do not like to find both kinds."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._kinds: set[str] = set()
        self._empty: list[AnnotatedVideo] = []

    def add(self, video: AnnotatedVideo) -> None:
        kinds = {sav_kind(masklet) for masklet in video.masklets}
        for kind in sorted(kinds):
            chosen = tuple(masklet for masklet in video.masklets if sav_kind(masklet) == kind)
            self._write(replace(video, masklets=chosen), kind)
        self._kinds |= kinds
        if not kinds:
            self._empty.append(video)

    def finish(self) -> None:
        kind = "manual" if self._kinds == {"manual"} else "auto"
        for video in self._empty:
            self._write(video, kind)

    def _write(self, video: AnnotatedVideo, kind: str) -> None:
        content = write_annotation(video)
        self.storage.write_bytes(f"{video.video_id}_{kind}.json", json.dumps(content, allow_nan=False).encode())

    def picture_name(self, video_id: str, frame: int) -> None:
        """SA-V has videos, not pictures."""

    def notes(self) -> list[str]:
        return []


def _merged(videos: list[AnnotatedVideo]) -> AnnotatedVideo:
    """The masklets of several annotations of one video; a number that is taken already is replaced by the next free one."""
    first, *others = videos
    masklets = list(first.masklets)
    for video in others:
        if video.frames != first.frames:
            raise VideoError(f"{video.video_id}: the two files annotate different frames, expected the same")
        taken, numbers = {one.masklet_id for one in masklets}, {}
        for number in (masklet.masklet_id for masklet in video.masklets):
            numbers[number] = max(taken) + 1 if number in taken else number
            taken.add(numbers[number])
        for masklet in video.masklets:
            parent = masklet.seed.parent_masklet_id
            seed = replace(
                masklet.seed,
                masklet_id=numbers[masklet.masklet_id],
                parent_masklet_id=None if parent is None else numbers.get(parent, parent),
            )
            masklets.append(replace(masklet, seed=seed))
    return replace(first, masklets=tuple(sorted(masklets, key=lambda masklet: masklet.masklet_id)))
