"""`MaskletDataset`: what a run wrote, read through its commits, so that it is whole at any time, also while the run goes on."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.decode import open_video
from sam2_pipeline.io.prompt_parts import read_prompt_parts
from sam2_pipeline.io.tables import CommittedTables
from sam2_pipeline.io.urls import forbidden
from sam2_pipeline.io.verdicts import REVIEW, WORDS, join_verdicts, latest, read_verdicts
from sam2_pipeline.io.video import Video
from sam2_pipeline.masklets.annotated import AnnotatedFrame, AnnotatedVideo
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, thin_out
from sam2_pipeline.masklets.rle import decode as decode_rle
from sam2_pipeline.masklets.schema import KEYS
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.masklets.work import VideoInfo


class MaskletDataset(CommittedTables):
    """The three tables of an output, as of the moment of opening; `refresh` takes in what was committed since.

    Iterating gives a `Masklet` at a time, in order of video_id and masklet_id. ``url`` is a path or an fsspec URL.

    Raises:
        StorageError: the output cannot be read, or is none.
    """

    def videos(
        self, video_id: str | None = None, *, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """One row per input video, failed ones too, sorted by video_id."""
        return self._read("videos", video_id, columns, filter)

    def masklets(
        self,
        video_id: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        reviewed: bool | str = False,
    ) -> pa.Table:
        """One row per masklet, sorted by (video_id, masklet_id).

        ``reviewed`` adds the latest verdicts of people as ``review``, ``reviewed_by``, ``reviewed_at`` and ``review_note``, null
        where there is none; ``"accept"``, ``"reject"`` or ``"refine"`` leaves only the masklets of which that is said.

        Raises:
            ConfigError: there is no such column or verdict.
        """
        if reviewed is False:
            return self._read("masklets", video_id, columns, filter)
        if isinstance(reviewed, str) and reviewed not in WORDS:
            raise ConfigError(f"reviewed is {reviewed!r}, expected True or one of {', '.join(WORDS)}")
        keys = KEYS["masklets"]
        read = None if columns is None else [*columns, *(key for key in keys if key not in columns)]
        joined = join_verdicts(self._read("masklets", video_id, read, filter), self.verdicts())
        if isinstance(reviewed, str):
            joined = joined.filter(pc.field("review") == reviewed)
        return joined if columns is None else joined.select([*columns, *REVIEW])

    def verdicts(self, video_id: str | None = None, *, history: bool = False) -> pa.Table:
        """What people said of the masklets, as of now: the latest verdict on each, or with ``history`` all in order of time."""
        found = read_verdicts(self.storage)
        if video_id is not None:
            found = found.filter(pc.field("video_id") == video_id)
        return found if history else latest(found)

    def prompts(self, video_id: str | None = None) -> pa.Table:
        """The prompts that people made masklets with in the browser, sorted by (video_id, object_id, frame_index)."""
        wanted = self.commits if video_id is None else [c for c in self.commits if video_id in c.video_ids]
        found = read_prompt_parts(self.storage, wanted)
        return found if video_id is None else found.filter(pc.field("video_id") == video_id)

    @overload
    def masks(
        self,
        video_id: str | None = None,
        masklet_id: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        decode: Literal[False] = False,
    ) -> pa.Table: ...

    @overload
    def masks(
        self, video_id: str, masklet_id: int, *, filter: pc.Expression | None = None, decode: Literal[True]
    ) -> np.ndarray: ...

    def masks(
        self,
        video_id: str | None = None,
        masklet_id: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,
        decode: bool = False,
    ) -> pa.Table | np.ndarray:
        """One row per masklet and annotated frame.

        Sorted by (masklet_id, frame_index) within a video; of several videos those of one unit stand together. The whole
        table may be larger than memory: `dataset` scans it in pieces.

        Args:
            decode: give the masks of one masklet themselves, bool ``[T, H, W]`` in order of frames; `frames` gives one at a time.

        Raises:
            ConfigError: ``decode`` without a masklet, or with columns.
            KeyError: ``decode`` finds no mask.
        """
        if decode:
            if video_id is None or masklet_id is None or columns is not None:
                raise ConfigError("masks are decoded of one masklet: expected a video_id, a masklet_id, and no columns")
            rows = self.masks(video_id, masklet_id, columns=["rle"], filter=filter)["rle"].to_pylist()
            if not rows:
                raise KeyError(f"{self.storage.url} holds no such mask of masklet {masklet_id} of video {video_id!r}")
            return np.stack([decode_rle(Rle.from_coco(row)) for row in rows])
        if masklet_id is not None:
            one = pc.field("masklet_id") == masklet_id
            filter = one if filter is None else one & filter
        return self._read("masks", video_id, columns, filter)

    def masklet(self, video_id: str, masklet_id: int) -> Masklet:
        """One masklet with all its frames.

        Raises:
            KeyError: there is none of these ids.
        """
        rows = self.masklets(video_id, filter=pc.field("masklet_id") == masklet_id).to_pylist()
        if not rows:
            raise KeyError(f"{self.storage.url} holds no masklet {masklet_id} of video {video_id!r}")
        return self._masklet(rows[0])

    def video(self, video_id: str) -> AnnotatedVideo:
        """One video with all its masklets.

        Raises:
            KeyError: there is none of this id, or the run failed on it.
        """
        rows = self.videos(video_id, filter=pc.field("status") == "ok").to_pylist()
        if not rows:
            raise KeyError(f"{self.storage.url} holds no video {video_id!r} that was done")
        masks: dict[int, list[MaskletFrame]] = {}
        for mask in self.masks(video_id).to_pylist():
            masks.setdefault(mask["masklet_id"], []).append(_mask_frame(mask))
        masklets = []
        for row in self.masklets(video_id).to_pylist():
            frames = tuple(masks[row["masklet_id"]])
            masklets.append(Masklet(video_id, _seed(row, frames), frames, _judgement(row)))
        numbers = tuple(frame.frame_index for frame in masklets[0].frames) if masklets else ()
        info = VideoInfo(**{name: rows[0][name] for name in VideoInfo.__dataclass_fields__} | {"codec": rows[0]["codec"] or ""})
        return AnnotatedVideo(video_id, info, numbers, tuple(masklets), rows[0]["uri"], _attributes(rows[0]))

    def frames(self, video_id: str, masklet_id: int) -> Iterator[tuple[int, np.ndarray]]:
        """(frame_index, mask as bool ``[H, W]``) of one masklet, in order of frames."""
        for frame in self.masklet(video_id, masklet_id).frames:
            yield frame.frame_index, decode_rle(frame.rle)

    def open_video(self, video_id: str, storage_options: Mapping[str, Any] | None = None) -> Video:
        """The video itself, which decodes frames as they are asked for; see `open_video`.

        Raises:
            KeyError: there is no such video.
            VideoError: it is not where it was, or cannot be read.
        """
        rows = self.videos(video_id, columns=["uri"]).to_pylist()
        if not rows:
            raise KeyError(f"{self.storage.url} holds no video {video_id!r}")
        if rows[0]["uri"] is None:
            raise VideoError(f"{self.storage.url}: nothing says where video {video_id!r} is")
        if reason := forbidden(rows[0]["uri"]):
            raise VideoError(f"{self.storage.url}: video {video_id!r} is not opened: {reason}")
        return open_video(rows[0]["uri"], storage_options=storage_options)

    def annotated_frames(
        self,
        video_id: str,
        masklet_ids: Sequence[int] | None = None,
        *,
        frame_indices: Sequence[int] | None = None,
        size: tuple[int, int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Iterator[AnnotatedFrame]:
        """The annotated frames of a video with their masks, decoded one at a time.

        Args:
            masklet_ids: only these masklets; default: all.
            frame_indices: only these frames; default: all that are annotated.
            size: (height, width) to squeeze frames and masks to; default: as displayed.
            storage_options: for the video.

        Raises:
            KeyError: there is no such video.
            VideoError: the video cannot be read.
        """
        filter = None if masklet_ids is None else pc.field("masklet_id").isin(list(masklet_ids))
        if frame_indices is not None:
            chosen = pc.field("frame_index").isin(list(frame_indices))
            filter = chosen if filter is None else filter & chosen
        table = self.masks(video_id, columns=["frame_index", "masklet_id", "rle"], filter=filter)
        frames: dict[int, dict[int, Any]] = {}
        for row in table.to_pylist():  # by masklet, so that every frame has its masklets in order
            frames.setdefault(row["frame_index"], {})[row["masklet_id"]] = row["rle"]
        with self.open_video(video_id, storage_options) as video:
            if not frames:
                return
            for frame in video.frames(min(frames), max(frames) + 1, size=size):
                if frame.index in frames:
                    rles = frames.pop(frame.index)
                    masks = [decode_rle(Rle.from_coco(rle)) for rle in rles.values()]
                    thin = masks if size is None else [thin_out(mask, size) for mask in masks]
                    yield AnnotatedFrame(frame, tuple(rles), np.stack(thin))
        if frames:
            raise VideoError(f"video {video_id!r} has no frame {min(frames)}, which is annotated")

    def __iter__(self) -> Iterator[Masklet]:
        for row in self.masklets().to_pylist():
            yield self._masklet(row)

    def __len__(self) -> int:
        """Number of masklets."""
        return self._rows("masklets")

    def __repr__(self) -> str:
        videos, failed = sum(c.num_videos for c in self.commits), sum(c.num_failures for c in self.commits)
        counts = f"{videos} videos ({failed} failed), {len(self)} masklets, {self._rows('masks')} masks"
        return f"MaskletDataset({self.storage.url!r}, {len(self.commits)} units: {counts})"

    def _masklet(self, row: dict[str, Any]) -> Masklet:
        frames = tuple(_mask_frame(mask) for mask in self.masks(row["video_id"], row["masklet_id"]).to_pylist())
        return Masklet(row["video_id"], _seed(row, frames), frames, _judgement(row))


def _mask_frame(row: dict[str, Any]) -> MaskletFrame:
    names = ("predicted_iou", "object_score", "stability_score")
    scores = {name: row[name] if row[name] is not None else math.nan for name in names}
    return MaskletFrame(row["frame_index"], row["timestamp_s"], Rle.from_coco(row["rle"]), **scores, raw_area=row["raw_area"])


def _seed(row: dict[str, Any], frames: Sequence[MaskletFrame]) -> MaskletSeed:
    """The prompt that a masklet began with. Of one that was a mask the tables keep the frame number alone; the masklet's
    own mask on the annotated frame nearest to it stands for it."""
    index, points, box = row["prompt_frame_index"], np.reshape(row["prompt_points"], (-1, 3)), row["prompt_box"]
    mask = None
    if not len(points) and box is None:
        nearest = min(frames, key=lambda frame: abs(frame.frame_index - index))
        index, mask = nearest.frame_index, nearest.rle
    object_id = row["masklet_id"] if row["object_id"] is None else row["object_id"]
    prompt = Prompt(object_id, index, points[:, :2], points[:, 2], box, mask)
    found_in = row["shot_index"], row["parent_masklet_id"]
    return MaskletSeed(row["masklet_id"], row["masklet_type"], prompt, row["object_id"], _attributes(row), *found_in)


def _judgement(row: Mapping[str, Any]) -> Judgement | None:
    if row["verdict"] is None:
        return None
    return Judgement(row["cycle_iou"], row["reprompt_iou"], row["verdict"], tuple(row["verdict_reasons"]))


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(row["attributes"]) if row["attributes"] else {}
