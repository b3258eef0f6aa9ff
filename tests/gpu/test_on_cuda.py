"""The network on a CUDA device: golden masks in float32, the same masks in bfloat16, rows that do not feel each other, a step of
training. Needs PyTorch, NumPy and what `sam2_pipeline.compat` imports; no cluster, no network, half a minute."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import goldens
from golden.models import model_of, synthetic_model
from golden.synthetic_inputs import smooth_noise, synthetic_frame, synthetic_mask, synthetic_video
from torch import Tensor

from sam2_pipeline.compat import SAM2ImagePredictor, build_sam2, build_sam2_video_predictor
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.model.positions import sine_2d
from sam2_pipeline.segment.video import VideoSegmenter

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

DEVICE = "cuda"
VIDEOS = ["video_two_objects", "video_mask_prompt"]
SAME = 0.999  # IoU of masks in float32
ALIKE = 0.95  # between bfloat16 and float32: with synthetic weights, which make rounding grow, it is 0.975 and 0.990 on a CPU


@pytest.fixture(autouse=True, scope="module")
def _float32_is_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def pooled_iou(ours: np.ndarray, golden: np.ndarray) -> float:
    """Of all the pixels of all the masks together, which must not be all or nothing."""
    assert ours.shape == golden.shape and 0.001 < golden.mean() < 0.999
    return float((ours & golden).sum() / (ours | golden).sum())


def mean_iou(ours: np.ndarray, others: np.ndarray) -> float:
    """Over masks ``[..., H, W]``; where both are empty they are the same."""
    both, either = (ours & others).sum((-2, -1)), (ours | others).sum((-2, -1))
    return float(np.where(either > 0, both / either.clip(1), 1).mean())


def golden_bits(case: goldens.Case, key: str) -> np.ndarray:
    shape = case.meta["arrays"][key]["full_shape"]
    return np.unpackbits(case.arrays[key], count=math.prod(shape)).reshape(shape).astype(bool)


# ---------------------------------------------------------------------------------------------------------------- videos


def prompted(predictor: Any, state: Any, op: dict[str, Any]) -> Tensor:
    """Mask logits ``[objects, 1, H, W]`` of the frame that a prompt is on."""
    if op["op"] == "mask":
        mask = synthetic_mask(**{key: value for key, value in op["mask"].items() if key != "kind"})
        return predictor.add_new_mask(state, op["frame"], op["obj"], mask)[2]
    given = {key: op[key] for key in ("points", "labels", "box") if key in op}
    return predictor.add_new_points_or_box(state, op["frame"], op["obj"], **given)[2]


def masks_of(case: goldens.Case, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """What every operation of a case's script shows, bool ``[frames, objects, H, W]``."""
    model = model_of(case.meta).to(DEVICE)
    model.compute_dtype = dtype
    overrides = [f"++model.{key}={value}" for key, value in case.meta["config_overrides"].items()]
    predictor = build_sam2_video_predictor(case.meta["model"], device=DEVICE, hydra_overrides_extra=overrides, model=model)
    given = case.meta["input"]
    frames = torch.from_numpy(synthetic_video(given["n_frames"], case.meta["image_size"], given["seed"]))
    state = predictor.init_state(frames, video_height=given["video_height"], video_width=given["video_width"])
    found = {}
    for number, op in enumerate(case.meta["script"]):
        if op["op"] == "propagate":
            logits = torch.stack([masks[:, 0] for _, _, masks in predictor.propagate_in_video(state)])
        else:
            logits = prompted(predictor, state, op)[None, :, 0]
        assert logits.device.type == DEVICE
        found[f"op{number:02d}/video_bits"] = (logits > 0).cpu().numpy()
    return found


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_as_the_reference_has_them(name: str) -> None:
    case = goldens.load(name)
    for key, masks in masks_of(case, torch.float32).items():
        assert pooled_iou(masks, golden_bits(case, key)) >= SAME, key


@pytest.mark.parametrize("name", VIDEOS)
def test_bfloat16_draws_the_same_masks(name: str) -> None:
    case = goldens.load(name)
    exact, rounded = (masks_of(case, dtype)["op02/video_bits"] for dtype in (torch.float32, torch.bfloat16))
    assert mean_iou(rounded, exact) >= ALIKE


def test_tracking_together_is_tracking_alone() -> None:
    """Two objects in one batch, the second from frame 2 on, and each in a pass of its own."""
    video = [synthetic_frame(t, 120, 200, 2) for t in range(6)]
    prompts = [Prompt(5, 0, np.array([[82.0, 44.0]]), np.array([1])), Prompt(9, 2, box_xyxy=np.array([22.0, 21.0, 82.0, 91.0]))]
    segmenter = VideoSegmenter(synthetic_model().to(DEVICE))
    together, alone = tracks(segmenter, video, prompts), {}
    for prompt in prompts:
        alone |= tracks(segmenter, video, [prompt])
    assert together.keys() == alone.keys() and len(alone) == 6 + 4
    ours, others = (np.stack([found[key] for key in sorted(alone)]) for found in (together, alone))
    assert pooled_iou(ours > 0, others > 0) >= SAME
    assert np.abs(ours - others).mean() < 1e-2


def tracks(segmenter: VideoSegmenter, video: list[np.ndarray], prompts: list[Prompt]) -> dict[tuple[int, int], np.ndarray]:
    """{(object, frame): logits} of one forward pass."""
    return {
        (object_id, result.frame_index): result.logits_NHW[row].cpu().numpy()
        for result in segmenter.track(video, prompts)
        for row, object_id in enumerate(result.object_ids)
    }


# ------------------------------------------------------------------------------------------------------- pictures and parts


def test_pictures_are_as_the_reference_has_them() -> None:
    case = goldens.load("image_predictor_tiny_256")
    given, side = case.meta["input"], case.meta["image_size"] // 4
    predictor = SAM2ImagePredictor(build_sam2(case.meta["model"], device=DEVICE, model=model_of(case.meta).to(DEVICE)))
    predictor.set_image(synthetic_frame(given["t"], given["height"], given["width"], given["seed"]))
    found, golden = [], []
    for number, prompt in enumerate(case.meta["prompts"]):
        if f"p{number:02d}/bits" not in case.arrays:
            continue
        arguments = {key: np.array(prompt[key]) for key in ("point_coords", "point_labels", "box") if key in prompt}
        arguments |= {key: prompt[key] for key in ("multimask_output", "normalize_coords") if key in prompt}
        if "mask_input" in prompt:
            noise = prompt["mask_input"]
            arguments["mask_input"] = smooth_noise((1, side, side), noise["seed"], noise["cells"], noise["amplitude"])
        masks, iou, _ = predictor.predict(**arguments)
        found.append((masks > 0).ravel())
        golden.append(golden_bits(case, f"p{number:02d}/bits").ravel())
        np.testing.assert_allclose(iou, case.arrays[f"p{number:02d}/iou"], atol=1e-3)
    assert len(found) >= 5 and pooled_iou(np.concatenate(found), np.concatenate(golden)) >= SAME


def test_memory_attention_is_as_the_reference_has_it() -> None:
    """Two rows that read seven memories and sixteen pointers: the golden case ``memory_attention_7``."""
    case = goldens.load("memory_attention_7")
    N, M, P, side = 2, 7, 16, 16
    draws = {seed: np.random.RandomState(seed).standard_normal for seed in (60, 80, *range(70, 70 + M))}
    maps = [noise((N, 64, side, side), 40 + i, 7, 1.2).flatten(2).transpose(1, 2) for i in range(M)]
    pointers = tensor(draws[60]((P, N, 256)) * 0.5).transpose(0, 1).reshape(N, P * 4, 64)
    place = sine_2d(64, side, side, torch.device(DEVICE)).flatten(1).T
    positions = [place + tensor(draws[70 + i]((1, 64)) * 0.5) for i in range(M)]
    positions.append(tensor(draws[80]((P, 64)) * 0.5).repeat_interleave(4, dim=0))
    with torch.inference_mode():
        out = synthetic_model().to(DEVICE).memory_attention(
            noise((N, 256, side, side), 31, 6, 3.5), sine_2d(256, side, side, torch.device(DEVICE)),
            torch.arange(N, device=DEVICE), torch.cat((*maps, pointers), dim=1), torch.cat(positions).expand(N, -1, -1), 4 * P,
        )  # fmt: skip
    found = goldens.summaries(case, "out", out.flatten(2).permute(2, 0, 1).cpu().numpy())
    for key, value in found.items():
        golden = case.arrays[key]
        off = goldens.sample(case.meta["arrays"][key], value) - golden
        assert np.linalg.norm(off) < 1e-4 * np.linalg.norm(golden), key


def noise(shape: tuple[int, ...], seed: int, cells: int, amplitude: float) -> Tensor:
    return tensor(smooth_noise(shape, seed, cells, amplitude))


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float().to(DEVICE)


# ---------------------------------------------------------------------------------------------------------------- training


def test_a_step_of_training_in_bfloat16(tmp_path: Path) -> None:
    from sam2_pipeline.training.settings import TrainConfig  # these need PyArrow and PyAV too
    from sam2_pipeline.training.trainer import train

    settings = (
        "model.checkpoint=null", "data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.num_scenes=6",
        "data.frames=3",
        "data.max_stride=1", "data.objects=2", "prompts.corrections=1", "optim.steps=1", "optim.warmup=0", "run.log_every=1",
        f"run.device={DEVICE}", "run.bfloat16=true", f"run.output={tmp_path}",
    )  # fmt: skip
    weights = train(TrainConfig.load(None, settings))
    with open(tmp_path / "log.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert weights.exists() and math.isfinite(float(row["total"]))


def test_a_graph_gives_the_gradients_of_its_kernels() -> None:
    """A batch of pictures and one of clips: twice kernel by kernel, then recorded, then replayed after another batch was."""
    from sam2_pipeline.model.checkpoint import build_model
    from sam2_pipeline.training.clip_forward import ClipLearner
    from sam2_pipeline.training.graphs import GraphedSteps
    from sam2_pipeline.training.loading import materials
    from sam2_pipeline.training.schedule import Schedule
    from sam2_pipeline.training.settings import TrainConfig

    prompts = "prompts={mask: 0.0, box: 0.0, corrections: 1, conditioning_frames: 1, corrected_frames: 1}"
    common = ("data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.objects=2", prompts,
              "run.cuda_graphs=true", "optim.steps=2")  # fmt: skip
    model = build_model("sam2_pipeline_small", device=DEVICE).train()
    parameters = list(model.parameters())

    def norm() -> Tensor:
        return torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()

    for frames in (1, 3):
        config = TrainConfig.load(None, [*common, f"data.frames={frames}", "data.image_share=0"])
        one, other = (material.to(torch.device(DEVICE)).batch(0) for material in materials(Schedule(config), 0))
        steps = GraphedSteps(ClipLearner(model, config.loss), parameters, norm)
        found = []
        for batch in (one, one, other, one):
            outcome, length = steps.take(batch)
            assert length.isfinite()
            found.append((outcome.losses.total.item(), [None if p.grad is None else p.grad.clone() for p in parameters]))
        (loss, gradients), _, (another, _), (replayed, again) = found
        assert replayed == pytest.approx(loss, rel=1e-4) and another != pytest.approx(loss, rel=1e-4)
        for a, b in zip(gradients, again, strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or (a - b).norm() <= 1e-3 * a.norm() + 1e-6


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_recorded_steps_learn_as_others_do(tmp_path: Path, kind: str) -> None:
    """The same run twice, once with every step kernel by kernel: of five steps, three are recorded."""
    from sam2_pipeline.training.settings import TrainConfig
    from sam2_pipeline.training.trainer import Trainer

    settings = (
        "model.checkpoint=null", "data.batch=4", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.frames=1",
        "data.objects=2", "prompts={mask: 0.0, box: 0.0, corrections: 1}", "loss.pixels=0.5", "loss.stride=2",
        f"optim.kind={kind}", "optim.steps=5", "optim.warmup=2", "run.log_every=1", "run.cuda_graphs=true",
        f"run.device={DEVICE}",
    )  # fmt: skip
    found = []
    for recorded in (True, False):
        trainer = Trainer(TrainConfig.load(None, [*settings, f"run.output={tmp_path / str(recorded)}"]), lambda _: None)
        trainer.graphs = trainer.graphs if recorded else None
        trainer.run()
        with open(tmp_path / str(recorded) / "log.csv", newline="") as file:
            found.append([(float(row["total"]), float(row["rate"])) for row in csv.DictReader(file)])
    (ours, rates), (others, same) = (zip(*values, strict=True) for values in found)
    assert rates == same and len(ours) == 5 and ours[4] != pytest.approx(ours[0], rel=1e-3)
    assert ours == pytest.approx(others, rel=0.03)
