"""Figures of a trial: per protocol over all objects, and their form as JSON and on a terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sam2_pipeline.evaluation.result import RECALL_AT, Evaluation, Failure, mean
from sam2_pipeline.evaluation.scores import ObjectScore
from sam2_pipeline.evaluation.show import UNSEEN_WIDTH, percent
from sam2_pipeline.protocols.interactive import Effort
from sam2_pipeline.protocols.late import Discovered, figures
from sam2_pipeline.protocols.shots import ShotScore, shot_figures
from sam2_pipeline.protocols.trial import AUTOMATIC, ClipResult, Round, Trial
from sam2_pipeline.protocols.verdicts import GOOD, VERDICTS, VerdictFigures


@dataclass(frozen=True)
class ProtocolResult:
    """One protocol on all videos.

    Attributes:
        rounds: scores after each round of interaction; the last are the protocol's. A video whose interaction ended early
            stays as it was.
        clicks, frames: mean numbers per object in the end; None for automatic masklets.
        discovered: of automatic masklets, what was made of late objects in each video.
        shots: the same of shot changes, where they are known.
        on_scenery: of automatic masklets, how many are of no object and not wrong either, see `protocols.scenery`.
        verdicts: on the masklets; None where they are not judged.
    """

    name: str
    rounds: tuple[Evaluation, ...]
    clicks: float | None
    frames: float | None
    discovered: tuple[Discovered, ...] = ()
    shots: tuple[ShotScore, ...] = ()
    on_scenery: int = 0
    verdicts: VerdictFigures | None = None

    @property
    def scores(self) -> Evaluation:
        return self.rounds[-1]

    @property
    def objects(self) -> Sequence[ObjectScore]:
        return self.scores.objects

    def recall(self, at: float) -> float | None:
        """Share of the objects whose masklet has a mean IoU of at least ``at`` over the frames on which the object is visible."""
        if self.name != AUTOMATIC:
            return None
        return mean(float((one.partner.visible_iou or 0.0) >= at) for one in self.objects)

    def to_json(self) -> dict[str, Any]:
        scores = self.scores.to_json()
        for name in ("predictions", "ground_truth", "objects_left_aside", "videos_left_aside", "failures"):
            del scores[name]
        found: dict[str, Any] = {"protocol": self.name}
        if self.name == AUTOMATIC:
            found |= {f"recall_{at}_over_visible_frames": self.recall(at) for at in RECALL_AT}
            found |= {"masklets_on_scenery": self.on_scenery}
            found |= figures(self.discovered)
            found |= shot_figures(self.shots) if self.shots else {}
        else:
            found |= {"clicks_per_object": self.clicks, "prompted_frames_per_object": self.frames}
        if len(self.rounds) > 1:
            found["J&F_after_prompted_frames"] = [one.jf for one in self.rounds]
        if self.verdicts is not None:
            found["verdicts"] = self.verdicts.to_json() | {"each": [one.to_json() for one in self.verdicts.masklets]}
        return found | {"objects_left_aside": left_aside(self)} | scores


@dataclass(frozen=True)
class TrialResult:
    """All protocols of a trial, on the same videos."""

    model: str
    weights_sha256: str
    image_size: int
    ground_truth: str
    clips: int
    min_area: float
    effort: Effort
    protocols: tuple[ProtocolResult, ...]
    failures: tuple[Failure, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "image_size": self.image_size,
            "ground_truth": self.ground_truth,
            "clips": self.clips,
            "min_area": self.min_area,
            "clicks_per_frame": self.effort.clicks,
            "max_frames": self.effort.frames,
            "protocols": [one.to_json() for one in self.protocols],
            "failures": [{"video_id": failure.video_id, "reason": failure.reason} for failure in self.failures],
        }


def summarise(
    trial: Trial, model: str, weights_sha256: str, image_size: int, results: Sequence[ClipResult | Failure]
) -> TrialResult:
    """Scores over the objects of all videos that could be played."""
    played = [result for result in results if isinstance(result, ClipResult)]
    return TrialResult(
        model=model,
        weights_sha256=weights_sha256,
        image_size=image_size,
        ground_truth=trial.clips.url,
        clips=len(played),
        min_area=trial.min_area,
        effort=trial.effort,
        protocols=tuple(_protocol(name, trial, model, [one.rounds[name] for one in played]) for name in trial.protocols),
        failures=tuple(result for result in results if isinstance(result, Failure)),
    )


def _protocol(name: str, trial: Trial, model: str, videos: Sequence[tuple[Round, ...]]) -> ProtocolResult:
    automatic = name == AUTOMATIC
    rounds = [
        Evaluation(
            predictions=model,
            ground_truth=trial.clips.url,
            match="hungarian" if automatic else "ids",
            keep_first_and_last=automatic or trial.keep_first_and_last,
            videos=tuple(video[min(number, len(video) - 1)].score for video in videos),
            failures=(),
            left_aside=0,
            without_truth=0,
        )
        for number in range(max(map(len, videos), default=1))
    ]
    last = [video[-1] for video in videos]
    clicks, frames = (_per_object(getattr(one, what) for one in last) for what in ("clicks", "frames"))
    late = tuple(one.discovered for one in last if one.discovered is not None)
    shots = tuple(one.shots for one in last if one.shots is not None)
    judged = VerdictFigures(tuple(masklet for one in last for masklet in one.judged))
    effort = (None, None) if automatic else (clicks, frames)
    scenery = sum(one.on_scenery for one in last)
    return ProtocolResult(name, tuple(rounds), *effort, late, shots, scenery, judged if judged.masklets else None)


def _per_object(videos: Iterable[dict[int, int]]) -> float | None:
    return mean(number for video in videos for number in video.values())


def left_aside(protocol: ProtocolResult) -> int:
    return sum(video.left_aside for video in protocol.scores.videos)


def show(found: TrialResult) -> None:
    """Prints it."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNSEEN_WIDTH)
    who = f"{found.model} ({found.image_size} pixels)"
    console.print(f"{who} on {found.clips} clips of {found.ground_truth}", markup=False, soft_wrap=True)
    for table in tables(found):
        console.print(table)
    for note in notes(found):
        console.print(note, markup=False, soft_wrap=True)


def tables(found: TrialResult) -> Iterator[Table]:
    """Protocols with prompts, and the one without."""
    prompted = [one for one in found.protocols if one.name != AUTOMATIC]
    if prompted:
        table = _table("protocol", "objects", "J&F", "J", "F", "clicks", "frames")
        for one in prompted:
            scores = (percent(value) for value in (one.scores.jf, one.scores.j, one.scores.f))
            table.add_row(one.name, str(len(one.objects)), *scores, _decimal(one.clicks), _decimal(one.frames))
        yield table
    for one in found.protocols:
        if one.name == AUTOMATIC:
            table = _table("protocol", "objects", *(f"recall {at}" for at in RECALL_AT), "masklets", "spurious", "per object")
            masklets, spurious = (sum(getattr(v, what) or 0 for v in one.scores.videos) for what in ("predicted", "spurious"))
            recalls = (percent(one.recall(at)) for at in RECALL_AT)
            share = _decimal(one.scores.spurious_per_object)
            table.add_row(one.name, str(len(one.objects)), *recalls, str(masklets), str(spurious), share)
            yield table
            late = figures(one.discovered)
            table = _table("late objects", "number", "found", "mean IoU >= 0.7", "first frame off by", "duplicates")
            shares = (percent(late[key]) for key in ("late_found", "late_recall_0.7_over_visible_frames"))
            off, duplicates = _decimal(late["late_first_frame_error_mean"]), percent(late["duplicates_share"])
            table.add_row(one.name, str(late["late_objects"]), *shares, off, duplicates)
            yield table
            if (shots := shot_figures(one.shots))["shot_changes"] or shots["shot_changes_claimed"]:
                table = _table("shot changes", "number", "found", "rightly", "masklets across one")
                claims = (percent(shots[f"shot_change_{what}"]) for what in ("recall", "precision"))
                table.add_row(one.name, str(shots["shot_changes"]), *claims, str(shots["masklets_across_shots"]))
                yield table
    if any(one.verdicts is not None for one in found.protocols):
        yield _verdicts(found.protocols)


def _verdicts(protocols: Sequence[ProtocolResult]) -> Table:
    table = _table("verdicts", "masklets", f"IoU >= {GOOD}", *VERDICTS, "accepted are good", "good are accepted")
    for one in protocols:
        if one.verdicts is not None:
            counts = [str(one.verdicts.counts[verdict]) for verdict in VERDICTS]
            shares = percent(one.verdicts.share_good("accept")), percent(one.verdicts.recall)
            table.add_row(one.name, str(len(one.verdicts.masklets)), str(one.verdicts.good), *counts, *shares)
    return table


def notes(found: TrialResult) -> Iterator[str]:
    """What one should know about the figures."""
    visible = "once visible" if not found.min_area else f"once visible on {100 * found.min_area:g}% of the picture"
    prompted = [one for one in found.protocols if one.name != AUTOMATIC]
    if prompted:
        ends = "all its frames from then on count"
        if not prompted[0].scores.keep_first_and_last:
            ends = "that frame and the last one do not count"
        yield f"an object is prompted {visible}; {ends}; clicks and prompted frames are per object"
    if len(prompted) < len(found.protocols):
        yield (
            "automatic: recall of objects visible at the start, by mean IoU over the frames on which they are visible; "
            "a masklet is spurious if it is not the one that stands for an object, with an IoU of 0.5 or more; "
            "late objects are found with a mean IoU of 0.7, beginning within 3 frames; "
            "a duplicate has a temporal IoU above 0.8 with another masklet"
        )
    for one in found.protocols:
        if one.verdicts is not None and one.verdicts.reasons:
            against = ", ".join(f"{reason} {count}" for reason, count in one.verdicts.reasons.most_common())
            yield f"{one.name}: reasons of verdicts: {against}"
        if one.verdicts is not None and (best := one.verdicts.best_limits()) is not None:
            shares = f"{percent(best.precision)} of what they accept are good, {percent(best.recall)} of the good are accepted"
            yield f"{one.name}: best limits in hindsight: {best}: {shares}"
        if one.on_scenery:
            yield (
                f"{one.name}: {one.on_scenery} masklets are of scenery, as ground, sky or a patch of the backdrop: no object, "
                "and not wrong; they are not spurious, and verdicts on them do not count"
            )
        if len(one.rounds) > 1:
            curve = ", ".join(percent(scores.jf) for scores in one.rounds)
            yield f"{one.name}: J&F after clicks on 1, 2, ... frames: {curve}"
        if empty := sum(not video.objects for video in one.scores.videos):
            yield f"{one.name}: {empty} clips have no object to score"
        if aside := left_aside(one):
            yield f"{one.name}: {aside} objects are never visible enough, or only on frames that do not count, and are left aside"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
