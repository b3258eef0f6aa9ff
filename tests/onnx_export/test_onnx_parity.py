"""onnxruntime gives the golden numbers of the reference, for pictures and videos."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from golden.goldens import Case, load, sample, tolerance
from golden.synthetic_inputs import smooth_noise, synthetic_frame, synthetic_mask, synthetic_video

from sam2_pipeline.compat.options import apply_overrides, released_options
from sam2_pipeline.onnx import ImageSegmenter, OnnxModel
from sam2_pipeline.onnx.arrays import from_bfloat16
from sam2_pipeline.onnx.engine import OnnxEngine
from sam2_pipeline.onnx.results import FrameResult
from sam2_pipeline.segment.inputs import NetworkFrame
from sam2_pipeline.segment.session import VideoSession

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the export that they share takes a minute

TOLERANCE = 1e-3  # absolute, and relative to the largest number
LEAST_IOU = 0.999


def check(case: Case, arrays: dict[str, np.ndarray]) -> None:
    """Every array that the case holds is equal within `TOLERANCE`; masks overlap by `LEAST_IOU`."""
    found = {key: sample(case.meta["arrays"][key], x) for key, x in arrays.items() if key in case.arrays}
    assert found, f"none of {list(arrays)} is in {case.name}"
    for key, x in found.items():
        gold = case.arrays[key]
        assert x.shape == gold.shape, key
        if case.meta["arrays"][key].get("packed"):
            mine, theirs = np.unpackbits(x), np.unpackbits(gold)
            assert (mine & theirs).sum() >= LEAST_IOU * (mine | theirs).sum(), key
        elif key.endswith("memory"):  # a step of bfloat16 is more than the tolerance: what the case allows for noise
            worst, mean = tolerance(case.meta["arrays"][key])
            off = np.abs(x - gold)
            assert off.max() <= worst and off.mean() <= mean, (key, off.max(), worst, off.mean(), mean)
        else:
            np.testing.assert_allclose(x, gold, rtol=0, atol=TOLERANCE * max(1, np.abs(gold).max()), err_msg=key)


def test_image(model: OnnxModel) -> None:
    case = load("image_predictor_tiny_256")
    given, segmenter = case.meta["input"], ImageSegmenter(model)
    embedding = segmenter.embed(synthetic_frame(given["t"], given["height"], given["width"], given["seed"]))
    size = np.array([given["width"], given["height"]])
    for number, prompt in enumerate(case.meta["prompts"]):
        arguments: dict[str, Any] = {"multimask": prompt["multimask_output"], "boxes": prompt.get("box")}
        if "point_coords" in prompt:
            scale = 1 if prompt.get("normalize_coords", True) else size
            arguments |= {"points": np.array([prompt["point_coords"]]) * scale, "labels": [prompt["point_labels"]]}
        if "mask_input" in prompt:
            noise = prompt["mask_input"]
            arguments["mask_logits"] = smooth_noise((1, 64, 64), noise["seed"], noise["cells"], noise["amplitude"])
        prediction = segmenter.predict(embedding, **arguments)
        single = np.ndim(prompt.get("box")) < 2  # then the case has no dimension of prompts
        each = {
            "logits": prediction.image_logits(),
            "bits": prediction.masks(),
            "iou": prediction.predicted_iou_NM,
            "low_res": prediction.logits_NMHW.clip(-32, 32),  # as SAM2ImagePredictor returns them
        }
        check(case, {f"p{number:02d}/{key}": x[0] if single else x for key, x in each.items()})


@pytest.mark.parametrize(
    "name", ["video_mid_both_ways", "video_mask_prompt", "video_refine_same_frame", "video_add_object_later"]
)
def test_video(name: str, model: OnnxModel) -> None:
    """Clicks, boxes and masks, forward and backward: masks, scores, pointers and memories, as in tests/compat."""
    case = load(name)
    given, size = case.meta["input"], model.config.image_size
    overrides = [f"++model.{key}={value}" for key, value in case.meta["config_overrides"].items()]
    options, _ = apply_overrides(released_options(video=True, postprocessing=True), overrides)
    images = synthetic_video(given["n_frames"], size, given["seed"], given.get("hide", ()))
    frames = PreparedFrames(images, given["video_height"], given["video_width"])
    session: VideoSession[FrameResult] = VideoSession(OnnxEngine(model, options), frames, options)
    for number, op in enumerate(case.meta["script"]):
        check(case, {f"op{number:02d}/{key}": x for key, x in run(session, op).items()})


class PreparedFrames:
    """Frames that are resized and normalised already."""

    def __init__(self, images_T3SS: np.ndarray, height: int, width: int):
        self.images_T3SS, self.height, self.width, self.num_frames = images_T3SS, height, width, len(images_T3SS)

    def images(self, start: int, stop: int | None = None, *, reverse: bool = False) -> Iterator[NetworkFrame]:
        frames = range(start, (stop or 0) - 1, -1) if reverse else range(start, self.num_frames if stop is None else stop)
        for index in frames:
            yield NetworkFrame(index, index / 24, self.images_T3SS[index])


def run(session: VideoSession[FrameResult], op: dict[str, Any]) -> dict[str, np.ndarray]:
    """One operation of a golden script, as the arrays of the case."""
    if op["op"] == "propagate":
        results = list(session.propagate(op.get("start"), op.get("max_frames"), reverse=op.get("reverse", False)))
        records = [[obj.bank.record(r.frame_index) for obj in session.objects.values()] for r in results]
        memory = np.stack([[from_bfloat16(r.memory_TC).T.reshape(-1)[::61] for r in row] for row in records])
        return {"memory": memory} | stored(records) | shown(results)
    if op["op"] == "mask":
        mask = synthetic_mask(**{key: value for key, value in op["mask"].items() if key != "kind"})
        result = session.add_masks(op["frame"], [op["obj"]], session.engine.mask_prompts(mask[None] > 0))
    else:
        corners, points = np.reshape(op.get("box", []), (-1, 2)), np.reshape(op.get("points", []), (-1, 2))
        labels = np.array([2, 3][: len(corners)] + op.get("labels", []))
        pixels = np.concatenate((corners, points)) / (session.frames.width, session.frames.height) * session.engine.image_size
        keep = not op.get("clear_old_points", True)
        result = session.add_points(op["frame"], op["obj"], pixels.astype(np.float32), labels, keep_old=keep)
    record = session.objects[op["obj"]].shown(op["frame"], True)
    return stored([[record]]) | shown([result])


def stored(records: list[list[Any]]) -> dict[str, np.ndarray]:
    names = {"low_res": "logits_HW", "object_score": "object_score", "obj_ptr": "pointer_D"}
    return {key: np.stack([[getattr(record, name) for record in row] for row in records]) for key, name in names.items()}


def shown(results: list[FrameResult]) -> dict[str, np.ndarray]:
    return {"video_res": np.stack([r.video_logits() for r in results]), "video_bits": np.stack([r.masks() for r in results])}
