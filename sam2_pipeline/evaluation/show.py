"""An evaluation on a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from sam2_pipeline.evaluation.result import RECALL_AT, Evaluation, mean, recall
from sam2_pipeline.evaluation.scores import VideoScore

SHOWN = 30  # videos with a row of their own, the worst ones
UNSEEN_WIDTH = 120  # characters of a line where there is no terminal


def show(found: Evaluation) -> None:
    """Prints it."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNSEEN_WIDTH)
    console.print(table(found))
    for note in notes(found):
        console.print(note, markup=False, soft_wrap=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar, where someone may watch it; told how many videos are done, and of how many."""
    hidden = quiet or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task("videos", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(found: Evaluation) -> Table:
    """A row a video and one of all objects; in percent, as such figures are published."""
    worst = sorted(found.videos, key=lambda video: mean(one.jf for one in video.objects) or 0.0)[:SHOWN]
    shown = Table(
        box=box.SIMPLE_HEAD, caption=f"the {SHOWN} worst of {len(found.videos)} videos" if len(found.videos) > SHOWN else None
    )
    shown.add_column("video", overflow="fold")
    headings = ["objects", "J&F", "J", "F"]
    if found.match != "ids":
        headings += [*(f"recall {at}" for at in RECALL_AT), "masklets", "spurious"]
    for heading in headings:
        shown.add_column(heading, justify="right")
    for video in sorted(worst, key=lambda video: video.video_id):
        shown.add_row(Text(video.video_id), *_cells([video], found.match != "ids"))
    shown.add_section()
    shown.add_row("all", *_cells(found.videos, found.match != "ids"), style="bold")
    return shown


def notes(found: Evaluation) -> Iterator[str]:
    """What one should know about the figures."""
    ends = "all true frames count" if found.keep_first_and_last else "first and last true frames do not count"
    yield f"{len(found.objects)} objects of {len(found.videos)} videos; {ends}"
    if found.match != "ids":
        share, first = found.spurious_per_object, [found.recall(at, visible_at_first=True) for at in RECALL_AT]
        yield f"spurious masklets per true object: {'-' if share is None else f'{share:.2f}'}"
        yield "recall of objects visible at the start: " + ", ".join(f"{percent(r)} at {at}" for r, at in zip(first, RECALL_AT))
    invisible = sum(video.left_aside for video in found.videos)
    for number, what in [
        (found.unpredicted, "true objects have no predicted masklet and score as empty"),
        (invisible, "true objects are visible on no frame that counts and are left aside"),
        (found.left_aside, "true videos have no predictions and are left aside"),
        (found.without_truth, "predicted videos have no ground truth and are left aside"),
    ]:
        if number:
            yield f"{number} {what}"


def _cells(videos: Sequence[VideoScore], matched: bool) -> list[str]:
    objects = [one for video in videos for one in video.objects]
    cells = [str(len(objects)), *(percent(mean(getattr(one, name) for one in objects)) for name in ("jf", "j", "f"))]
    if matched:
        counts = [sum(video.predicted for video in videos), sum(video.spurious or 0 for video in videos)]
        cells += [*(percent(recall(objects, at)) for at in RECALL_AT), *map(str, counts)]
    return cells


def percent(value: float | None) -> str:
    """As scores are published: 0.753 is 75.3."""
    return "-" if value is None else f"{100 * value:.1f}"
