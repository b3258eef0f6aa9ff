"""One HTML page about a dataset that needs nothing but itself: no scripts, no network."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.masklets.verdict import VERDICTS
from sam2_pipeline.report.card import statistics
from sam2_pipeline.report.facts import Facts
from sam2_pipeline.report.pictures import Artist
from sam2_pipeline.report.plots import distributions
from sam2_pipeline.report.sheets import choose
from sam2_pipeline.report.timelines import timeline

_SHOWN_FAILURES = 12  # reasons; and video ids of each
_PER_SHEET = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """How much to show. ``pictures``: open the videos."""

    videos: int = 24
    pictures: bool = True


def page(
    dataset: MaskletDataset,
    facts: Facts,
    shown: Shown,
    *,
    video_options: Callable[[str], Mapping[str, Any]] = lambda uri: {},
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """The page as HTML.

    Args:
        video_options: fsspec's options for the address of a video.
        on_video: told after every video on the page how many are done, and of how many.
    """
    artist = Artist(dataset, video_options)
    sheets = choose(facts, _PER_SHEET)
    pictures = artist.masklets(pick for sheet in sheets for pick in sheet.picks) if shown.pictures else {}
    with_masklets = facts.done.filter(pc.field("masklet_count") > 0)["video_id"].to_pylist()
    timelines = []
    for done, video_id in enumerate(with_masklets[: shown.videos], 1):
        line = timeline(dataset, video_id)
        timelines.append((line, artist.video(video_id, line.middle) if shown.pictures else None))
        on_video(done, len(with_masklets[: shown.videos]))
    environment = Environment(
        loader=PackageLoader("sam2_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        facts=facts,
        tiles=_tiles(facts),
        figures=statistics(facts),
        verdicts=_verdicts(facts),
        failures=facts.failures[:_SHOWN_FAILURES],
        more_failures=len(facts.failures) - _SHOWN_FAILURES,
        shown_ids=_SHOWN_FAILURES,
        plots=[(plot.title, plot.hint, Markup(plot.svg)) for plot in distributions(facts)],
        sheets=sheets,
        pictures=pictures,
        timelines=timelines,
        more_videos=len(with_masklets) - len(timelines),
        unreadable=artist.unreadable,
    )


def _verdicts(facts: Facts) -> list[tuple[str, int, float, list[tuple[str, int]]]]:
    """Of every verdict, where any was given: masklets, their share of those judged, and the reasons, the most frequent first."""
    total = sum(counts[""] for counts in facts.verdicts.values())
    given = [(verdict, facts.verdicts.get(verdict, Counter())) for verdict in VERDICTS if total]
    return [
        (verdict, counts[""], counts[""] / total, [(reason, n) for reason, n in counts.most_common() if reason])
        for verdict, counts in given
    ]


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    failed = facts.videos.num_rows - facts.done.num_rows
    names = ("hours of video", "masklets", "masks", "masklets a video, mean", "disappearance rate")
    figures = statistics(facts)
    tiles = [(name, figures[name].split(" (")[0]) for name in names]
    return [("videos done", f"{facts.done.num_rows:,}"), ("failed", f"{failed:,}"), *tiles]
