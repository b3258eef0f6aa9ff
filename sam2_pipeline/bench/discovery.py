"""What discovery and verdicts cost: automatic masklets of one clip with all of it off, with each on, and made by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from sam2_pipeline.bench import scene
from sam2_pipeline.bench.measure import HEIGHT, WIDTH, Result
from sam2_pipeline.masklets.identity import IdentityOptions
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.automatic import propose_masks
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.cuts import CutOptions
from sam2_pipeline.segment.discover import DiscoverOptions
from sam2_pipeline.segment.generate_options import GenerateOptions
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.segment.judge import JudgeOptions
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.video import VideoSegmenter

FPS = 24
SEARCHES = 2  # keyframes after the first frame
TURNS = 2
_OFF = "off"


def data_engine(model: Sam2, frames: int, points_per_side: int) -> Result:
    """Milliseconds a frame of the automatic masklets of one clip: ``bare``, proposals on the first frame that are then tracked;
    ``off``, the generator as published; ``cuts``, ``discovery`` (with identity) and ``verdicts``, each on alone. All in turns."""
    source = ArrayFrames(scene.moving_discs(frames, HEIGHT, WIDTH), fps=FPS)
    generate = GenerateOptions.for_model(model.config, points_per_side=points_per_side, crop_grids=())
    search = DiscoverOptions(every_s=frames / (SEARCHES + 1) / FPS)
    generators = {
        _OFF: MaskletGenerator(model, generate),
        "cuts": MaskletGenerator(model, generate, cuts=CutOptions()),
        "discovery": MaskletGenerator(model, generate, discover=search, identity=IdentityOptions()),
        "verdicts": MaskletGenerator(model, generate, judge=JudgeOptions()),
    }
    works: dict[str, Callable[[], list[list[Rle]]]] = {"bare": lambda: _bare(model, source, generate)}
    works |= {name: partial(_generated, one, source) for name, one in generators.items()}
    result = Result("automatic masklets", {name: [] for name in works}, {name: [] for name in works})
    found: dict[str, list[list[Rle]]] = {}
    for turn in range(TURNS):
        for name in list(works) if turn % 2 else reversed(works):
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = works[name]()
            result.wall_ms[name].append((time.perf_counter() - wall) * 1e3 / frames)
            result.cpu_ms[name].append((time.process_time() - cpu) * 1e3 / frames)
    result.agrees = found["bare"] == found[_OFF] == found["verdicts"]
    searched = f"{frames} frames, {points_per_side}x{points_per_side} points, {SEARCHES} more searches"
    result.agreement = f"{searched}; {len(found[_OFF])} masklets, {len(found['discovery'])} with discovery; {TURNS} turns"
    return result


def describe_data_engine(result: Result) -> Iterator[str]:
    """A line for people: times a frame, and how many times as long as with all of it off, by CPU time."""
    off = np.array(result.cpu_ms[_OFF])
    times = [
        f"{name} {float(np.median(cpu)):.0f} ms ({float(np.median(np.array(cpu) / off)):.2f})"
        for name, cpu in result.cpu_ms.items()
    ]
    yield f"{result.task}, CPU time a frame (times as long as off): {', '.join(times)}; {result.agreement}"


def _generated(generator: MaskletGenerator, source: ArrayFrames) -> list[list[Rle]]:
    return [[frame.rle for frame in masklet.frames] for masklet in generator.generate(source)]


def _bare(model: Sam2, source: ArrayFrames, generate: GenerateOptions) -> list[list[Rle]]:
    """By hand what the generator does when nothing is on."""
    options = TrackingOptions(history_frames=0)
    session = VideoSegmenter(model, options).open(source)
    [first] = source.frames(0, 1)
    proposals = [one for one in propose_masks(model, first.image, generate, options.decoding) if one.rle.area]
    masks: list[list[Rle]] = [[] for _ in proposals]
    for start in range(0, len(proposals), options.row_batch):
        drawn = np.stack([decode(one.rle) for one in proposals[start : start + options.row_batch]])
        session.add_masks(0, range(start, start + len(drawn)), session.engine.mask_prompts(drawn))
    for frame in session.frames.images(0) if proposals else ():  # one by one, as the generator takes them
        for number, mask in collect_frame(session.step(frame)).masks.items():
            masks[number].append(mask.rle)
    return masks
