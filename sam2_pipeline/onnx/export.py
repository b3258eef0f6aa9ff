"""`export_onnx`: a model into five ONNX files that need nothing but onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.export import Dim

from sam2_pipeline import __version__
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.checkpoint import weights_sha256
from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.onnx.files import PRECISIONS, Facts, part_path
from sam2_pipeline.onnx.graphs import Graph, graphs_of

OPSET = 18
LICENCE = "Apache-2.0"


def export_onnx(model: Sam2, folder: str | Path, precision: str = "fp32") -> list[Path]:
    """Writes the files of a float32 model on the CPU into a folder, replacing what an earlier export left there.

    Args:
        model: what `load_model` gives.
        folder: made if it is not there.
        precision: ``fp32``; ``fp16``, weights and arithmetic in half precision; ``int8``, linear layers in 8 bits, those of
            the mask decoder and of the trunk's first two stages aside.

    Raises:
        ConfigError: an unknown precision, a model elsewhere than on the CPU in float32, or packages that are not installed.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if model.device.type != "cpu" or model.compute_dtype != torch.float32:
        raise ConfigError(f"the model is on {model.device} in {model.compute_dtype}, expected the CPU in torch.float32")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} not installed; pip install 'sam2-pipeline[onnx]'")
    from sam2_pipeline.onnx.precision import finish

    Path(folder).mkdir(parents=True, exist_ok=True)
    facts = Facts(model.config, precision, weights_sha256(model), __version__, LICENCE)
    paths = []
    for part, graph in graphs_of(model).items():
        path = part_path(folder, part)
        draft = path.with_suffix(".part")
        try:
            _trace(graph, draft)
            finish(draft, path, precision, facts.to_metadata(part))
        finally:
            draft.unlink(missing_ok=True)
        paths.append(path)
    return paths


def _trace(graph: Graph, path: Path) -> None:
    examples = tuple(graph.inputs.values())
    letters = {letter: Dim(letter) for sizes in graph.sizes.values() for letter in sizes}
    dynamic = tuple({axis: letters[letter] for axis, letter in enumerate(graph.sizes[name])} for name in graph.inputs)
    with torch.no_grad(), _quietly():
        graph.module(*examples)  # position tables are cached when first needed, which must not be while tracing
        program = torch.onnx.export(
            graph.module,
            examples,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter warns of torchvision, which we do without, and of names that two dimensions share, which we want."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
