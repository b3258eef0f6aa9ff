"""The command line: `sam2-pipeline VERB ...`. Options and exit codes only; what a verb does is elsewhere.

Nothing heavy is imported before a verb needs it, so that ``--help`` is immediate.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sam2_pipeline import __version__, commands, commands_dataset, commands_live, commands_onnx
from sam2_pipeline.errors import CheckpointError, ConfigError, PipelineError
from sam2_pipeline.pipeline.interrupt import interruptible

OK, FAILED, BAD_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

EXIT_CODES = """exit status:
  0  all videos done
  1  the run itself failed; run it again to resume
  2  bad usage or configuration; nothing was written
  3  the run ended, but some videos failed (they are listed)
  130  interrupted; run it again to resume"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    # Threads of torch that wait for each other spin: on a shared machine that makes everything several times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    options.arguments = rest
    if options.arguments and options.verb is not commands.bench:  # which reads its own, so that torch can wait until then
        parser.error(f"unrecognized arguments: {' '.join(options.arguments)}")
    try:
        with interruptible():
            return options.verb(options)
    except (ConfigError, CheckpointError) as error:
        return _fail(options, BAD_USAGE, str(error))
    except PipelineError as error:
        return _fail(options, FAILED, str(error))
    except KeyboardInterrupt:
        return _fail(options, INTERRUPTED, "interrupted; what is committed stays, run the same command again to resume")
    except BrokenPipeError:
        # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sam2-pipeline",
        description="Masklet datasets with SAM 2: from videos to Parquet tables.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sam2-pipeline {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_run(verbs)
    _add_plan(verbs)
    _add_status(verbs)
    _add_retry(verbs)
    _add_evaluate(verbs)
    _add_export(verbs)
    _add_import(verbs)
    _add_report(verbs)
    _add_render(verbs)
    _add_serve(verbs)
    _add_live(verbs)
    _add_train(verbs)
    _add_export_onnx(verbs)
    _add_small_verbs(verbs)
    _add_demo(verbs)
    return parser


def _add_run(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "run",
        commands.run,
        "masklets for every video under INPUT, into tables under OUTPUT",
        """examples:
  sam2-pipeline run videos/ masklets/
  sam2-pipeline run s3://bucket/videos s3://bucket/masklets --ray auto --workers 8
  sam2-pipeline run clip.mp4 out/ --prompts prompts.csv --model sam2.1_hiera_large
  sam2-pipeline run videos/ out/ --fps 6 --set generate.points_per_side=16 --set 'generate.crop_grids=[]'

Run again, it resumes: committed work is not done again.

"""
        + EXIT_CODES,
    )
    _add_places(parser)
    _add_settings(parser)
    _add_engine(parser)


def _add_plan(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "plan",
        commands.plan,
        "what `run` would do: videos, hours, bytes, units, GPU-hours and cost; writes nothing",
        """The hours of one worker come from the first frames of a few videos, on this machine's device.

examples:
  sam2-pipeline plan s3://bucket/videos s3://bucket/masklets
  sam2-pipeline plan s3://bucket/videos s3://bucket/masklets --model sam2.1_hiera_large --gpu-hour-price 2.50""",
    )
    _add_places(parser)
    _add_settings(parser)
    parser.add_argument("--probe", metavar="N", type=int, default=3, help="time the model on N videos, 0: on none; default: 3")
    parser.add_argument("--gpu-hour-price", metavar="P", type=float, help="what an hour of one worker costs, in any currency")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_status(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "status",
        commands.status,
        "done, left, failed, throughput and ETA of a run, from its output alone",
        "example:\n  sam2-pipeline status s3://bucket/masklets --json",
    )
    _add_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_retry(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "retry",
        commands.retry,
        "take failed videos up again, with the settings of the run",
        "examples:\n  sam2-pipeline retry masklets/\n  sam2-pipeline retry masklets/ --prompts prompts.csv\n\n" + EXIT_CODES,
    )
    _add_output(parser)
    parser.add_argument("--checkpoint", metavar="URL", help="where the run's weights are now, if they have moved")
    parser.add_argument("--prompts", metavar="FILE", help="where the run's prompts are now, if they have moved")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps")
    _add_engine(parser)


def _add_evaluate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "evaluate",
        commands.evaluate,
        "J, F and J&F of masklets, or of a model that is prompted, against true masks",
        """PREDICTIONS and GROUND_TRUTH are each a run's output, an SA-V JSON file or a folder of them, the JSON file of COCO or
YouTube-VIS, or a folder of PNGs: VIDEO/00000.png with object numbers as pixel values (DAVIS, MOSE), or VIDEO/000/00000.png
(SA-V). Videos go by their names.

As in the SA-V and DAVIS evaluators, the score of a set is the mean over its objects, and the first and the last true frame
do not count.

With --protocol there are no predictions: a model makes them, prompted with true masks. GROUND_TRUTH may then be `synthetic`, too:
scenes that no training uses. Protocols, for every object from the first frame on which it is visible:
  mask, box         its mask, or the box around it, on that frame: semi-supervised segmentation
  click, clicks-N   one click in its middle, or N, each after the first in the middle of the largest error
  offline           clicks there, then again and again on the frame with the worst mask of the whole video
  online            one pass: clicks wherever the IoU falls below 0.75
  automatic         no prompt: recall of the objects on the first frame, spurious masklets and duplicates, and what became of
                    objects that are late (see --set discover.every_s=0.5)

With --set judge.enabled=true the masklets of prompts on first frames, and automatic ones, get verdicts as in a run. Said is how
well these tell a mean IoU of 0.75 or more (of automatic masklets: with the true object that they fit best).

examples:
  sam2-pipeline evaluate masklets/ DAVIS/Annotations/480p
  sam2-pipeline evaluate predicted_pngs/ sav_val/Annotations_6fps --json scores.json
  sam2-pipeline evaluate masklets/ sav_train/ --sav manual --match hungarian
  sam2-pipeline evaluate synthetic --protocol click --protocol clicks-3 --protocol mask --clips 50
  sam2-pipeline evaluate DAVIS/Annotations/480p --protocol offline --model sam2.1_hiera_tiny
  sam2-pipeline evaluate synthetic --protocol click --set judge.enabled=true --json verdicts.json

exit status: 0 all videos scored; 3 some could not be (they are listed); 2 nothing to compare; 1 a place cannot be read""",
        usage="%(prog)s PREDICTIONS GROUND_TRUTH [options]\n       %(prog)s GROUND_TRUTH --protocol NAME [options]",
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", help="path or fsspec URL; left out with --protocol")
    parser.add_argument(
        "ground_truth", metavar="GROUND_TRUTH", nargs="?", help="path or fsspec URL, or with --protocol: synthetic"
    )
    parser.add_argument("--keep-first-and-last", action="store_true", default=None, help="count the first and last true frames")
    parser.add_argument("--sav", choices=["manual", "auto"], help="which of SA-V's files, where GROUND_TRUTH has both")
    parser.add_argument("--workers", metavar="N", type=int, help="processes; default: one per core, but one for a GPU")
    parser.add_argument("--json", metavar="FILE", help="write everything, each object's scores too")
    parser.add_argument("--quiet", action="store_true", help="no table")
    _add_storage_option(parser)
    tables = parser.add_argument_group("with PREDICTIONS")
    tables.add_argument(
        "--match",
        choices=["ids", "hungarian", "greedy"],
        help="how to find an object's masklet: by its number (the default), or by mean IoU, best in sum or best first; "
        "by IoU all frames count, and there are recall and spurious masklets",
    )
    tables.add_argument("--common", action="store_true", help="leave aside videos that have no predictions")
    _add_protocols(parser.add_argument_group("with a model"))


def _add_protocols(group: Any) -> None:
    group.add_argument("--protocol", metavar="NAME", action="append", default=[], help="see below (repeatable)")
    _add_model(group)
    group.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting, as of generate, tracking or judge (repeatable)",
    )
    group.add_argument(
        "--clips", dest="num_clips", metavar="N", type=int, help="only N videos; default: all, or 50 synthetic ones"
    )
    group.add_argument(
        "--scene", metavar="KEY=VALUE", action="append", default=[], help="synthetic scenes: frames=48, size=[270,480]"
    )
    group.add_argument(
        "--videos", metavar="URL", help="where the videos are, as VIDEO.mp4 or VIDEO/, if not beside the true masks"
    )
    group.add_argument("--min-area", metavar="SHARE", type=float, help="objects are visible from this share of the picture on; "
                       "default: 0.001 for synthetic scenes, else 0")  # fmt: skip
    group.add_argument(
        "--clicks-per-frame", dest="clicks", metavar="N", type=int, default=3, help="offline and online; default: 3"
    )
    group.add_argument("--max-frames", dest="frames", metavar="N", type=int, default=8,
                       help="frames with clicks, of each object, offline and online; default: 8")  # fmt: skip


def _add_export(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "export",
        commands_dataset.export,
        "masklets in other formats: SA-V, COCO, YouTube-VIS, DAVIS, YOLO",
        """formats:
  sav     VIDEO_auto.json, VIDEO_manual.json (prompted masklets): RLE on every annotated frame, and SA-V's measures
  coco    annotations.json: masks on pictures; videos, tracks and track_id as in TAO
  ytvis   annotations.json: masklets
  davis   Annotations/Full-Resolution/VIDEO/00000.png: one object a pixel, the smallest on top; 254 objects a video at most
  yolo    labels/VIDEO/00000.txt: polygons, without numbers of objects; data.yaml

sav, coco and ytvis keep every mask; `sam2-pipeline import` reads all but yolo back.

examples:
  sam2-pipeline export masklets/ coco/ --format coco --frames
  sam2-pipeline export s3://bucket/masklets s3://bucket/sav --format sav

exit status: 0 all written; 3 some videos could not be (they are listed); 2 bad usage; 1 a place cannot be read or written""",
    )
    _add_output(parser)
    parser.add_argument("destination", metavar="DEST", help="path or fsspec URL of an empty or new folder")
    parser.add_argument("--format", required=True, choices=["sav", "coco", "ytvis", "davis", "yolo"])
    parser.add_argument("--frames", action="store_true", help="also the annotated frames as JPEG, or for sav the videos")
    parser.add_argument("--overwrite", action="store_true", help="DEST may hold something already")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_import(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "import",
        commands_dataset.import_,
        "annotations of others into tables: SA-V, DAVIS, COCO, YouTube-VIS",
        """SOURCE is a folder of SA-V's JSON files or one of them, a folder of PNGs as `evaluate` takes them, or the JSON file of
COCO or YouTube-VIS (or its folder). Run again, it continues.

examples:
  sam2-pipeline import sav_train/ masklets/
  sam2-pipeline import DAVIS/ masklets/ --format davis --fps 24
  sam2-pipeline import valid.json masklets/ --format ytvis --videos valid/JPEGImages

exit status: 0 all read; 3 some videos could not be (they are listed); 2 bad usage; 1 a place cannot be read or written""",
    )
    parser.add_argument("source", metavar="SOURCE", help="path or fsspec URL")
    _add_output(parser)
    parser.add_argument("--format", choices=["sav", "davis", "coco", "ytvis"], help="default: found out")
    parser.add_argument(
        "--sav", choices=["manual", "auto", "both"], default="both", help="which of SA-V's files of a video; default: both"
    )
    parser.add_argument(
        "--videos", metavar="URL", help="where the videos are, as VIDEO.mp4 or VIDEO/; default: as the format has it"
    )
    parser.add_argument("--fps", metavar="F", type=float, help="frames a second of the videos; default: as annotated, else 24")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_report(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "report",
        commands_dataset.report,
        "one HTML page about a dataset, and a dataset card",
        """The page stands by itself: totals, failures by reason, distributions, the best, worst and most doubtful masklets, and a
timeline of each video. It is written to OUTPUT/report.html, the card to OUTPUT/README.md.

examples:
  sam2-pipeline report masklets/
  sam2-pipeline report s3://bucket/masklets --page report.html --card card.md""",
    )
    _add_output(parser)
    parser.add_argument("--page", metavar="FILE", help="where the page goes; default: OUTPUT/report.html")
    parser.add_argument("--card", metavar="FILE", help="where the card goes; default: OUTPUT/README.md")
    parser.add_argument("--videos", dest="num_videos", metavar="N", type=int, default=24, help="timelines; default: 24")
    parser.add_argument("--no-pictures", action="store_true", help="leave the videos alone")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_render(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "render",
        commands_dataset.render,
        "videos with their masklets drawn on them",
        """Each masklet has a colour of its own and its number; prompts are marked. With --truth the true masks stand beside: the
same colour means a match, white outlines what was missed.

examples:
  sam2-pipeline render masklets/ clip.mp4 --video clip
  sam2-pipeline render masklets/ overlays/ --truth DAVIS/Annotations/480p""",
    )
    _add_output(parser)
    parser.add_argument("destination", metavar="DEST", help="an .mp4 for one video, else a folder; a path or fsspec URL")
    parser.add_argument("--video", metavar="ID", action="append", default=[], help="only this video (repeatable)")
    parser.add_argument("--masklet", metavar="N", type=int, action="append", help="only this masklet (repeatable)")
    parser.add_argument("--truth", metavar="URL", help="true masks, as `evaluate` takes them")
    parser.add_argument("--sav", choices=["manual", "auto"], help="which of SA-V's files, where --truth has both")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_serve(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "serve",
        commands_dataset.serve,
        "review and annotate in the browser",
        """TARGET is the OUTPUT of a run, to review its masklets, or videos as `run` takes them, to annotate them.

Review: masklets in order of doubt, accepted, rejected or marked for refinement with a key each; verdicts go to the table
OUTPUT/verdicts. Annotate: clicks, boxes and brushes make masks at once and are tracked through the video; masklets and the
prompts that made them go to the tables of --output, by default CLIP-masklets, or OUTPUT-annotations for the videos of a run.

Only this machine is answered, unless --host says otherwise; then a token is asked for, which the printed address holds
(SAM2_PIPELINE_TOKEN, if set).

examples:
  sam2-pipeline serve masklets/
  sam2-pipeline serve clip.mp4 --model sam2.1_hiera_tiny --open
  sam2-pipeline serve videos/ --output annotations/ --host 0.0.0.0 --port 8000""",
    )
    parser.add_argument("target", metavar="TARGET", help="OUTPUT of a run, a video, or a folder of videos; path or fsspec URL")
    parser.add_argument("--output", metavar="URL", help="where annotations go")
    parser.add_argument("--author", metavar="NAME", help="who reviews; default: the user's name on this machine")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", metavar="N", type=int, default=8765, help="default: 8765; 0 takes a free one")
    parser.add_argument(
        "--allow-host", metavar="NAME", action="append", default=[], help="a name that a proxy gives the server (repeatable)"
    )
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of tracking (repeatable)")
    _add_model(parser.add_argument_group("the model"))
    _add_storage_option(parser)


def _add_live(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "live",
        commands_live.live,
        "segment a stream while it runs: a camera, RTSP, HTTP, a pipe, a file",
        """SOURCE is a camera (0, /dev/video0), a network stream (rtsp://, http://, rtmp://, srt://, ...), a video file, or - for
standard input. Prompts are for its first frame; those of --prompts, for theirs (frames count from 0, dropped ones too; a
prompt for a dropped frame counts on the next).

--masks writes a line of JSON for each frame: frame_index, timestamp_s, latency_s, and objects with object_id, rle, bbox, area,
predicted_iou, object_score.

examples:
  sam2-pipeline live rtsp://camera/1 --point 320,240 --output overlay.mp4 --model sam2.1_hiera_tiny
  sam2-pipeline live clip.mp4 --box 40,30,200,180 --box 300,50,380,160 --masks - --quiet | jq .objects[].area
  ffmpeg -f v4l2 -i /dev/video0 -f matroska - | sam2-pipeline live - --when-slow drop --auto --masks masks.jsonl

exit status: 0 the stream ended; 130 Ctrl-C; 1 it cannot be opened, or broke off; 2 bad usage. What was written is whole.""",
    )
    parser.add_argument("source", metavar="SOURCE", help="see below")
    what = parser.add_argument_group("what to track")
    what.add_argument("--point", dest="marks", metavar="X,Y", action="append", type=commands_live.point, default=[],
                      help="an object, by a point on the first frame (repeatable)")  # fmt: skip
    what.add_argument("--box", dest="marks", metavar="X0,Y0,X1,Y1", action="append", type=commands_live.box, default=[],
                      help="an object, by a box on the first frame (repeatable)")  # fmt: skip
    what.add_argument("--prompts", metavar="FILE", help="a table of prompts, as `run` takes it")
    what.add_argument("--auto", action="store_true", help="find objects on the first frame")
    out = parser.add_argument_group("where masks go")
    out.add_argument("--output", metavar="FILE.mp4", help="the frames with their masks")
    out.add_argument("--masks", metavar="FILE", help="masks as JSON lines; - for standard output")
    out.add_argument("--quiet", action="store_true", help="no progress, no summary")
    pace = parser.add_argument_group("pace")
    pace.add_argument("--when-slow", choices=["drop", "wait"],
                      help="frames that come too fast are dropped, or wait; default: drop those of cameras")  # fmt: skip
    pace.add_argument("--queue", metavar="N", type=int, default=1, help="how many frames may wait; default: 1, the latest wins")
    pace.add_argument("--realtime", action="store_true", help="a file plays at its own pace")
    pace.add_argument("--reconnect", metavar="SECONDS", type=float, default=0.0,
                      help="open a network stream again when it breaks off, until so long no frame came")  # fmt: skip
    pace.add_argument("--max-frames", metavar="N", type=int, help="end after N segmented frames")
    pace.add_argument("--source-option", metavar="K=V", action="append", default=[],
                      help="passed to FFmpeg, such as video_size=1280x720 (repeatable)")  # fmt: skip
    model = parser.add_argument_group("model")
    _add_model(model)
    model.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of generate or tracking "
                       "(repeatable)")  # fmt: skip


def _add_train(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "train",
        commands.train,
        "train a model on synthetic scenes, SA-V or DAVIS-like folders, or on masklets",
        """Run again, it continues: whatever stopped it, it goes on from the last checkpoint. In the output folder: log.csv,
pictures/ of predictions, checkpoint.pt, and at the end weights.safetensors, for --checkpoint and load_model.

examples:
  sam2-pipeline train --config configs/train_synthetic.yaml --output training/
  sam2-pipeline train --output tuned/ --set data.kind=davis --set data.root=DAVIS --set model.name=sam2.1_hiera_tiny \\
      --set model.checkpoint=sam2.1_hiera_tiny.pt --set 'model.freeze=[image_encoder]' --set optim.lr=5e-6

exit status: 0 trained to the end; 1 stopped (no disk, the loss is no number); 2 bad settings or data; 130 interrupted""",
    )
    parser.add_argument("--config", metavar="FILE", help="settings in YAML; see configs/train_synthetic.yaml")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting (repeatable)")
    parser.add_argument("--output", metavar="DIR", help="where checkpoints, log and weights go; default: run.output")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_export_onnx(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "export-onnx",
        commands_onnx.export_onnx,
        "a model as ONNX files, for devices without PyTorch",
        """DEST receives image_encoder, mask_decoder, mask_prompt, memory_attention and memory_encoder. Numbers of pictures,
objects, prompts, points and memories may differ from call to call; the input size is fixed. Configuration, hash of the weights,
version and licence are in their metadata. `sam2_pipeline.onnx` runs them, pictures and videos, without PyTorch.

At the end both models are given the same prompts, and it is told how far their masks agree.

examples:
  sam2-pipeline export-onnx sam2.1_hiera_tiny exported/
  sam2-pipeline export-onnx trained/weights.safetensors exported/ --image-size 512
  sam2-pipeline export-onnx sam2_pipeline_small exported/ --checkpoint trained/weights.safetensors --precision int8

exit status: 0 exported; 2 bad usage, or weights that cannot be had""",
    )
    parser.add_argument("model", metavar="MODEL_OR_CHECKPOINT", help="a model's name, or a path or fsspec URL of weights")
    parser.add_argument("destination", metavar="DEST", help="a folder; files of an earlier export are replaced")
    parser.add_argument("--checkpoint", metavar="URL", help="weights of the named model: a path or fsspec URL")
    parser.add_argument("--image-size", metavar="N", type=int, help="side of the square that the model sees, a multiple of 32")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8"],
        default="fp32",
        help="of weights and arithmetic; int8: linear layers only, those of the mask decoder aside. Default: fp32",
    )
    parser.add_argument("--frames", metavar="N", type=int, default=8, help="compare on so many frames; default: 8, 0: do not")
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def _add_demo(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "demo",
        commands.demo,
        "make a few clips, run the whole pipeline on them, show tables, scores and pictures",
        """Needs no network: the model is the small one that comes with the package, unless --model or --checkpoint name another.

examples:
  sam2-pipeline demo
  sam2-pipeline demo /tmp/demo --model sam2.1_hiera_tiny""",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="where clips and tables go; default: a temporary folder")
    parser.add_argument("--model", metavar="NAME", help="see `sam2-pipeline models`")
    parser.add_argument("--checkpoint", metavar="URL", help="weights: a path or fsspec URL")
    _add_engine(parser)


def _add_compact(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "compact",
        commands_dataset.compact,
        "merge the parts of many units into few large files",
        """Each unit of a run writes a few megabytes; readers like files of some hundred. What is merged becomes visible by one
commit, so that `MaskletDataset` has every row once at any time. Not while a run writes to OUTPUT, and one at a time.
Interrupted, nothing is lost: run it again.

examples:
  sam2-pipeline compact masklets/
  sam2-pipeline compact s3://bucket/masklets --target-mb 512 --grace 600

exit status: 0 done, or nothing to do; 2 a run is at work there; 1 the output is damaged or cannot be written""",
    )
    _add_output(parser)
    parser.add_argument(
        "--target-mb", metavar="N", type=int, default=256, help="size of the files, half to twice that; default: 256"
    )
    parser.add_argument(
        "--grace", metavar="S", type=float, default=60.0, help="seconds until the old files go; default: 60, for their readers"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _add_small_verbs(verbs: Any) -> None:
    verify = _verb(
        verbs,
        "verify",
        commands.verify,
        "check every committed table against its commit: sizes, rows, schema, keys",
        "example:\n  sam2-pipeline verify masklets/",
    )
    _add_output(verify)
    _add_compact(verbs)
    _verb(verbs, "models", commands.models, "list the models", "example:\n  sam2-pipeline models")
    doctor = _verb(
        verbs,
        "doctor",
        commands.doctor,
        "is this machine fit to run?",
        "examples:\n  sam2-pipeline doctor\n  sam2-pipeline doctor --output s3://bucket/masklets",
    )
    doctor.add_argument("--output", metavar="OUTPUT", help="also check that results can be written there")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    _add_storage_option(doctor)
    _verb(
        verbs,
        "bench",
        commands.bench,
        "how fast this machine is",
        "example:\n  sam2-pipeline bench --quick --json bench.json",
        add_help=False,
    )


def _verb(
    verbs: Any, name: str, function: Callable[[argparse.Namespace], int], text: str, epilog: str, **more: Any
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )
    parser.set_defaults(verb=function)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="INPUT", help="video, folder, glob, fsspec URL, list of URLs (.txt .csv .parquet) or .tar"
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="path or fsspec URL of the tables")
    _add_storage_option(parser)


def _add_storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-option", metavar="K=V", action="append", default=[], help="passed to fsspec, never stored (repeatable)"
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument("--config", metavar="FILE", help="settings in YAML; see configs/")
    group.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting (repeatable)")
    _add_model(group)
    group.add_argument("--prompts", metavar="FILE", help="prompted masklets: a Parquet, CSV or JSONL table of prompts")
    group.add_argument(
        "--fps", metavar="F", type=float, help="write masks at F frames a second; tracking stays at the native rate"
    )
    group.add_argument("--max-videos", metavar="N", type=int, help="only the first N videos")


def _add_model(group: Any) -> None:
    group.add_argument("--model", metavar="NAME", help="see `sam2-pipeline models`")
    group.add_argument("--checkpoint", metavar="URL", help="weights: a path or fsspec URL")
    group.add_argument("--image-size", metavar="N", type=int, help="side of the square that the model sees, a multiple of 32")
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps; default: the best there is")
    group.add_argument("--dtype", metavar="TYPE", help="float32, bfloat16 or float16; default: bfloat16 on CUDA, else float32")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="local starts Ray here, auto or an address joins a cluster, off does without; default: "
        "local, or auto where RAY_ADDRESS is set",
    )
    group.add_argument("--workers", metavar="N", type=int, help="GPU (or CPU) workers; default: one per GPU, else one")
    style = group.add_mutually_exclusive_group()
    style.add_argument("--json-logs", action="store_true", help="log JSON lines")
    style.add_argument("--quiet", action="store_true", help="log failures only")


def _fail(options: argparse.Namespace, code: int, message: str) -> int:
    commands.reporter(options).say("error", f"sam2-pipeline: {' '.join(message.split())}", important=True, exit_status=code)
    return code
