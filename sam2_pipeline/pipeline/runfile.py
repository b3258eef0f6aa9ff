"""``_run/run.json``: what an output was made with, and the refusal to mix two configurations in one output."""

import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, StorageError
from sam2_pipeline.io.storage import Storage
from sam2_pipeline.masklets.schema import SCHEMA_VERSION, TABLES
from sam2_pipeline.pipeline.job import Job

RUN_FILE = "_run/run.json"
PACKAGES = ("torch", "ray", "pyarrow", "av", "numpy", "pycocotools", "fsspec")


def read_run(storage: Storage) -> dict[str, Any] | None:
    """The record of the run that made this output; None where there is none.

    Raises:
        StorageError: the record cannot be read, or the tables' folders hold something that no run wrote.
    """
    if not storage.exists(RUN_FILE):
        return None
    try:
        return json.loads(storage.read_bytes(RUN_FILE))
    except ValueError as error:
        raise StorageError(f"{storage.locate(RUN_FILE)}: not valid JSON ({error})") from error


def require_run(storage: Storage) -> dict[str, Any]:
    """As `read_run`, but an output without a run is a `ConfigError`."""
    run = read_run(storage)
    if run is None:
        raise ConfigError(f"{storage.url} holds no run (no {RUN_FILE}); expected the OUTPUT of `sam2-pipeline run`")
    return run


def check_output(storage: Storage, run: dict[str, Any] | None, config: JobConfig) -> None:
    """Refuse an output that holds something else, before the model is loaded.

    Raises:
        ConfigError: it holds another input's or another configuration's masklets, or files that no run wrote.
    """
    if run is None:
        check_free(storage)
        return
    if run["schema_version"] != SCHEMA_VERSION:
        raise ConfigError(f"{storage.url} has schema version {run['schema_version']}, this package writes {SCHEMA_VERSION}")
    if run["input"] != config.input:
        raise ConfigError(f"{storage.url} holds masklets of {run['input']}, not of {config.input}; choose another output")
    differing = _differences(config_of(run, {}, {}).decisive(), config.decisive())
    if differing:
        found = "; ".join(differing)
        raise ConfigError(
            f"{storage.url} was made with another configuration: {found}; choose another output, or use its settings"
        )


def check_free(storage: Storage) -> None:
    """Refuse a place whose tables' folders hold files that no run wrote, with a ConfigError."""
    for table in TABLES:
        for name, _ in storage.list(table, recursive=True):
            raise ConfigError(f"{storage.locate(name)} was not written by a run; choose an output without a {table} folder")


def check_content(storage: Storage, run: dict[str, Any] | None, job: Job, prompts_sha256: str | None) -> None:
    """Refuse an output made with other weights or other prompts.

    Raises:
        ConfigError: the two differ.
    """
    if run is None or run["config_hash"] == job.config_hash:
        return
    if run["weights_sha256"] != job.model.weights_sha256:
        there, here = run["weights_sha256"][:12], job.model.weights_sha256[:12]
        found = f"weights {there} ({run['model']}), this run has {here} ({job.model.name})"
    elif run["prompts_sha256"] != prompts_sha256:
        found = "another prompts file"
    else:
        found = f"configuration {run['config_hash']}, this run has {job.config_hash}"
    raise ConfigError(f"{storage.url} was made with {found}; choose another output")


def config_of(run: dict[str, Any], given: dict[str, Any], storage_options: dict[str, Any]) -> JobConfig:
    """The configuration that a run was recorded with, with ``given`` dotted settings (None: as recorded) over it.

    Raises:
        ConfigError: the masklets were imported or annotated by people, and no run made them.
    """
    if "annotated" in run:
        raise ConfigError(f"the masklets were annotated with `sam2-pipeline serve {run['input']}`; choose another output")
    if "imported" in run:
        raise ConfigError(f"the masklets were imported from {run['input']}; import them again, or choose another output")
    recorded = _flat(run["config"])
    return JobConfig.load(options=recorded | {k: v for k, v in given.items() if v is not None}, storage_options=storage_options)


def write_run(storage: Storage, job: Job, prompts_sha256: str | None) -> None:
    """Record the run, unless it is recorded already. Holds no storage options."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "package_version": job.package_version,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": job.config.input,
        "config": job.config.to_dict(),
        "config_hash": job.config_hash,
        "model": job.model.name,
        "weights_sha256": job.model.weights_sha256,
        "prompts_sha256": prompts_sha256,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }
    storage.create_exclusive(RUN_FILE, json.dumps(content, indent=2).encode())


def _differences(there: dict[str, Any], here: dict[str, Any], path: str = "") -> list[str]:
    """``key there is x, here y`` of every setting that differs."""
    found = []
    for key, value in here.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            found += _differences(there[key], value, name)
        elif there[key] != value:
            found.append(f"{name} is {there[key]} there and {value} here")
    return found


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return flat


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
