"""Reviewing: masklets in order of doubt, and the verdicts on them."""

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.verdicts import FOLDER, Verdict, Word, latest, merge_parts, read_verdicts, write_verdicts
from sam2_pipeline.masklets.rle import Rle
from sam2_pipeline.masklets.verdict import VERDICTS
from sam2_pipeline.serve.web import NotThere

Order = Literal["doubt", "video", "size"]
Review = Literal["all", "none", "accept", "reject", "refine"]
# Doubt is one less the mean of these, where the tables have them; what was never visible is most doubtful. A verdict of the
# judge, where there is one, comes before the scores: it has a third of the scale to itself.
SCORES = ("predicted_iou_mean", "stability_score_mean", "stability_score_min", "cycle_iou", "reprompt_iou")
_COLUMNS = ("video_id", "masklet_id", "masklet_type", "frame_count", "visible_frame_count", "first_frame_index", "size_rel",
            "size_bucket", "visibility_changes", "attributes", "verdict", "verdict_reasons", *SCORES)  # fmt: skip
MAX_FRAMES = 256  # of masks in one answer
MAX_ROWS = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which masklets to list, and how."""

    order: Order = "doubt"
    review: Review = "all"
    video_id: str | None = None
    kind: str | None = None
    bucket: str | None = None
    search: str = ""
    start: int = 0
    count: int = 200


class Reviewer:
    """The masklets of a dataset, and who said what of them. Any thread may call it.

    The tables are read once; `refresh` looks for what was committed since. Verdicts of other servers are seen when the list
    is asked for.
    """

    def __init__(self, dataset: MaskletDataset, author: str) -> None:
        self.dataset, self.author = dataset, author
        self._lock = threading.RLock()
        self._parts: frozenset[str] = frozenset()
        self._history: list[dict[str, Any]] = []
        merge_parts(dataset.storage)
        self.refresh()

    def refresh(self) -> None:
        """Looks for commits and verdicts anew."""
        with self._lock:
            self.dataset.refresh()
            self._rows = [_row(row) for row in self._read().to_pylist()]
            self._place = {(row["video_id"], row["masklet_id"]): place for place, row in enumerate(self._rows)}
            self._take_in_verdicts()

    # ---------------------------------------------------------------------------------------------------------- asked

    def masklets(self, wanted: Wanted) -> dict[str, Any]:
        """Some rows of the list, and how many there are and were reviewed."""
        with self._lock:
            self._take_in_verdicts()
            found = [row for row in self._rows if self._fits(row, wanted)]
            keys = {
                "doubt": lambda row: (-row["doubt"], row["video_id"], row["masklet_id"]),
                "video": lambda row: (row["video_id"], row["masklet_id"]),
                "size": lambda row: (-(row["size_rel"] or 0), row["video_id"], row["masklet_id"]),
            }
            found.sort(key=keys[wanted.order])
            shown = found[wanted.start : wanted.start + wanted.count]
            return {"total": len(found), "rows": [row | self._said(row) for row in shown], "counts": self.counts()}

    def counts(self) -> dict[str, int]:
        """Masklets by verdict."""
        counts = dict.fromkeys(("accept", "reject", "refine"), 0)
        for key, verdict in self._verdicts.items():
            if key in self._place:
                counts[verdict["verdict"]] += 1
        return counts | {"none": len(self._rows) - sum(counts.values()), "all": len(self._rows)}

    def per_video(self) -> dict[str, int]:
        """Masklets by video."""
        return dict(Counter(row["video_id"] for row in self._rows))

    def track(self, video_id: str, masklet_id: int) -> dict[str, Any]:
        """Scores of a masklet on all of its frames, without the masks."""
        self._require(video_id, masklet_id)
        columns = ["frame_index", "area", "predicted_iou", "stability_score"]
        table = self.dataset.masks(video_id, masklet_id, columns=columns)
        scores = {name: [_finite(value) for value in table[name].to_pylist()] for name in columns[2:]}
        return {"frames": table["frame_index"].to_pylist(), "areas": table["area"].to_pylist()} | scores

    def masks(self, video_id: str, masklet_id: int, start: int, stop: int, others: bool) -> dict[str, Any]:
        """Masks on frames ``start .. stop - 1`` (`MAX_FRAMES` at most), by frame and masklet; with ``others`` of all masklets."""
        self._require(video_id, masklet_id)
        stop = min(stop, start + MAX_FRAMES)
        within = (pc.field("frame_index") >= start) & (pc.field("frame_index") < stop)
        columns = ["frame_index", "masklet_id", "rle"]
        table = self.dataset.masks(video_id, None if others else masklet_id, columns=columns, filter=within)
        frames: dict[int, dict[int, Any]] = {}
        for row in table.to_pylist():
            frames.setdefault(row["frame_index"], {})[row["masklet_id"]] = row["rle"]
        return {"frames": frames}

    def mask(self, video_id: str, masklet_id: int, frame: int | None) -> tuple[int, Rle]:
        """The masklet's mask on a frame where it is visible: the one given, or where the model was surest."""
        self._require(video_id, masklet_id)
        visible = pc.field("area") > 0
        where = visible if frame is None else visible & (pc.field("frame_index") == frame)
        rows = self.dataset.masks(video_id, masklet_id, columns=["frame_index", "predicted_iou", "rle"], filter=where).to_pylist()
        if not rows:
            raise NotThere(f"masklet {masklet_id} of {video_id} is not visible" + ("" if frame is None else f" on frame {frame}"))
        best = max(rows, key=lambda row: row["predicted_iou"] or 0)
        return best["frame_index"], Rle.from_coco(best["rle"])

    # ----------------------------------------------------------------------------------------------------------- said

    def say(self, video_id: str, masklet_id: int, word: Word | None, note: str | None, seen: str | None) -> dict[str, Any]:
        """Stores a verdict (None: takes it back). Answers with ``replaced`` where the verdict before was not the one ``seen``,
        by its id: somebody, perhaps in another tab, was there meanwhile, and their word does not count any more."""
        with self._lock:
            self._require(video_id, masklet_id)
            self._take_in_verdicts()
            before = self._verdicts.get((video_id, masklet_id))
            row = self._store(Verdict(video_id, masklet_id, word, self.author, self._now(), note or None))
            replaced = before if before is not None and before["verdict_id"] != seen else None
            return row | {"replaced": replaced and _plain(replaced), "counts": self.counts()}

    def undo(self) -> dict[str, Any]:
        """Takes back the author's latest verdict that still counts; the one before it counts again. Each call goes one further.

        Raises:
            ConfigError: there is none left.
        """
        with self._lock:
            self._take_in_verdicts()
            undone = {row["undoes"] for row in self._history if row["undoes"]}
            standing: dict[tuple[str, int], list[dict[str, Any]]] = {}
            for row in self._history:
                if not row["undoes"] and row["verdict_id"] not in undone:
                    standing.setdefault((row["video_id"], row["masklet_id"]), []).append(row)
            own = [rows for rows in standing.values() if rows[-1]["author"] == self.author]
            if not own:
                raise ConfigError("there is nothing to undo")
            *earlier, last = max(own, key=lambda rows: rows[-1]["made_at"])
            before: dict[str, Any] = earlier[-1] if earlier else {"verdict": None, "author": self.author, "note": None}
            key = last["video_id"], last["masklet_id"]
            row = self._store(Verdict(*key, before["verdict"], before["author"], self._now(), before["note"], last["verdict_id"]))
            return row | {"counts": self.counts()}

    # -------------------------------------------------------------------------------------------------------- details

    def _read(self) -> pa.Table:
        return self.dataset.masklets(columns=_COLUMNS)

    def _require(self, video_id: str, masklet_id: int) -> None:
        if (video_id, masklet_id) not in self._place:
            raise NotThere(f"there is no masklet {masklet_id} of video {video_id!r}")

    def _take_in_verdicts(self) -> None:
        storage = self.dataset.storage
        parts = frozenset(name for name, _ in storage.list(FOLDER))
        if parts != self._parts or not parts:
            table = read_verdicts(storage)
            self._parts, self._history = parts, table.to_pylist()
            self._verdicts = {(row["video_id"], row["masklet_id"]): row for row in latest(table).to_pylist()}

    def _now(self) -> datetime:
        """Later than every verdict so far, so that clocks that differ do not bury what is said now."""
        last = self._history[-1]["made_at"] if self._history else datetime.min.replace(tzinfo=UTC)
        return max(datetime.now(UTC), last + timedelta(microseconds=1))

    def _store(self, verdict: Verdict) -> dict[str, Any]:
        write_verdicts(self.dataset.storage, [verdict])
        self._take_in_verdicts()
        row = self._rows[self._place[verdict.video_id, verdict.masklet_id]]
        return row | self._said(row)

    def _said(self, row: dict[str, Any]) -> dict[str, Any]:
        said = self._verdicts.get((row["video_id"], row["masklet_id"]))
        return {"review": said and _plain(said)}

    def _fits(self, row: dict[str, Any], wanted: Wanted) -> bool:
        said = self._verdicts.get((row["video_id"], row["masklet_id"]))
        return (
            (wanted.review == "all" or (said["verdict"] if said else "none") == wanted.review)
            and wanted.video_id in (None, row["video_id"])
            and wanted.kind in (None, row["masklet_type"])
            and wanted.bucket in (None, row["size_bucket"])
            and wanted.search.lower() in row["video_id"].lower()
        )


def _row(row: dict[str, Any]) -> dict[str, Any]:
    row = {name: _finite(value) if isinstance(value, float) else value for name, value in row.items()}
    return row | {"doubt": doubt(row)}


def doubt(row: dict[str, Any]) -> float:
    """How much a masklet should be looked at, 0 to 1; without any score 0.5. Accepted ones of the judge are in the lowest third,
    rejected ones in the highest."""
    if not row["visible_frame_count"]:
        return 1.0
    scores = [row[name] for name in SCORES if row[name] is not None]
    found = 1 - min(max(float(np.mean(scores)), 0.0), 1.0) if scores else 0.5
    if row["verdict"] is not None:
        found = (VERDICTS.index(row["verdict"]) + found) / len(VERDICTS)
    return round(found, 6)


def _plain(verdict: dict[str, Any]) -> dict[str, Any]:
    said = {name: verdict[name] for name in ("verdict", "author", "note", "verdict_id")}
    return said | {"made_at": verdict["made_at"].isoformat()}


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
