"""What the verbs about finished datasets do: `export`, `import`, `report`, `render`, `serve`."""

import argparse

from sam2_pipeline.commands.shared import SHOWN_FAILURES, list_failures, model_settings, open_storage, reporter, storage_options
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, VideoError


def export(options: argparse.Namespace) -> int:
    from sam2_pipeline.evaluation.show import progress
    from sam2_pipeline.formats.exporting import export
    from sam2_pipeline.io.dataset import MaskletDataset
    from sam2_pipeline.io.storage import Storage

    config = JobConfig(storage_options=storage_options(options))
    dataset = MaskletDataset(options.output, config.storage_options_for(options.output))
    destination = Storage(options.destination, config.storage_options_for(options.destination))
    with progress(options.quiet) as on_video:
        done = export(
            dataset,
            destination,
            options.format,
            only=tuple(options.only),
            frames=options.frames,
            overwrite=options.overwrite,
            video_options=config.storage_options_for,
            on_video=on_video,
        )
    if not options.quiet:
        failed = f"; {done.left_out} videos that the run failed on are left out" if done.left_out else ""
        print(f"{done.videos} videos, {done.masklets} masklets: {destination.url}{failed}")
        for note in done.notes:
            print(f"note: {note}")
    for video_id, reason in done.failures[:SHOWN_FAILURES]:
        reporter(options).say("failed", f"not exported: {video_id}: {reason}", important=True)
    return 3 if done.failures else 0


def import_(options: argparse.Namespace) -> int:
    from sam2_pipeline.evaluation.show import progress
    from sam2_pipeline.formats.sources import open_masks
    from sam2_pipeline.formats.tables import TableMasks
    from sam2_pipeline.formats.videos import videos_below
    from sam2_pipeline.pipeline.importing import import_masks

    config = JobConfig(storage_options=storage_options(options))
    given = config.storage_options_for(options.source)
    source = open_masks(options.source, given, sav=options.sav, format=options.format)
    if isinstance(source, TableMasks):
        raise ConfigError(f"{source.url} holds tables already")
    storage, _ = open_storage(options)
    places = None if options.videos is None else videos_below(options.videos, config.storage_options_for(options.videos))
    with progress(options.quiet) as on_video:
        summary = import_masks(source, storage, fps=options.fps, places=places, on_video=on_video)
    if not options.quiet:
        print(f"{summary.videos} videos: {summary.ok} ok, {summary.failed} failed; {summary.masklets} masklets: {storage.url}")
        list_failures(summary.failures)
    return summary.exit_code


def report(options: argparse.Namespace) -> int:
    from sam2_pipeline.evaluation.show import progress
    from sam2_pipeline.io.dataset import MaskletDataset
    from sam2_pipeline.io.storage import Storage
    from sam2_pipeline.report.card import card
    from sam2_pipeline.report.facts import gather
    from sam2_pipeline.report.page import Shown, page

    config = JobConfig(storage_options=storage_options(options))
    storage, given = open_storage(options)
    dataset = MaskletDataset(storage.url, given)
    facts = gather(dataset)
    with progress(options.quiet) as on_video:
        shown = Shown(options.num_videos, not options.no_pictures)
        html = page(dataset, facts, shown, video_options=config.storage_options_for, on_video=on_video)
    for given_place, name, text in ((options.page, "report.html", html), (options.card, "README.md", card(facts))):
        folder, _, base = (given_place or f"{storage.url}/{name}").rpartition("/")
        place = Storage(folder or ".", config.storage_options_for(folder or "."))
        place.write_bytes(base, text.encode())
        if not options.quiet:
            print(place.locate(base))
    return 0


def render(options: argparse.Namespace) -> int:
    from sam2_pipeline.evaluation.show import progress
    from sam2_pipeline.formats.sources import open_masks
    from sam2_pipeline.io.dataset import MaskletDataset
    from sam2_pipeline.io.storage import Storage
    from sam2_pipeline.report.overlay_video import Renderer, pick

    config = JobConfig(storage_options=storage_options(options))
    dataset = MaskletDataset(options.output, config.storage_options_for(options.output))
    truth = options.truth and open_masks(options.truth, config.storage_options_for(options.truth), sav=options.sav)
    chosen = None if options.masklet is None else frozenset(options.masklet)
    renderer = Renderer(dataset, truth, chosen, config.storage_options_for)
    video_ids = pick(dataset, options.video)
    folder, name = options.destination, None
    if folder.endswith(".mp4"):
        folder, _, name = Storage(folder).url.rpartition("/")
        if len(video_ids) > 1:
            raise ConfigError(f"{options.destination} is for one video, there are {len(video_ids)}: choose by --video")
    destination = Storage(folder or "/", config.storage_options_for(folder))
    failed = 0
    with progress(options.quiet) as on_video:
        for done, video_id in enumerate(video_ids, 1):
            place = name or f"{video_id}.mp4"
            try:
                count = renderer.render(video_id, destination, place)
            except VideoError as error:
                failed += 1
                reporter(options).say("failed", f"not rendered: {video_id}: {error}", important=True)
            else:
                if not options.quiet:
                    print(f"{destination.locate(place)}  ({count} frames)")
            on_video(done, len(video_ids))
    return 3 if failed else 0


def serve(options: argparse.Namespace) -> int:
    try:
        from sam2_pipeline.serve.serving import Options, default_author, open_site, serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'sam2-pipeline[serve]'") from error

    config = JobConfig.load(None, options.set, model_settings(options), storage_options(options))
    site = open_site(options.target, options.output, config, options.author or default_author())
    serve(site, Options(options.host, options.port, options.allow_host, open_browser=options.open))
    return 0
