"""`sam2-pipeline bench`: measures, prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from sam2_pipeline.bench import peer
from sam2_pipeline.bench.conditions import DTYPES, Conditions
from sam2_pipeline.bench.contestants import Contestant, Ours, OursInFloat32
from sam2_pipeline.bench.measure import CPU, FULL, QUICK, Result, Sizes, measure
from sam2_pipeline.bench.profiling import profiled
from sam2_pipeline.bench.scene import random_weights
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.checkpoint import build_model, load_model
from sam2_pipeline.model.native.library import native
from sam2_pipeline.model.sam2 import Sam2

EXAMPLES = """examples:
  sam2-pipeline bench --quick
  sam2-pipeline bench --threads 1 --json bench.json
  sam2-pipeline bench --objects 16 --image-size 512
  sam2-pipeline bench --model sam2.1_hiera_large --checkpoint sam2.1_hiera_large.pt
  sam2-pipeline bench --quick --peer onnxruntime
  sam2-pipeline bench --quick --dtype bfloat16 --peer float32
  sam2-pipeline bench --device cuda --objects 1 16

Where PyPI's sam2 is installed, both take turns in this process, on the same weights and inputs; the ratio is its time over
ours, and exit status 1 means that the masks did not agree. Without --checkpoint the weights are random, from a fixed seed.

On CUDA everybody's pictures are there beforehand, and clocks are read when the device has finished. bfloat16 is one autocast
context around both, as in sam2's notebooks (but on a CPU we leave it, and round what `run` rounds), and masks agree from IoU
0.95 (automatic ones 0.9), because random weights make its rounding grow; --dtype float32 is without TF32, and masks agree
from IoU 0.999. Left out are the parts that only we can run."""
CLOCKS = {"wall_ms": "wall", "cpu_ms": "CPU time"}
WALL = {"wall_ms": "wall"}  # what counts where the CPU only gives orders


def main(arguments: Sequence[str]) -> int:
    options = build_parser().parse_args(arguments)
    conditions = chosen_conditions(options)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    sizes = chosen_sizes(options)
    model = make_model(options.model, options.checkpoint, sizes.image_size, conditions)
    console = Console(width=None if Console().is_terminal else 140)
    contestants = chosen_contestants(options, model, console)
    where = torch.cuda.get_device_name(conditions.device) if conditions.on_cuda else processor()
    precision = str(conditions.dtype).removeprefix("torch.")
    console.print(f"{model.config.name}, {sizes.image_size} pixels, {precision}, {where}, {torch.get_num_threads()} threads")
    if native().library is None and not conditions.on_cuda:
        console.print(f"Memory attention in its plain form: {native().reason}", markup=False)
    results = []
    profile = partial(profiled, model) if options.profile else None
    with conditions.applied():
        for result in measure(contestants, sizes, profile, conditions):
            times = ", ".join(f"{name} {_ms(turns)} ms" for name, turns in result.wall_ms.items())
            console.print(f"  measured: {result.task}: {times}; {result.agreement or 'alone'}", style="dim", highlight=False)
            results.append(result)
    console.print(table(results, [c.name for c in contestants], clocks=WALL if conditions.on_cuda else CLOCKS))
    alone = [] if options.parts_only or conditions.on_cuda else ours_alone(model, sizes, console)
    for result in results if options.profile else []:
        console.print(f"{result.task}, ours:\n  " + "\n  ".join(result.profile), markup=False, highlight=False)
    if options.json:
        facts = describe(model, sizes) | {"contestants": [c.name for c in contestants]}
        Path(options.json).write_text(json.dumps(facts | {"results": [as_json(r) for r in results + alone]}, indent=2) + "\n")
    disagreeing = [r for r in results + alone if not r.agrees]
    for result in disagreeing:
        console.print(f"{result.task}: the results do not agree ({result.agreement}); its ratio means nothing", style="red")
    return 1 if disagreeing else 0


def chosen_contestants(options: argparse.Namespace, model: Sam2, console: Console) -> list[Contestant]:
    """We, and whom we are compared with."""
    if options.peer == "float32":
        return [Ours(model), OursInFloat32(model)]
    if options.peer == "onnxruntime":
        from sam2_pipeline.bench.onnx_peer import OnnxRuntime

        return [Ours(model), OnnxRuntime(model)]
    if not peer.has(model.config.name):
        console.print(f"Ours alone: PyPI's sam2 has no {model.config.name}", markup=False)
        return [Ours(model)]
    if peer.is_installed():
        return [Ours(model), peer.PypiSam2(model)]
    console.print(f"Ours alone: PyPI's sam2 is not installed. To compare: {peer.HOW_TO_INSTALL}", markup=False)
    return [Ours(model)]


def ours_alone(model: Sam2, sizes: Sizes, console: Console) -> list[Result]:
    """What only we can run, said as it is measured; on the CPU."""
    from sam2_pipeline.bench.discovery import data_engine, describe_data_engine
    from sam2_pipeline.bench.whole import describe_whole, small_model, videos_to_tables

    whole = [videos_to_tables(model, 3 * sizes.frames, min(4, *sizes.objects)), small_model(5 * sizes.frames)]
    for line in describe_whole(whole):
        console.print(line, markup=False)
    engine = data_engine(load_model(device="cpu"), 2 * sizes.frames, min(8, sizes.points_per_side))
    console.print(*describe_data_engine(engine), markup=False)
    return [*whole, engine]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sam2-pipeline bench",
        description="How fast this machine is: image encoder, tracking, automatic masks, videos to tables, discovery, verdicts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="512 pixels and few frames: a minute or two on a laptop")
    parser.add_argument("--model", metavar="NAME", default="sam2.1_hiera_tiny", help="default: %(default)s")
    parser.add_argument("--checkpoint", metavar="URL", help="weights; default: random ones, always the same")
    parser.add_argument(
        "--peer",
        choices=["sam2", "onnxruntime", "float32"],
        default="sam2",
        help="whom to compare with; float32: this package in that precision; default: sam2, if installed",
    )
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:N; default: %(default)s")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), help="what the networks compute in; default: bfloat16 on CUDA, else float32"
    )
    parser.add_argument("--image-size", metavar="N", type=int, help="side of the network input; default: 512 quick, else 1024")
    parser.add_argument("--objects", metavar="N", type=int, nargs="+", help="track so many objects; default: 1, 4 and 16")
    parser.add_argument("--frames", metavar="N", type=int, help="frames to time in tracking, once the memory is full")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU threads; default: as PyTorch chooses")
    parser.add_argument("--points", metavar="N", type=int, help="points per side for automatic masks; default: 8 quick, else 32")
    parser.add_argument(
        "--parts-only", action="store_true", help="leave out what only we can run: videos to tables, small model, discovery"
    )
    parser.add_argument("--profile", action="store_true", help="where our time goes: parts of the model, and operators")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    return parser


def chosen_conditions(options: argparse.Namespace) -> Conditions:
    """Device and precision; what would be measured wrongly under them is refused."""
    conditions = Conditions.chosen(options.device, options.dtype)
    if options.peer == "onnxruntime" and conditions != CPU:
        raise ConfigError(f"--peer onnxruntime runs on the CPU in float32, not with {conditions.device} and {conditions.dtype}")
    if options.peer == "float32" and conditions.exact:
        raise ConfigError("--peer float32 is what another precision is compared with: add --dtype bfloat16")
    if options.profile and conditions.on_cuda:
        raise ConfigError(f"--profile tells where CPU time goes; with --device {options.device} the work is elsewhere")
    return conditions


def chosen_sizes(options: argparse.Namespace) -> Sizes:
    """The quick or the full ones, with what was asked for otherwise."""
    given = {"image_size": options.image_size, "objects": options.objects and tuple(options.objects), "frames": options.frames}
    given["points_per_side"] = options.points
    sizes = replace(QUICK if options.quick else FULL, **{name: value for name, value in given.items() if value is not None})
    if sizes.frames < 3 or min(sizes.objects) < 1:
        raise ConfigError(f"frames is {sizes.frames}, objects {list(sizes.objects)}; expected at least 3 frames and 1 object")
    return sizes


def make_model(name: str, checkpoint: str | None, image_size: int, conditions: Conditions = CPU) -> Sam2:
    """With the checkpoint's weights, or random ones."""
    device, dtype = conditions.device, conditions.dtype
    if checkpoint:
        return load_model(name, checkpoint=checkpoint, image_size=image_size, device=device, dtype=dtype)
    model = build_model(name, image_size=image_size, device=device, dtype=dtype)
    model.load_state_dict(random_weights({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}))
    return model


def table(results: Sequence[Result], names: Sequence[str], clocks: Mapping[str, str]) -> Table:
    """Median milliseconds of everyone; where there are two, how many times faster we are by the clocks, and whether the results
    agree."""
    shown = Table(caption="ms: median wall time · ratio: peer / ours, median (quartiles)" if len(names) > 1 else None)
    shown.add_column("")
    for name in names:
        shown.add_column(f"{name}, ms", justify="right")
    if len(names) > 1:
        for heading in clocks.values():
            shown.add_column(f"ratio, {heading}", justify="right")
        shown.add_column("extra memory, MiB", justify="right")
        shown.add_column("agreement")
    for result in results:
        cells = [_ms(result.wall_ms[name]) for name in names]
        if len(names) > 1:
            memory = " / ".join(f"{result.extra_mib[name]:.0f}" for name in names)
            cells += [*(_spread(result.ratio(clock)) for clock in clocks), memory, result.agreement]
        shown.add_row(result.task, *cells)
    return shown


def _ms(turns: Sequence[float]) -> str:
    """The median, with a decimal where that says something."""
    median = statistics.median(turns)
    return f"{median:.0f}" if median >= 100 else f"{median:.1f}"


def _spread(ratio: tuple[float, float, float] | None) -> str:
    if ratio is None:
        raise ConfigError("a ratio needs two contestants")
    return f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"


def as_json(result: Result) -> dict[str, Any]:
    ratios = {f"ratio_{clock}": result.ratio(clock) for clock in CLOCKS}
    return asdict(result) | ratios


def describe(model: Sam2, sizes: Sizes) -> dict[str, Any]:
    """The hardware, software and settings that the figures hold for."""
    return {
        "model": model.config.name,
        "sizes": asdict(sizes),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device),
        "dtype": str(model.compute_dtype),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
