"""Distributions as SVG, to be put into a page: without fonts or colours of their own, so that they follow the page's."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sam2_pipeline.report.facts import Facts

# What matplotlib draws in these colours gets the page's, light or dark.
_INK, _FAINT, _BAR = "#010203", "#040506", "#070809"
_THEME = {_INK: "var(--muted)", _FAINT: "var(--line)", _BAR: "var(--accent)"}
_BINS = 24
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif", "font.size": 9}


@dataclass(frozen=True)
class Distribution:
    """A histogram and what it says: title, one line to read it by, SVG."""

    title: str
    hint: str
    svg: str


def distributions(facts: Facts) -> list[Distribution]:
    """Those that the dataset has values for."""
    seconds = facts.column("visible_frame_count") / np.maximum(facts.column("frame_count"), 1)
    kinds: list[tuple[str, str, np.ndarray, bool, str]] = [
        ("Masklets a video", "videos by how many masklets they have", _counts(facts), True, "g"),
        (
            "Size",
            "masklets by the share of the picture they cover, mean over visible frames",
            facts.column("size_rel"),
            False,
            "%",
        ),
        ("Visible", "masklets by the share of the annotated frames that show them", seconds, False, "%"),
        ("Visibility changes", "masklets by how often they vanish or come back", facts.column("visibility_changes"), True, "g"),
        ("Predicted IoU", "masklets by the model's own estimate, mean", facts.column("predicted_iou_mean"), False, "g"),
        ("Stability", "masklets by their masks' stability, mean", facts.column("stability_score_mean"), False, "g"),
        (
            "Steadiness",
            "masklets by their masks' IoU with the ones before, mean",
            facts.column("temporal_iou_mean"),
            False,
            "g",
        ),
    ]
    return [
        Distribution(title, hint, histogram(values, whole=whole, percent=unit == "%"))
        for title, hint, values, whole, unit in kinds
        if len(values)
    ]


def histogram(values: np.ndarray, *, whole: bool = False, percent: bool = False) -> str:
    """Values as bars; ``whole`` numbers get a bar each as long as they are few."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(3.4, 1.9), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.hist(values, bins=_edges(values, whole).tolist(), color=_BAR, rwidth=0.92)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_FAINT)
        axes.grid(axis="y", color=_FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=_INK)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
        if percent:
            axes.xaxis.set_major_formatter(FuncFormatter(_percent(float(values.max()))))
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return _themed(file.getvalue())


def _counts(facts: Facts) -> np.ndarray:
    return facts.done["masklet_count"].drop_null().to_numpy().astype(float)


def _edges(values: np.ndarray, whole: bool) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / _BINS)))
        return np.arange(low - 0.5, high + step, step)
    return np.linspace(low, high if high > low else low + 1e-3, _BINS + 1)


def _percent(largest: float) -> Callable[[float, int], str]:
    digits = 0 if largest > 0.05 else 1
    return lambda value, _: f"{value:.{digits}%}"


def _themed(svg: str) -> str:
    """Only the picture itself, in the page's colours and size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%" role="img"', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, variable)
    return svg
