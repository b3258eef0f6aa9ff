"""From the exporter's draft to the file that is kept: constants folded, in the precision asked for, with its metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime

_LINEAR = ["MatMul", "Gemm"]
# The mask decoder is small, and loses objects when it is rounded: of 24 masks of a trained small model, IoU 0.95 instead of 1.
_NOT_QUANTISED = ("mask_decoder",)
# So are the first two stages of the trunk: with them rounded, IoU in videos is 0.98 instead of 0.995, for 5 % of the size.
_WIDE_ONLY = ("image_encoder",)


def finish(draft: Path, path: Path, precision: str, metadata: Mapping[str, str]) -> None:
    """Turns a float32 draft, which is used up, into ``path``. Inputs and outputs stay float32 in every precision."""
    _fold(draft)
    if precision == "int8" and path.stem not in _NOT_QUANTISED:
        _to_int8(draft, _narrow(draft) if path.stem in _WIDE_ONLY else [])
    model = onnx.load(draft)
    if precision == "fp16":
        model = _to_fp16(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, draft)
    draft.replace(path)


def _fold(path: Path) -> None:
    """Computes what depends on weights only (position tables, products of weights), and drops what nothing reads.

    The basic level keeps to standard operators, so that the file runs anywhere. It leaves casts to bfloat16 and back alone.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    for opset in [opset for opset in model.opset_import if opset.domain not in used]:  # it lists all that it knows
        model.opset_import.remove(opset)
    onnx.save(model, path)


def _to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _narrow(path: Path) -> list[str]:
    """The matrix products of the first two stages, by their widths: each stage is twice as wide as the one before."""
    graph = onnx.load(path).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer if len(weight.dims) == 2}
    products = [node for node in graph.node if node.op_type in _LINEAR and node.input[1] in weights]
    widths = {node.name: min(weights[node.input[1]]) for node in products}
    return [name for name, width in widths.items() if width <= 2 * min(widths.values())]


def _to_int8(path: Path, but: list[str]) -> None:
    """Weights of matrix products (those named in ``but`` aside) in 8 bits, a scale for each channel; activations are quantised
    as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would recommend to fold constants, which is done
    try:
        quantize_dynamic(
            path, path, op_types_to_quantize=_LINEAR, nodes_to_exclude=but, per_channel=True, weight_type=QuantType.QInt8
        )
    finally:
        logger.setLevel(level)
