"""A hook of MkDocs: the reference pages that the code itself tells. Tables from their schema, commands from their parsers,
settings from their sections."""

import argparse
import ast
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sam2_pipeline.bench import cli as bench
from sam2_pipeline.cli import build_parser
from sam2_pipeline.cli.shared import EXIT_CODES
from sam2_pipeline.config import JobConfig
from sam2_pipeline.masklets.schema import KEYS, SCHEMA_VERSION, TABLES
from sam2_pipeline.settings import Settings
from sam2_pipeline.training.settings import TrainConfig

PACKAGE = Path(inspect.getfile(JobConfig)).parent
# Classes that take a section under the same names, and explain it further. Read, as their import needs torch.
EXPLAINED = {
    "generate": ("segment/generate_options.py", "GenerateOptions"),
    "tracking": ("segment/options.py", "TrackingOptions"),
}
TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this before it reads any page."""
    pages = {"reference/tables.md": tables, "reference/commands.md": commands, "reference/settings.md": settings}
    for place, make in pages.items():
        files.append(File.generated(config, place, content=make()))
    return files


# -------------------------------------------------------------------------------------------------------------- tables


def tables() -> str:
    """The three tables of an output, column by column."""
    parts = [
        "# Tables",
        f"What a run writes under its output, schema version {SCHEMA_VERSION}. The descriptions are in the metadata of the "
        "Parquet files, too. Versions only add columns; what an older version wrote reads as null in them.",
    ]
    for name, schema in TABLES.items():
        rows = [(f"`{field.name}`", f"`{type_name(field.type)}`", described(field)) for field in schema]
        keys = ", ".join(f"`{key}`" for key in KEYS[name])
        parts += [f"## {name}", f"Sorted by {keys}; no two rows share them.", table(("column", "type", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def described(field: pa.Field) -> str:
    notes = field.metadata
    since = f" (since version {notes[b'since'].decode()})" if b"since" in notes else ""
    return plain(notes[b"description"].decode()) + since


def type_name(kind: pa.DataType) -> str:
    """As Arrow says it, without the names of list elements."""
    return re.sub(r"(element|item): ", "", str(kind))


# ------------------------------------------------------------------------------------------------------------ commands


def commands() -> str:
    """Every verb of the command line."""
    parser = build_parser()
    verbs = dict(next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices)
    verbs["bench"] = bench.build_parser()  # which reads its own arguments
    overview = [(f"[`{name}`](#{name})", plain(about(verb).rstrip("."))) for name, verb in verbs.items()]
    parts = [
        "# Commands",
        "`sam2-pipeline VERB ...`, or `python -m sam2_pipeline VERB ...`. What this page says is what `--help` says.",
        table(("verb", "does"), overview),
        f"```text\n{EXIT_CODES}\n```",
    ]
    return "\n\n".join([*parts, *(verb_section(name, verb) for name, verb in verbs.items())]) + "\n"


def verb_section(name: str, parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = partial(argparse.RawDescriptionHelpFormatter, width=100)  # type: ignore[assignment]
    usage = textwrap.dedent(parser.format_usage().removeprefix("usage: "))
    parts = [f"## {name}", plain(about(parser)), f"```text\n{usage.strip()}\n```"]
    for group in parser._action_groups:
        rows = [(spelled(action), plain(meaning(parser, action))) for action in group._group_actions]
        if rows:
            heading = {"positional arguments": "argument", "options": "option"}.get(group.title or "", f"option: {group.title}")
            parts.append(table((heading, "meaning"), rows))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts)


def about(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").replace("\n", " ")


def spelled(action: argparse.Action) -> str:
    """An option as it is typed, with its value's name."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = "" if action.nargs == 0 else action.metavar or "|".join(map(str, action.choices or [action.dest.upper()]))
    return ", ".join(f"`{f'{option} {value}'.strip()}`" for option in action.option_strings)


def meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return f"{text} (needed)".strip() if action.required and action.option_strings else text


# ------------------------------------------------------------------------------------------------------------ settings


def settings() -> str:
    """Every setting of runs and of training."""
    parts = [
        "# Settings",
        "Settings come from `--config FILE.yaml`, over the defaults; `--set key.path=value` overrides one, and can be repeated. "
        "Unknown keys are refused, and the nearest known one is named. Options of their own, such as `--model`, win over both.",
        "## Of `run` and `plan`",
        *sections(JobConfig),
        "## Of `train`",
        *sections(TrainConfig),
    ]
    return "\n\n".join(parts) + "\n"


def sections(config: type[Settings]) -> Iterable[str]:
    hints = typing.get_type_hints(config)
    flat = [field for field in dataclasses.fields(config) if hints[field.name] in (str, int | None)]  # type: ignore[arg-type]
    if flat:
        rows = [setting_row(config, field, {}) for field in flat]
        yield table(("key", "type", "default"), [row[:3] for row in rows])
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[field.name]):
            yield section(typing.cast(type[Settings], hints[field.name]))


def section(kind: type[Settings]) -> str:
    notes = explanations(kind.path)
    rows = [setting_row(kind, field, notes) for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    columns = 4 if any(row[3] for row in rows) else 3
    heads = ("key", "type", "default", "meaning")[:columns]
    text = inspect.getdoc(kind) or ""
    return f"### {kind.path}\n\n{text}\n\n{table(heads, [row[:columns] for row in rows])}"


def setting_row(kind: type[Settings], field: dataclasses.Field, notes: Mapping[str, str]) -> tuple[str, str, str, str]:
    key = f"{kind.path}.{field.name}" if kind.path else field.name
    hint = typing.get_type_hints(kind)[field.name]
    return (
        f"`{key}`",
        plain(value_type(hint) + value_range(field)),
        f"`{json.dumps(field.default)}`",
        plain(notes.get(field.name, "")),
    )


def value_type(hint: Any) -> str:
    """A type as a reader of YAML would call it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else value_type(one) for one in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        inner = [value_type(one) for one in arguments if one is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in arguments else f"[{', '.join(inner)}]"
    return TYPES[hint]


def value_range(field: dataclasses.Field) -> str:
    words = {"low": "from {:g}", "above": "above {:g}", "high": "up to {:g}"}
    limits = [words[name].format(limit) for name, limit in field.metadata.items() if limit is not None]
    return f", {' '.join(limits)}" if limits else ""


def explanations(path: str) -> dict[str, str]:
    """Setting -> meaning, from the `Attributes:` of the class that takes the section's settings."""
    if path not in EXPLAINED:
        return {}
    file, name = EXPLAINED[path]
    tree = ast.parse((PACKAGE / file).read_text())
    [kind] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    attributes = (ast.get_docstring(kind) or "").partition("Attributes:\n")[2]
    entries = re.split(r"\n    (?=\w)", "\n" + attributes)
    found = {}
    for names, _, text in (entry.partition(":") for entry in entries[1:]):
        found |= {one.strip(): " ".join(text.split()).rstrip(".") for one in names.split(",")}
    return found


# ------------------------------------------------------------------------------------------------------------ Markdown


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def plain(text: str) -> str:
    """Text in which nothing is taken for HTML, emphasis or a link, but code stays code."""
    pieces = re.split(r"(`+[^`]+`+)", text)
    escape: Callable[[str], str] = partial(re.sub, r"([<>*_\[\]])", r"\\\1")
    return "".join(piece if piece.startswith("`") else escape(piece) for piece in pieces)
