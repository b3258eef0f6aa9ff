"""Nested, typed, frozen settings from plain mappings: what `JobConfig` is made of.

A section is a frozen dataclass derived from `Settings`; its fields are typed, with a range where :func:`setting` gives one,
and are checked however the section is made. :func:`build` makes one from a mapping, as YAML gives it. Errors name the key,
the value found and the value expected.
"""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import yaml

from sam2_pipeline.errors import ConfigError


def setting(default: Any, *, low: float | None = None, above: float | None = None, high: float | None = None) -> Any:
    """A field with a default, and optionally a range: ``low <= value``, ``above < value``, ``value <= high``."""
    return dataclasses.field(default=default, metadata={"low": low, "above": above, "high": high})


class Settings:
    """Base of every section: converts and checks its own fields. ``path`` is where it stands in the whole configuration."""

    path: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.init and not dataclasses.is_dataclass(hints[field.name]):
                name = _join(self.path, field.name)
                value = convert(getattr(self, field.name), hints[field.name], name)
                _check_range(value, field.metadata, name)
                object.__setattr__(self, field.name, value)


Section = TypeVar("Section", bound=Settings)


def build(section: type[Section], values: Any) -> Section:
    """An instance of ``section`` with ``values`` over its defaults; `ConfigError` names the first key that does not fit."""
    if values is None:  # an empty section of a YAML file
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{section.path or 'the configuration'} is {values!r}, expected a mapping of settings")
    hints = typing.get_type_hints(section)
    known = [field.name for field in dataclasses.fields(section) if hints[field.name] is not dict]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(_unknown(str(key), section.path, known))
        nested = dataclasses.is_dataclass(hints[key])
        arguments[key] = build(typing.cast(type, hints[key]), value) if nested else value
    return section(**arguments)


def parse_override(text: str) -> tuple[list[str], Any]:
    """``key.path=value`` as (keys, value), where the value is read as YAML: numbers, true, null, [1, 2], text."""
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {text!r}: expected key.path=value, for example --set tracking.lanes=4")
    try:
        return keys, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not valid YAML ({error})") from None


def put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set ``values[keys[0]][keys[1]]... = value``, making the mappings in between."""
    for depth, key in enumerate(keys[:-1]):
        inner = values.setdefault(key, {})
        if inner is None:
            inner = values[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is {inner!r}, it holds no further settings")
        values = inner
    values[keys[-1]] = value


def to_plain(section: Any) -> dict[str, Any]:
    """The section as nested dicts and lists, as YAML and JSON can hold it."""
    plain = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            plain[field.name] = to_plain(value)
        else:
            plain[field.name] = _listed(value)
    return plain


def convert(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the annotation ``hint`` asks (int, float, bool, str, None, Literal, tuple and unions of these)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), name)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, name)
    return _convert_scalar(value, hint, name)


def convert_fields(kind: type, values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """``values`` as the fields of a dataclass that is no section ask for; `ConfigError` names the first that does not fit."""
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(_unknown(key, path, list(hints)))
    return {key: convert(value, hints[key], _join(path, key)) for key, value in values.items()}


def _convert_tuple(value: Any, arguments: tuple, name: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} is {value!r}, expected a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(convert(item, arguments[0], f"{name}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{name} is {list(value)!r}, expected {len(arguments)} values")
    return tuple(convert(item, hint, f"{name}[{i}]") for i, (item, hint) in enumerate(zip(value, arguments)))


def _convert_scalar(value: Any, hint: type, name: str) -> Any:
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}[hint]
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 takes 1e-3 for text
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{name} is {value!r}, expected {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, expected a finite number")
    return value


def _check_range(value: Any, limits: Mapping[str, Any], name: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, above, high = limits.get("low"), limits.get("above"), limits.get("high")
    if low is not None and value < low:
        raise ConfigError(f"{name} is {value}, expected at least {low}")
    if above is not None and value <= above:
        raise ConfigError(f"{name} is {value}, expected more than {above}")
    if high is not None and value > high:
        raise ConfigError(f"{name} is {value}, expected at most {high}")


def _unknown(key: str, path: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {_join(path, nearest[0])}?" if nearest else f"expected one of {', '.join(sorted(known))}"
    return f"unknown setting {_join(path, key)}; {hint}"


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
