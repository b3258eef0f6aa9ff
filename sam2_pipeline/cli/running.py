"""Verbs that run, and look after runs and this machine."""

from typing import Any

from sam2_pipeline.cli.shared import EXIT_CODES, add_engine, add_output, add_places, add_settings, add_storage_option, add_verb
from sam2_pipeline.commands import running


def add_run(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "run",
        running.run,
        "masklets for every video under INPUT, into tables under OUTPUT",
        """examples:
  sam2-pipeline run videos/ masklets/
  sam2-pipeline run s3://bucket/videos s3://bucket/masklets --ray auto --workers 8
  sam2-pipeline run clip.mp4 out/ --prompts prompts.csv --model sam2.1_hiera_large
  sam2-pipeline run videos/ out/ --fps 6 --set generate.points_per_side=16 --set 'generate.crop_grids=[]'

Run again, it resumes: committed work is not done again.

"""
        + EXIT_CODES,
        resumes=True,
    )
    add_places(parser)
    add_settings(parser)
    add_engine(parser)


def add_plan(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "plan",
        running.plan,
        "what `run` would do: videos, hours, bytes, units, GPU-hours and cost; writes nothing",
        """The hours of one worker come from the first frames of a few videos, on this machine's device.

examples:
  sam2-pipeline plan s3://bucket/videos s3://bucket/masklets
  sam2-pipeline plan s3://bucket/videos s3://bucket/masklets --model sam2.1_hiera_large --gpu-hour-price 2.50""",
    )
    add_places(parser)
    add_settings(parser)
    parser.add_argument("--probe", metavar="N", type=int, default=3, help="time the model on N videos, 0: on none; default: 3")
    parser.add_argument("--gpu-hour-price", metavar="P", type=float, help="what an hour of one worker costs, in any currency")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_status(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "status",
        running.status,
        "done, left, failed, throughput and ETA of a run, from its output alone",
        "example:\n  sam2-pipeline status s3://bucket/masklets --json",
    )
    add_output(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_retry(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "retry",
        running.retry,
        "take failed videos up again, with the settings of the run",
        "examples:\n  sam2-pipeline retry masklets/\n  sam2-pipeline retry masklets/ --prompts prompts.csv\n\n" + EXIT_CODES,
        resumes=True,
    )
    add_output(parser)
    parser.add_argument("--checkpoint", metavar="URL", help="where the run's weights are now, if they have moved")
    parser.add_argument("--prompts", metavar="FILE", help="where the run's prompts are now, if they have moved")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps")
    add_engine(parser)


def add_compact(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "compact",
        running.compact,
        "merge the parts of many units into few large files",
        """Each unit of a run writes a few megabytes; readers like files of some hundred. What is merged becomes visible by one
commit, so that `MaskletDataset` has every row once at any time. Not while a run writes to OUTPUT, and one at a time.
Interrupted, nothing is lost: run it again.

examples:
  sam2-pipeline compact masklets/
  sam2-pipeline compact s3://bucket/masklets --target-mb 512 --grace 600

exit status: 0 done, or nothing to do; 2 a run is at work there; 1 the output is damaged or cannot be written""",
        resumes=True,
    )
    add_output(parser)
    parser.add_argument(
        "--target-mb", metavar="N", type=int, default=256, help="size of the files, half to twice that; default: 256"
    )
    parser.add_argument(
        "--grace", metavar="S", type=float, default=60.0, help="seconds until the old files go; default: 60, for their readers"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_demo(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "demo",
        running.demo,
        "make a few clips, run the whole pipeline on them, show tables, scores and pictures",
        """Needs no network: the model is the small one that comes with the package, unless --model or --checkpoint name another.

examples:
  sam2-pipeline demo
  sam2-pipeline demo /tmp/demo --model sam2.1_hiera_tiny""",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="where clips and tables go; default: a temporary folder")
    parser.add_argument("--model", metavar="NAME", help="see `sam2-pipeline models`")
    parser.add_argument("--checkpoint", metavar="URL", help="weights: a path or fsspec URL")
    add_engine(parser)


def add_small_verbs(verbs: Any) -> None:
    verify = add_verb(
        verbs,
        "verify",
        running.verify,
        "check every committed table against its commit: sizes, rows, schema, keys",
        "example:\n  sam2-pipeline verify masklets/",
    )
    add_output(verify)
    add_compact(verbs)
    add_verb(verbs, "models", running.models, "list the models", "example:\n  sam2-pipeline models")
    doctor = add_verb(
        verbs,
        "doctor",
        running.doctor,
        "is this machine fit to run?",
        "examples:\n  sam2-pipeline doctor\n  sam2-pipeline doctor --output s3://bucket/masklets",
    )
    doctor.add_argument("--output", metavar="OUTPUT", help="also check that results can be written there")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    add_storage_option(doctor)
    add_verb(
        verbs,
        "bench",
        running.bench,
        "how fast this machine is",
        "example:\n  sam2-pipeline bench --quick --json bench.json",
        add_help=False,
    )
