"""Verbs on what a run wrote: other formats, pages, pictures, the browser."""

from typing import Any

from sam2_pipeline.cli.shared import add_model, add_output, add_storage_option, add_verb
from sam2_pipeline.commands import datasets


def add_export(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "export",
        datasets.export,
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
  sam2-pipeline export masklets/ sav/ --format sav --only accept
  sam2-pipeline export s3://bucket/masklets s3://bucket/sav --format sav

exit status: 0 all written; 3 some videos could not be (they are listed); 2 bad usage; 1 a place cannot be read or written""",
    )
    add_output(parser)
    parser.add_argument("destination", metavar="DEST", help="path or fsspec URL of an empty or new folder")
    parser.add_argument("--format", required=True, choices=["sav", "coco", "ytvis", "davis", "yolo"])
    parser.add_argument(
        "--only",
        metavar="VERDICT",
        action="append",
        choices=["accept", "refine", "reject"],
        default=[],
        help="masklets of this verdict, a person's if there is one, else the judge's (repeatable)",
    )
    parser.add_argument("--frames", action="store_true", help="also the annotated frames as JPEG, or for sav the videos")
    parser.add_argument("--overwrite", action="store_true", help="DEST may hold something already")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_import(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "import",
        datasets.import_,
        "annotations of others into tables: SA-V, DAVIS, COCO, YouTube-VIS",
        """SOURCE is a folder of SA-V's JSON files or one of them, a folder of PNGs as `evaluate` takes them, or the JSON file of
COCO or YouTube-VIS (or its folder). Run again, it continues.

examples:
  sam2-pipeline import sav_train/ masklets/
  sam2-pipeline import DAVIS/ masklets/ --format davis --fps 24
  sam2-pipeline import valid.json masklets/ --format ytvis --videos valid/JPEGImages

exit status: 0 all read; 3 some videos could not be (they are listed); 2 bad usage; 1 a place cannot be read or written""",
        resumes=True,
    )
    parser.add_argument("source", metavar="SOURCE", help="path or fsspec URL")
    add_output(parser)
    parser.add_argument("--format", choices=["sav", "davis", "coco", "ytvis"], help="default: found out")
    parser.add_argument(
        "--sav", choices=["manual", "auto", "both"], default="both", help="which of SA-V's files of a video; default: both"
    )
    parser.add_argument(
        "--videos", metavar="URL", help="where the videos are, as VIDEO.mp4 or VIDEO/; default: as the format has it"
    )
    parser.add_argument("--fps", metavar="F", type=float, help="frames a second of the videos; default: as annotated, else 24")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_report(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "report",
        datasets.report,
        "one HTML page about a dataset, and a dataset card",
        """The page stands by itself: totals, failures by reason, distributions, the best, worst and most doubtful masklets, and a
timeline of each video. It is written to OUTPUT/report.html, the card to OUTPUT/README.md.

examples:
  sam2-pipeline report masklets/
  sam2-pipeline report s3://bucket/masklets --page report.html --card card.md""",
    )
    add_output(parser)
    parser.add_argument("--page", metavar="FILE", help="where the page goes; default: OUTPUT/report.html")
    parser.add_argument("--card", metavar="FILE", help="where the card goes; default: OUTPUT/README.md")
    parser.add_argument("--videos", dest="num_videos", metavar="N", type=int, default=24, help="timelines; default: 24")
    parser.add_argument("--no-pictures", action="store_true", help="leave the videos alone")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_render(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "render",
        datasets.render,
        "videos with their masklets drawn on them",
        """Each masklet has a colour of its own and its number; prompts are marked. With --truth the true masks stand beside: the
same colour means a match, white outlines what was missed.

examples:
  sam2-pipeline render masklets/ clip.mp4 --video clip
  sam2-pipeline render masklets/ overlays/ --truth DAVIS/Annotations/480p""",
    )
    add_output(parser)
    parser.add_argument("destination", metavar="DEST", help="an .mp4 for one video, else a folder; a path or fsspec URL")
    parser.add_argument("--video", metavar="ID", action="append", default=[], help="only this video (repeatable)")
    parser.add_argument("--masklet", metavar="N", type=int, action="append", help="only this masklet (repeatable)")
    parser.add_argument("--truth", metavar="URL", help="true masks, as `evaluate` takes them")
    parser.add_argument("--sav", choices=["manual", "auto"], help="which of SA-V's files, where --truth has both")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_serve(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "serve",
        datasets.serve,
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
    add_model(parser.add_argument_group("the model"))
    add_storage_option(parser)
