"""`SAM2VideoPredictor` against the reference, operation by operation: masks, scores, pointers, memories, bookkeeping."""

from typing import Any

import numpy as np
import pytest
import torch
from golden.goldens import Case, check, load
from golden.models import model_of
from golden.synthetic_inputs import synthetic_mask, synthetic_video

from sam2_pipeline.compat import SAM2VideoPredictor, build_sam2_video_predictor

CASES = [
    "video_add_object_later",
    "video_argmax_switch",
    "video_clear_prompts",
    "video_mask_prompt",
    "video_mid_both_ways",
    "video_one_click",
    "video_refine_same_frame",
    "video_two_objects",
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def predictor_of(case: Case) -> SAM2VideoPredictor:
    overrides = [f"++model.{key}={value}" for key, value in case.meta["config_overrides"].items()]
    return build_sam2_video_predictor(
        case.meta["model"], device="cpu", hydra_overrides_extra=overrides, model=model_of(case.meta)
    )  # fmt: skip


def records(state: dict[str, Any], frame: int) -> list[dict[str, Any]]:
    """The stored result of every object on a frame, the newest kind first."""
    found = []
    for index in state["obj_idx_to_id"]:
        stores = [state[name][index] for name in ("temp_output_dict_per_obj", "output_dict_per_obj")]
        kinds = [store[kind] for store in stores for kind in ("cond_frame_outputs", "non_cond_frame_outputs")]
        found.append(next(outputs[frame] for outputs in kinds if frame in outputs))
    return found


def stack(frames: list[list[dict[str, Any]]], key: str) -> np.ndarray:
    return torch.stack([torch.stack([r[key].float().squeeze(0).squeeze(0) for r in row]) for row in frames]).numpy()


def stored(frames: list[list[dict[str, Any]]], memory: bool) -> dict[str, np.ndarray]:
    arrays = {
        "low_res": stack(frames, "pred_masks"),
        "object_score": stack(frames, "object_score_logits"),
        "obj_ptr": stack(frames, "obj_ptr"),
    }
    if memory:
        arrays["memory"] = stack(frames, "maskmem_features").reshape(len(frames), len(frames[0]), -1)[..., ::61]
    return arrays


def shown(masks: list[torch.Tensor]) -> dict[str, np.ndarray]:
    logits = torch.stack([m[:, 0] for m in masks]).numpy()
    return {"video_res": logits, "video_bits": logits > 0}


def run(predictor: SAM2VideoPredictor, state: Any, op: dict[str, Any]) -> dict[str, np.ndarray]:
    """One operation of a script, as the arrays of the golden case."""
    match op["op"]:
        case "points":
            keys = {k: op[k] for k in ("points", "labels", "box", "clear_old_points", "normalize_coords") if k in op}
            _, ids, masks = predictor.add_new_points_or_box(state, op["frame"], op["obj"], **keys)
            return stored([[latest(state, op, ids)]], memory=False) | shown([masks])
        case "mask":
            mask = synthetic_mask(**{key: value for key, value in op["mask"].items() if key != "kind"})
            _, ids, masks = predictor.add_new_mask(state, op["frame"], op["obj"], mask)
            return stored([[latest(state, op, ids)]], memory=False) | shown([masks])
        case "propagate":
            keys = (op.get("start"), op.get("max_frames"), op.get("reverse", False))
            results = [(f, masks.clone()) for f, _, masks in predictor.propagate_in_video(state, *keys)]
            rows = [records(state, frame) for frame, _ in results]
            return stored(rows, memory=True) | shown([masks for _, masks in results])
        case "clear_prompts":
            _, _, masks = predictor.clear_all_prompts_in_frame(state, op["frame"], op["obj"])
            return {"video_res": shown([masks])["video_res"]}
    raise AssertionError(op)


def latest(state: Any, op: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """What a prompt stored for its object; other objects may have nothing on the frame yet."""
    temporary = state["temp_output_dict_per_obj"][ids.index(op["obj"])]
    return (temporary["cond_frame_outputs"] | temporary["non_cond_frame_outputs"])[op["frame"]]


def test_script(case: Case) -> None:
    torch.set_num_threads(1)
    given = case.meta["input"]
    predictor = predictor_of(case)
    frames = torch.from_numpy(synthetic_video(given["n_frames"], case.meta["image_size"], given["seed"], given.get("hide", ())))
    size = (given["video_height"], given["video_width"])
    state = predictor.init_state(frames, video_height=size[0], video_width=size[1])
    for number, op in enumerate(case.meta["script"]):
        arrays = run(predictor, state, op)
        wanted = {f"op{number:02d}/{key}": value for key, value in arrays.items()}
        check(case, {key: value for key, value in wanted.items() if key in case.arrays})
        assert any(key in case.arrays for key in wanted), f"nothing of operation {number} was compared"
    check_bookkeeping(case, state)


def check_bookkeeping(case: Case, state: Any) -> None:
    for index, object_id in state["obj_idx_to_id"].items():
        wanted = case.meta["final_state"][str(object_id)]
        outputs = state["output_dict_per_obj"][index]
        assert sorted(outputs["cond_frame_outputs"]) == sorted(wanted["conditioning_frames"])
        assert sorted(outputs["non_cond_frame_outputs"]) == sorted(wanted["other_frames"])
        tracked = {str(frame): entry["reverse"] for frame, entry in state["frames_tracked_per_obj"][index].items()}
        assert tracked == wanted["frames_tracked"]
