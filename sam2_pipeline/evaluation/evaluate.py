"""A whole set of videos, several at a time."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.evaluation.matching import Match
from sam2_pipeline.evaluation.parallel import each
from sam2_pipeline.evaluation.result import Evaluation, Failure
from sam2_pipeline.evaluation.scores import VideoScore, score_video
from sam2_pipeline.formats.masks import MaskSource

SHOWN = 3  # video ids named in a message


@dataclass(frozen=True)
class Comparison:
    """What to compare, and how: all that a process needs to score any video."""

    predictions: MaskSource
    truth: MaskSource
    match: Match
    keep_first_and_last: bool

    def __call__(self, video_id: str) -> VideoScore | Failure:
        """The scores of one video, or why there are none."""
        try:
            true, predicted = self.truth.read(video_id), self.predictions.read(video_id)
            return score_video(video_id, predicted, true, match=self.match, keep_first_and_last=self.keep_first_and_last)
        except (VideoError, ConfigError) as error:
            return Failure(video_id, str(error))


def evaluate(
    predictions: MaskSource,
    truth: MaskSource,
    *,
    match: Match | None = None,
    keep_first_and_last: bool | None = None,
    common: bool = False,
    workers: int | None = 1,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Compares predictions with the truth on every video that the truth has.

    Args:
        match: how to find the predicted masklet of a true object, see `score_video`; None: by their numbers.
        keep_first_and_last: see `score_video`.
        common: leave aside videos without predictions, instead of counting each as a failure.
        workers: processes, each with a video at a time; 1 does without, None is one per core but not more than pay off. (More
            than 1 need the usual ``if __name__ == "__main__"``.)
        on_video: told after every video how many are done, and of how many.

    Raises:
        ConfigError: there is nothing to compare, or numbers were to decide and those of automatic masklets cannot.
    """
    if match is None and predictions.automatic:
        raise ConfigError(
            f"{predictions.url} holds automatic masklets, whose numbers do not say which true object they are; "
            "expected --match hungarian, greedy, or ids (if they do)"
        )
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, expected at least 1")
    match = match or "ids"
    there, wanted = predictions.video_ids, truth.video_ids
    shared = sorted(set(there) & set(wanted))
    if not shared:
        raise ConfigError(f"no video is on both sides: {predictions.url} holds {_name(there)}; {truth.url} holds {_name(wanted)}")
    missing = [] if common else sorted(set(wanted) - set(there))
    failures = [Failure(video_id, f"no predictions for it: {predictions.url} holds {_name(there)}") for video_id in missing]
    keep = match != "ids" if keep_first_and_last is None else keep_first_and_last
    workers = workers or min(os.cpu_count() or 1, len(shared) // 2)
    videos = []
    for done, result in enumerate(each(Comparison(predictions, truth, match, keep), shared, workers), 1):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            videos.append(result)
        on_video(done, len(shared))
    return Evaluation(
        predictions=predictions.url,
        ground_truth=truth.url,
        match=match,
        keep_first_and_last=keep,
        videos=tuple(sorted(videos, key=lambda video: video.video_id)),
        failures=tuple(sorted(failures, key=lambda failure: failure.video_id)),
        left_aside=len(wanted) - len(shared) if common else 0,
        without_truth=len(there) - len(shared),
    )


def _name(video_ids: Sequence[str]) -> str:
    more = ", ..." if len(video_ids) > SHOWN else ""
    return f"{len(video_ids)} videos ({', '.join(video_ids[:SHOWN])}{more})" if video_ids else "no video"
