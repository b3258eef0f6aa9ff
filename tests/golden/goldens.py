"""Reading the golden cases and comparing arrays with them (NumPy only).

    case = load("video_one_click")                  # .meta (the JSON), .arrays (the npz)
    report = compare(case, {"op01/low_res": mine})  # or check(case, ...), which asserts

What is handed to `compare` may be the *full* array (its sampling is applied here) or an already sampled one. Floating arrays
pass when the biggest and the mean absolute difference are both within `tolerance`; packed masks when few enough pixels differ;
everything else must be equal.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One case: ``meta`` says what was computed and how, ``arrays`` what came out."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """How far one array is off; ``ratio`` is the larger of the differences over their limits, more than 1 is a failure."""

    ratio: float
    worst: float = np.inf
    mean: float = np.inf
    limits: tuple[float, float] = (0.0, 0.0)
    why: str = ""


def load(name: str) -> Case:
    """The case of that name in this folder."""
    meta = json.loads((HERE / f"{name}.json").read_text())
    with np.load(HERE / f"{name}.npz") as stored:
        return Case(name, meta, {key: stored[key] for key in stored.files})


def state_dict_shapes(model: str) -> dict[str, list[int]]:
    """``{key: shape}`` of an official model, in the order of its checkpoint."""
    return json.loads((HERE / "state_dicts.json").read_text())[model]


def sample(info: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Applies the sampling that one entry of ``meta["arrays"]`` describes to a full array."""
    x = np.asarray(x)
    full = info.get("full_shape")
    if info.get("packed"):
        already_packed = x.dtype == np.uint8 and list(x.shape) != full
        return x if already_packed else np.packbits(x.astype(bool).reshape(-1))
    if full is None or list(x.shape) != full:
        return x
    if "stride" in info:
        return x.reshape(-1)[:: info["stride"]]
    return x[..., :: info["step"], :: info["step"]]


def summaries(case: Case, key: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that the case stores about the full array ``x`` called ``key``: itself, or samples, moments, channels."""
    x = np.asarray(x)
    wide = x.astype(np.float64)
    made = {key: x, f"{key}/samples": x, f"{key}/moments": np.array([wide.mean(), wide.std(), np.abs(wide).max()])}
    if x.ndim >= 3:
        axes = (0, 2, 3) if x.ndim == 4 else (0, 1)  # NCHW maps; tokens keep their channels last
        made |= {f"{key}/channel_mean": wide.mean(axes), f"{key}/channel_std": wide.std(axes)}
    found = {name: value.astype(np.float32) for name, value in made.items() if name in case.arrays}
    assert found, f"case {case.name} stores nothing called {key}"
    return found


def tolerance(info: Mapping[str, Any], factor: float = 20.0) -> tuple[float, float]:
    """(biggest, mean) absolute difference to accept, from the noise recorded with the case.

    ``noise_*`` is the larger of two experiments with the reference itself: other kernels (no oneDNN, unfused attention), and
    all weights moved by one part in ten million.
    """
    rms = info.get("rms", 1.0)
    worst = factor * info["noise_max"] + 5e-5 * rms + 1e-6
    mean = factor * info["noise_mean"] + 5e-6 * rms + 1e-7
    return worst, worst if np.prod(info["shape"]) < 64 else mean  # too few numbers for a meaningful mean


def flips_allowed(info: Mapping[str, Any]) -> int:
    """How many pixels of a packed mask may differ."""
    flips = max((n for n in info.get("flips") or [] if n is not None), default=0)  # None: that experiment was not made
    return 20 + 5 * flips + int(np.prod(info["full_shape"]) * 2e-5)


def _difference(key: str, info: Mapping[str, Any], gold: np.ndarray, x: np.ndarray, factor: float) -> Difference:
    if x.shape != gold.shape:
        return Difference(np.inf, why=f"shape {x.shape}, expected {gold.shape}")
    if info.get("packed"):
        n, allowed = int((np.unpackbits(x) != np.unpackbits(gold)).sum()), flips_allowed(info)
        return Difference(n / allowed, n, n, (allowed, allowed))
    if not np.issubdtype(gold.dtype, np.floating):
        n = int((x != gold).sum())
        return Difference(np.inf if n else 0.0, n, n)
    if not np.array_equal(np.isnan(x), np.isnan(gold)):
        return Difference(np.inf, why="NaN in different places")
    off = np.abs(np.nan_to_num(x.astype(np.float64)) - np.nan_to_num(gold.astype(np.float64)))
    worst, mean = (float(off.max()), float(off.mean())) if off.size else (0.0, 0.0)
    limits = tolerance(info, factor) if "noise_max" in info else (1e-5, 1e-6)
    if key.endswith("/stability"):  # a ratio of two pixel counts moves in steps
        limits = (0.01, 0.003)
    return Difference(max(worst / limits[0], mean / limits[1]), worst, mean, limits)


def compare(case: Case, mine: Mapping[str, np.ndarray], factor: float = 20.0) -> dict[str, Difference]:
    """The difference of every array of ``mine`` from the case's array of the same key."""
    infos = case.meta["arrays"]
    return {key: _difference(key, infos[key], case.arrays[key], sample(infos[key], x), factor) for key, x in mine.items()}


def check(case: Case, mine: Mapping[str, np.ndarray], factor: float = 20.0) -> float:
    """Asserts that everything in ``mine`` is within tolerance; returns the worst ratio."""
    report = compare(case, mine, factor)
    failed = [f"{case.name} {key}: {difference}" for key, difference in report.items() if not difference.ratio <= 1]
    assert not failed, "\n".join(failed)
    return max(difference.ratio for difference in report.values())
