"""Arguments that several verbs take."""

import argparse
from collections.abc import Callable
from typing import Any

EXIT_CODES = """exit status:
  0  all videos done
  1  the run itself failed; run it again to resume
  2  bad usage or configuration; nothing was written
  3  the run ended, but some videos failed (they are listed)
  130  interrupted; run it again to resume"""


def add_verb(
    verbs: Any,
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    epilog: str,
    *,
    resumes: bool = False,
    **more: Any,
) -> argparse.ArgumentParser:
    """A verb that calls ``function``. ``resumes``: the same command, interrupted and given again, goes on where it was."""
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )
    parser.set_defaults(verb=function, resumes=resumes)
    return parser


def add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="INPUT", help="video, folder, glob, fsspec URL, list of URLs (.txt .csv .parquet) or .tar"
    )
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="path or fsspec URL of the tables")
    add_storage_option(parser)


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-option", metavar="K=V", action="append", default=[], help="passed to fsspec, never stored (repeatable)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument("--config", metavar="FILE", help="settings in YAML; see configs/")
    group.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting (repeatable)")
    add_model(group)
    group.add_argument("--prompts", metavar="FILE", help="prompted masklets: a Parquet, CSV or JSONL table of prompts")
    group.add_argument(
        "--fps", metavar="F", type=float, help="write masks at F frames a second; tracking stays at the native rate"
    )
    group.add_argument("--max-videos", metavar="N", type=int, help="only the first N videos")


def add_model(group: Any) -> None:
    group.add_argument("--model", metavar="NAME", help="see `sam2-pipeline models`")
    group.add_argument("--checkpoint", metavar="URL", help="weights: a path or fsspec URL")
    group.add_argument("--image-size", metavar="N", type=int, help="side of the square that the model sees, a multiple of 32")
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps; default: the best there is")
    group.add_argument("--dtype", metavar="TYPE", help="float32, bfloat16 or float16; default: bfloat16 on CUDA, else float32")


def add_engine(parser: argparse.ArgumentParser) -> None:
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
