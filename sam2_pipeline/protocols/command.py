"""`sam2-pipeline evaluate GROUND_TRUTH --protocol ...`: from options to figures."""

import argparse
import os

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation import show
from sam2_pipeline.pipeline.factory import ModelFactory
from sam2_pipeline.protocols import result
from sam2_pipeline.protocols.clips import SYNTHETIC, SyntheticClips, TrueClips, open_clips, scene_options
from sam2_pipeline.protocols.interactive import Effort
from sam2_pipeline.protocols.joined import JoinedClips
from sam2_pipeline.protocols.trial import Trial, play_all

SYNTHETIC_CLIPS = 50
SYNTHETIC_MIN_AREA = 0.001  # 8 x 8 pixels of a 256 x 256 picture; people do not annotate slivers


def evaluate_model(options: argparse.Namespace, config: JobConfig) -> result.TrialResult:
    """Plays the protocols and prints the figures.

    Raises:
        ConfigError: options that do not go together, or no ground truth.
        CheckpointError: no such model, or no weights.
    """
    synthetic = options.predictions == SYNTHETIC
    min_area = options.min_area if options.min_area is not None else SYNTHETIC_MIN_AREA if synthetic else 0.0
    clips = _clips(options, config)
    trial = Trial(
        clips,
        tuple(dict.fromkeys(options.protocol)),
        ModelFactory(config),
        Effort(options.clicks, options.frames),
        min_area,
        bool(options.keep_first_and_last),
    )
    workers = _workers(options.workers)
    facts = trial.factory.describe()  # what is wrong with the weights is found out before anything else
    with show.progress(options.quiet) as on_video:
        on_video(0, len(clips.video_ids))
        played = play_all(trial, workers, on_video)
    found = result.summarise(trial, facts.name, facts.weights_sha256, trial.factory.image_size(facts), played)
    if not options.quiet:
        result.show(found)
    return found


def _clips(options: argparse.Namespace, config: JobConfig) -> TrueClips:
    if options.num_clips is not None and options.num_clips < 1:
        raise ConfigError(f"--clips is {options.num_clips}, expected at least 1")
    if options.predictions == SYNTHETIC:
        count, scene = options.num_clips or SYNTHETIC_CLIPS, scene_options(options.scene)
        if options.shots == 1 and not options.dissolve:
            return SyntheticClips(count, scene)
        return JoinedClips(count, scene, options.shots, options.dissolve)
    if options.scene or options.shots != 1 or options.dissolve:
        raise ConfigError("--scene, --shots and --dissolve are for synthetic clips")
    return open_clips(
        options.predictions,
        config.storage_options_for(options.predictions),
        sav=options.sav,
        videos=options.videos,
        most=options.num_clips,
    )


def _workers(given: int | None) -> int:
    """As asked; else a process per core, or one where a GPU does the work."""
    if given is not None and given < 1:
        raise ConfigError(f"workers is {given}, expected at least 1")
    if given is not None:
        return given
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1
