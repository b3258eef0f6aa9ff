"""`sam2-pipeline live SOURCE`: from options to a stream that is segmented, shown and written until it ends."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.io.live import LiveSource, open_stream
from sam2_pipeline.io.prompts_table import check_prompts, read_prompts
from sam2_pipeline.live.outputs import Outputs
from sam2_pipeline.live.show import Ticker
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.pipeline.factory import ModelFactory
from sam2_pipeline.segment.live import LiveOptions, LiveStream
from sam2_pipeline.segment.masklet_generator import MaskletGenerator
from sam2_pipeline.segment.options import TrackingOptions
from sam2_pipeline.segment.video import VideoSegmenter

_USUAL_FPS = 30.0


def run(options: argparse.Namespace, config: JobConfig) -> None:
    """Segments the source until it ends, ``--max-frames`` are done, or Ctrl-C; what was written is whole in each case.

    Raises:
        ConfigError: options that do not go together, prompts that do not fit.
        CheckpointError: no such model, or no weights.
        VideoError: the source cannot be opened, or breaks off.
        StorageError: an output cannot be written.
    """
    how = LiveOptions(options.when_slow, options.queue)
    if not (options.marks or options.prompts or options.auto):
        raise ConfigError("nothing to track: expected --point, --box, --prompts or --auto")
    if options.max_frames is not None and options.max_frames < 1:
        raise ConfigError(f"--max-frames is {options.max_frames}, expected at least 1")
    if options.output is not None and not options.output.endswith(".mp4"):
        raise ConfigError(f"--output is {options.output}, expected a name that ends in .mp4")
    rows = read_prompts(options.prompts) if options.prompts else []
    generator, _ = ModelFactory(config, offline=False).build()
    assert isinstance(generator, MaskletGenerator)
    tracking = replace(generator.tracking, history_frames=TrackingOptions().history_frames)
    ffmpeg = dict(_pair(text) for text in options.source_option)
    source = open_stream(options.source, options=ffmpeg, realtime=options.realtime, reconnect_s=options.reconnect)
    with source, VideoSegmenter(generator.model, tracking).stream(source, how) as stream:
        faults = check_prompts(rows, {row.video_id: (source.width, source.height, None) for row in rows if row.video_id})
        if faults:
            raise ConfigError(f"{options.prompts}: {'; '.join(faults)}")
        for prompt in [*marked(options.marks), *(row.prompt for row in rows if row.prompt is not None)]:
            stream.prompt(prompt)
        if options.auto:
            stream.discover(generator.generate_options)
        with Outputs(options.output, options.masks, source.fps or _USUAL_FPS, options.view) as outputs:
            if outputs.view is not None and not options.quiet:
                print(f"to watch it: {outputs.view.address}", file=sys.stderr, flush=True)
            _segment(stream, source, outputs, Ticker(options.quiet), options.max_frames)


def _segment(stream: LiveStream, source: LiveSource, outputs: Outputs, ticker: Ticker, most: int | None) -> None:
    why = "interrupted"
    try:
        for result in itertools.islice(stream, most):
            outputs.write(result)
            if ticker.due():
                ticker.show(stream.statistics(), result.latency_s)
        why = "done" if most is not None and stream.statistics().segmented >= most else "the stream ended"
    except BaseException as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
        raise
    finally:
        if source.damaged:
            why += f" ({source.damaged} damaged packets left out)"
        if source.connections > 1:
            why += f" ({source.connections} connections)"
        ticker.end(stream.statistics(), why)


def marked(marks: Sequence[tuple[str, tuple[float, ...]]]) -> list[Prompt]:
    """Each point or box is an object of its own on the first frame; numbers count from 1."""
    prompts = []
    for number, (kind, numbers) in enumerate(marks, 1):
        values = np.array(numbers, np.float32)
        if kind == "box":
            prompts.append(Prompt(number, 0, box_xyxy=values))
        else:
            prompts.append(Prompt(number, 0, values[None], np.ones(1, np.int8)))
    return prompts


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--source-option is {text!r}, expected key=value, for example framerate=30")
    return key, value
