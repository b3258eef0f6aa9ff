"""Scripts as people wrote them for `facebookresearch/sam2`, with nothing but the import changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.models import synthetic_model
from golden.synthetic_inputs import synthetic_frame, synthetic_mask
from PIL import Image

from sam2_pipeline.compat import (
    SAM2AutomaticMaskGenerator,
    SAM2ImagePredictor,
    SAM2VideoPredictor,
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model.sam2 import Sam2

HEIGHT, WIDTH = 60, 80
CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"


@pytest.fixture(scope="module")
def model() -> Sam2:
    torch.set_num_threads(1)
    return synthetic_model(image_size=128)


@pytest.fixture(scope="module")
def checkpoint(model: Sam2, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("checkpoints") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [synthetic_frame(t, HEIGHT, WIDTH, seed=2) for t in range(5)]


@pytest.fixture(scope="module")
def folder(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("JPEGImages") / "clip"
    path.mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{t:05d}.jpg", quality=95)
    return str(path)


def test_the_image_notebook(checkpoint: str, frames: list[np.ndarray]) -> None:
    predictor = SAM2ImagePredictor(build_sam2(CONFIG, checkpoint, device="cpu", image_size=128))
    predictor.set_image(Image.fromarray(frames[0]))
    input_point, input_label = np.array([[30, 20]]), np.array([1])
    masks, scores, logits = predictor.predict(point_coords=input_point, point_labels=input_label, multimask_output=True)
    sorted_ind = np.argsort(scores)[::-1]
    masks, scores, logits = masks[sorted_ind], scores[sorted_ind], logits[sorted_ind]
    assert masks.shape == (3, HEIGHT, WIDTH) and scores.shape == (3,) and logits.shape == (3, 32, 32)
    masks, scores, _ = predictor.predict(
        point_coords=np.array([[30, 20], [50, 40]]),
        point_labels=np.array([1, 1]),
        mask_input=logits[np.argmax(scores), :, :][None, :, :],
        multimask_output=False,
    )
    assert masks.shape == (1, HEIGHT, WIDTH)
    boxes = np.array([[10, 10, 40, 40], [30, 20, 70, 50]])
    masks, scores, _ = predictor.predict(point_coords=None, point_labels=None, box=boxes, multimask_output=False)
    assert masks.shape == (2, 1, HEIGHT, WIDTH) and scores.shape == (2, 1)
    predictor.set_image_batch([frames[0], frames[1][:40]])
    batch, _, _ = predictor.predict_batch(None, None, box_batch=[boxes, boxes[:1]], multimask_output=False)
    assert [m.shape for m in batch] == [(2, 1, HEIGHT, WIDTH), (1, 40, WIDTH)]
    assert predictor.get_image_embedding().shape == (2, 256, 8, 8)


def test_a_batch_of_pictures_is_each_alone(model: Sam2, frames: list[np.ndarray]) -> None:
    predictor = SAM2ImagePredictor(model)
    points, labels = [np.array([[30, 20]]), np.array([[15, 30]])], [np.array([1]), np.array([1])]
    predictor.set_image_batch([frames[0], frames[4]])
    together = predictor.predict_batch(points, labels, return_logits=True)
    for index, frame in enumerate((frames[0], frames[4])):
        predictor.set_image(frame)
        alone = predictor.predict(points[index], labels[index], return_logits=True)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[index], b, atol=2e-3)


def test_a_failed_set_image_forgets_the_old_one(model: Sam2, frames: list[np.ndarray]) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(frames[0])
    with pytest.raises(NotImplementedError):
        predictor.set_image("picture.jpg")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(np.array([[1, 1]]), np.array([1]))


def test_the_automatic_notebook(model: Sam2, frames: list[np.ndarray]) -> None:
    options = {"points_per_side": 4, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.2, "crop_n_layers": 1}
    generator = SAM2AutomaticMaskGenerator(build_sam2(CONFIG, None, device="cpu", model=model), **options, use_m2m=True)
    masks = generator.generate(frames[0])
    assert masks
    keys = {"segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"}
    assert set(masks[0]) == keys and masks[0]["segmentation"].dtype == bool
    assert all(int(m["segmentation"].sum()) == m["area"] for m in masks)
    coco = SAM2AutomaticMaskGenerator(model, **options, use_m2m=True, output_mode="coco_rle").generate(frames[0])
    assert [m["area"] for m in coco] == [m["area"] for m in masks]


def test_the_video_notebook(checkpoint: str, folder: str) -> None:
    predictor = build_sam2_video_predictor(CONFIG, checkpoint, device=torch.device("cpu"), image_size=128)
    inference_state = predictor.init_state(video_path=folder)
    predictor.reset_state(inference_state)
    points, labels = np.array([[40, 30]], dtype=np.float32), np.array([1], np.int32)
    _, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
        inference_state=inference_state, frame_idx=0, obj_id=1, points=points, labels=labels
    )
    assert (out_mask_logits[0] > 0.0).cpu().numpy().shape == (1, HEIGHT, WIDTH) and list(out_obj_ids) == [1]
    video_segments = {}
    for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(inference_state):
        video_segments[out_frame_idx] = {
            out_obj_id: (out_mask_logits[i] > 0.0).cpu().numpy() for i, out_obj_id in enumerate(out_obj_ids)
        }
    assert sorted(video_segments) == list(range(5))
    predictor.add_new_points_or_box(
        inference_state, frame_idx=2, obj_id=1, points=points, labels=labels * 0, clear_old_points=False
    )
    predictor.add_new_points_or_box(inference_state, 0, 2, box=np.array([10, 10, 40, 40], np.float32))
    assert [len(ids) for _, ids, _ in predictor.propagate_in_video(inference_state)] == [2] * 5
    ids, updated = predictor.remove_object(inference_state, 2)
    assert ids == [1] and updated[0][1].shape == (1, 1, HEIGHT, WIDTH)
    assert inference_state["num_frames"] == 5 and inference_state["video_height"] == HEIGHT


@torch.inference_mode()
@torch.autocast(device_type="cpu", dtype=torch.bfloat16)
def test_vos_inference(checkpoint: str, folder: str, tmp_path: Path) -> None:
    """The flow of ``tools/vos_inference.py``: first-frame masks from a palette PNG, one palette PNG per frame out."""
    palette_png = np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id in (1, 2):
        palette_png[synthetic_mask(HEIGHT, WIDTH, seed=2, blob=object_id)] = object_id
    predictor = build_sam2_video_predictor(
        config_file=CONFIG,
        ckpt_path=checkpoint,
        apply_postprocessing=False,
        hydra_overrides_extra=["++model.non_overlap_masks=true", "++model.image_size=128"],
        vos_optimized=False,
        device="cpu",
    )
    state = predictor.init_state(video_path=folder, async_loading_frames=False)
    for object_id in (1, 2):
        predictor.add_new_mask(inference_state=state, frame_idx=0, obj_id=object_id, mask=palette_png == object_id)
    for frame, ids, logits in predictor.propagate_in_video(state):
        per_object = {object_id: (logits[i] > 0.0).cpu().numpy() for i, object_id in enumerate(ids)}
        output = np.zeros((HEIGHT, WIDTH), np.uint8)
        for object_id in sorted(per_object, reverse=True):
            output[per_object[object_id].reshape(HEIGHT, WIDTH)] = object_id
        Image.fromarray(output, mode="P").save(tmp_path / f"{frame:05d}.png")
    written = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*.png"))]
    assert len(written) == 5 and (written[0] == palette_png).mean() > 0.95


def test_sources_of_frames_agree(model: Sam2, folder: str, frames: list[np.ndarray]) -> None:
    """A folder, the same pictures as arrays, and prepared tensors give the same masks; so does state kept elsewhere."""
    predictor = SAM2VideoPredictor(model, build_sam2_video_predictor(CONFIG, device="cpu", model=model).options)
    pictures = [np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())]
    states = [
        predictor.init_state(folder),
        predictor.init_state(pictures, offload_state_to_cpu=True, async_loading_frames=True),
        predictor.init_state(Path(folder).as_uri(), offload_video_to_cpu=True),
    ]
    prepared = torch.stack([states[0]["images"][t] for t in range(5)])
    states.append(predictor.init_state(prepared, video_height=HEIGHT, video_width=WIDTH))
    found = []
    for state in states:
        predictor.add_new_points_or_box(state, 0, 1, points=[[40, 30]], labels=[1])
        found.append(torch.stack([masks for _, _, masks in predictor.propagate_in_video(state)]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-4, rtol=0)


def test_builders_by_hugging_face_id(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM2_PIPELINE_CACHE", str(Path(checkpoint).parent))
    assert build_sam2_hf("facebook/sam2.1-hiera-tiny", device="cpu").image_size == 1024
    predictor = build_sam2_video_predictor_hf("facebook/sam2.1-hiera-tiny", device="cpu", image_size=128)
    assert predictor.image_size == 128 and predictor.options.fill_hole_area == 8


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({"points": [[1, 1]]}, ValueError),
        ({}, ValueError),
        ({"box": [1, 1, 5, 5], "clear_old_points": False}, ValueError),
        ({"points": [[1, 1], [2, 2]], "labels": [1]}, ValueError),
        ({"points": [[float("nan"), 1]], "labels": [1]}, ValueError),
    ],
)
def test_wrong_prompts(model: Sam2, frames: list[np.ndarray], call: dict, error: type[Exception]) -> None:
    predictor = build_sam2_video_predictor(CONFIG, device="cpu", model=model)
    state = predictor.init_state(frames)
    with pytest.raises(error):
        predictor.add_new_points_or_box(state, 0, 1, **call)
    assert state["obj_ids"] == []
    with pytest.raises(RuntimeError):
        next(predictor.propagate_in_video(state))


@pytest.mark.parametrize(
    "override", ["++model.no_such_option=1", "model", "++model.num_maskmem=3", "++model.max_cond_frames_in_attn=1"]
)
def test_unknown_overrides_are_refused(model: Sam2, override: str) -> None:
    with pytest.raises(ConfigError):
        build_sam2_video_predictor(CONFIG, device="cpu", model=model, hydra_overrides_extra=[override])


def test_every_override_reaches_the_options(model: Sam2) -> None:
    overrides = [
        "++model.max_cond_frames_in_attn=4",
        "++model.memory_temporal_stride_for_eval=2",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.1",
        "++model.fill_hole_area=0",
        "++model.binarize_mask_from_pts_for_mem_enc=false",
        "++model.add_all_frames_to_correct_as_cond=true",
        "++model.multimask_max_pt_num=0",
        "++model.num_maskmem=7",
    ]
    options = build_sam2_video_predictor(CONFIG, device="cpu", model=model, hydra_overrides_extra=overrides).options
    assert (options.memory.max_conditioning_frames, options.memory.stride) == (4, 2)
    assert options.decoding.stability_offset == 0.1 and options.decoding.multimask_points == (0, 0)
    assert options.fill_hole_area == 0 and not options.binarise_prompted and options.corrections_condition
