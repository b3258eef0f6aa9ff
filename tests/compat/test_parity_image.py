"""`SAM2ImagePredictor` and `SAM2AutomaticMaskGenerator` against the reference."""

import numpy as np
import pytest
import torch
from golden.goldens import check, load, summaries
from golden.models import model_of
from golden.synthetic_inputs import smooth_noise, synthetic_frame

from sam2_pipeline.compat import SAM2AutomaticMaskGenerator, SAM2ImagePredictor, build_sam2


@pytest.mark.parametrize("name", ["image_predictor_tiny_256", "image_predictor_tiny_1024"])
def test_image_predictor(name: str) -> None:
    torch.set_num_threads(1)
    case = load(name)
    given = case.meta["input"]
    predictor = SAM2ImagePredictor(build_sam2(case.meta["model"], device="cpu", model=model_of(case.meta)))
    predictor.set_image(synthetic_frame(given["t"], given["height"], given["width"], given["seed"]))
    check(case, summaries(case, "image_embed", predictor.get_image_embedding().numpy()))
    features = predictor._embeddings[0].features
    check(case, summaries(case, "high_res_0", features.stride4_VCHW.numpy()))
    check(case, summaries(case, "high_res_1", features.stride8_VCHW.numpy()))
    for number, prompt in enumerate(case.meta["prompts"]):
        arguments = {key: np.array(value) for key, value in prompt.items() if key in ("point_coords", "point_labels", "box")}
        arguments |= {key: prompt[key] for key in ("multimask_output", "normalize_coords") if key in prompt}
        if "mask_input" in prompt:
            noise = prompt["mask_input"]
            side = case.meta["image_size"] // 4
            arguments["mask_input"] = smooth_noise((1, side, side), noise["seed"], noise["cells"], noise["amplitude"])
        logits, iou, low = predictor.predict(**arguments, return_logits=True)
        masks, _, _ = predictor.predict(**arguments)
        assert masks.dtype == np.float32 and set(np.unique(masks)) <= {0.0, 1.0}
        found = {"logits": logits, "bits": masks > 0, "iou": iou, "low_res": low, "masks": logits}
        arrays = {f"p{number:02d}/{key}": value for key, value in found.items() if f"p{number:02d}/{key}" in case.arrays}
        assert len(arrays) >= 3, f"prompt {number}: only {list(arrays)} compared"
        check(case, arrays)


def test_automatic_masks() -> None:
    torch.set_num_threads(1)
    case = load("amg_basic")
    given = case.meta["input"]
    model = build_sam2(case.meta["model"], device="cpu", model=model_of(case.meta))
    image = synthetic_frame(given["t"], given["height"], given["width"], given["seed"])
    records = SAM2AutomaticMaskGenerator(model, **case.meta["options"]).generate(image)
    assert len(records) == case.meta["n_records"]
    check(
        case,
        {
            "area": np.array([r["area"] for r in records], np.int32),
            "bbox_xywh": np.array([r["bbox"] for r in records], np.float32),
            "predicted_iou": np.array([r["predicted_iou"] for r in records], np.float32),
            "stability_score": np.array([r["stability_score"] for r in records], np.float32),
            "point": np.array([r["point_coords"][0] for r in records], np.float32),
            "crop_box_xywh": np.array([r["crop_box"] for r in records], np.float32),
            "bits": np.stack([r["segmentation"] for r in records]),
        },
    )
    uncompressed = SAM2AutomaticMaskGenerator(model, **case.meta["options"], output_mode="uncompressed_rle").generate(image)
    assert [r["segmentation"]["counts"] for r in uncompressed[:3]] == case.meta["rle_counts_of_the_first_3"]
