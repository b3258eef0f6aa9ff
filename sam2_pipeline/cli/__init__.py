"""The command line: `sam2-pipeline VERB ...`. Options and exit codes only; what a verb does is elsewhere.

Nothing heavy is imported before a verb needs it, so that ``--help`` is immediate.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sam2_pipeline import __version__
from sam2_pipeline.cli import datasets, models, running
from sam2_pipeline.cli.shared import EXIT_CODES
from sam2_pipeline.commands.running import bench
from sam2_pipeline.commands.shared import reporter
from sam2_pipeline.errors import CheckpointError, ConfigError, PipelineError
from sam2_pipeline.pipeline.interrupt import interruptible

OK, FAILED, BAD_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


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
    if options.arguments and options.verb is not bench:  # which reads its own, so that torch can wait until then
        parser.error(f"unrecognized arguments: {' '.join(options.arguments)}")
    try:
        with interruptible():
            return options.verb(options)
    except (ConfigError, CheckpointError) as error:
        return _fail(options, BAD_USAGE, str(error))
    except PipelineError as error:
        return _fail(options, FAILED, str(error))
    except KeyboardInterrupt:
        advice = "; what is committed stays, run the same command again to resume" if options.resumes else ""
        return _fail(options, INTERRUPTED, f"interrupted{advice}")
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
    running.add_run(verbs)
    running.add_plan(verbs)
    running.add_status(verbs)
    running.add_retry(verbs)
    models.add_evaluate(verbs)
    datasets.add_export(verbs)
    datasets.add_import(verbs)
    datasets.add_report(verbs)
    datasets.add_render(verbs)
    datasets.add_serve(verbs)
    models.add_live(verbs)
    models.add_train(verbs)
    models.add_export_onnx(verbs)
    running.add_small_verbs(verbs)
    running.add_demo(verbs)
    return parser


def _fail(options: argparse.Namespace, code: int, message: str) -> int:
    reporter(options).say("error", f"sam2-pipeline: {' '.join(message.split())}", important=True, exit_status=code)
    return code
