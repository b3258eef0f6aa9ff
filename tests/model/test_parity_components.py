"""Every part of the network against the numbers of the public reference (``tests/golden``)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from golden import goldens
from golden.models import model_of, synthetic_model
from golden.synthetic_inputs import smooth_noise, synthetic_frame, synthetic_video
from PIL import Image
from torch import Tensor, nn

from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT, DecodingRules
from sam2_pipeline.model.image_encoder import FrameFeatures, normalise
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.model.mask_decoder import stability
from sam2_pipeline.model.memory_bank import (
    MAX_POINTERS,
    NUM_RECENT,
    MemoryRules,
    closest_conditioning_frames,
    plan_reading,
    recent_frames,
)
from sam2_pipeline.model.positions import rotary_tables, sine_1d, sine_2d
from sam2_pipeline.model.sam2 import Sam2, settle


class Recorder:
    """Collects full arrays under the names of a golden case, and then checks them all, leaving none of the case out."""

    def __init__(self, case: goldens.Case, *, besides: Callable[[str], bool] = lambda key: False):
        self.case, self.besides = case, besides
        self.found: dict[str, np.ndarray] = {}

    def __setitem__(self, key: str, value: Tensor | np.ndarray) -> None:
        self.found |= goldens.summaries(self.case, key, np.asarray(value))

    @contextmanager
    def listening(self, modules: dict[str, nn.Module]) -> Iterator[None]:
        """While open, what these modules return is recorded."""

        def hook(key: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, arguments, result: self.__setitem__(key, result)

        handles = [module.register_forward_hook(hook(key)) for key, module in modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check(self) -> None:
        missing = [key for key in self.case.arrays if key not in self.found and not self.besides(key)]
        assert not missing, f"the test never computes {missing}"
        ratio = goldens.check(self.case, self.found)
        print(f"{self.case.name}: {ratio:.2f} of the tolerance")


def noise(shape: tuple[int, ...], seed: int, cells: int, amplitude: float) -> Tensor:
    return torch.from_numpy(smooth_noise(shape, seed, cells, amplitude))


# ------------------------------------------------------------------------------------------------------------ image encoder


def test_image_encoder() -> None:
    case = goldens.load("encoder_tiny_256")
    model, record = model_of(case.meta), Recorder(case)
    side, trunk, neck, decoder = 256, *model.image_encoder.children(), model.sam_mask_decoder
    images = torch.from_numpy(synthetic_video(1, side, case.meta["input"]["seed"]))
    record["input"] = images
    record["trunk_pos_embed"] = trunk.position_embedding(side // 4)
    with record.listening({"patch_embed": trunk.patch_embed} | {f"block_{i:02}": block for i, block in enumerate(trunk.blocks)}):
        features = model.encode_frames(images)
    stages = trunk(images)
    for level, stage in enumerate(stages):
        record[f"stage_{level}"] = stage
    record["fpn_0"], record["fpn_1"] = neck.convs[3].conv(stages[0]), neck.convs[2].conv(stages[1])
    record["fpn_2"], record["s1"], record["s0"] = features.stride16_VDHW, features.stride8_VCHW, features.stride4_VCHW
    for level in range(3):
        record[f"pos_{level}"] = sine_2d(256, side >> level + 2, side >> level + 2)[None]
    record.check()
    torch.testing.assert_close(features.stride4_VCHW, decoder.conv_s0(neck.convs[3].conv(stages[0])), rtol=0, atol=2e-5)


# -------------------------------------------------------------------------------------------------- prompts and their masks


def test_prompt_encoder() -> None:
    case = goldens.load("prompt_encoder")
    encoder, record = model_of(case.meta).sam_prompt_encoder, Recorder(case)
    given = case.meta["input"]
    points, labels = torch.tensor(given["points"]), torch.tensor(given["labels"])
    corners, corner_labels = torch.tensor(given["boxes"]).view(2, 2, 2), torch.tensor([[2, 3]]).expand(2, 2)
    record["points/sparse"] = encoder.encode_points(points, labels)
    record["points/dense"] = encoder.no_mask().expand(2, -1, 16, 16)
    # The reference's box argument adds no padding point; here boxes are points, which always get one.
    record["boxes/sparse"] = encoder.encode_points(corners, corner_labels)[:, :-1]
    both = encoder.encode_points(torch.cat((points, corners), dim=1), torch.cat((labels, corner_labels), dim=1))
    record["points_boxes/sparse"] = both[:, :-1]
    record["mask/dense"] = encoder.encode_masks(noise((2, 1, 64, 64), 51, 6, 10)[:, 0])
    record["dense_pe"] = encoder.image_positions()
    record.check()


def decoder_inputs(case: goldens.Case) -> tuple[FrameFeatures, Tensor, Tensor]:
    """(features of one picture, points, labels) of the mask decoder case."""
    features = FrameFeatures(
        noise((1, 256, 16, 16), 11, 5, 3.5), noise((1, 64, 32, 32), 13, 9, 2.0), noise((1, 32, 64, 64), 12, 9, 1.5)
    )
    return features, torch.tensor(case.meta["input"]["points"]), torch.tensor(case.meta["input"]["labels"])


def test_mask_decoder() -> None:
    case = goldens.load("mask_decoder")
    model, record = model_of(case.meta), Recorder(case)
    features, points, labels = decoder_inputs(case)
    encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    decoded = decoder.attend(
        features.stride16_VDHW + encoder.no_mask(), encoder.image_positions(), encoder.encode_points(points, labels)
    )
    upscaled = decoder.upscale(decoded.image_NDHW, features.stride8_VCHW, features.stride4_VCHW)
    logits = decoder.draw(upscaled, decoded.mask_tokens_NMD, torch.arange(4).expand(6, 4))
    tokens, iou = decoded.mask_tokens_NMD, decoded.predicted_iou_NM
    record["raw/masks"], record["raw/iou"], record["raw/tokens"] = logits, iou, tokens
    record["raw/object_score"] = decoded.object_score_N[:, None]
    record["multi/masks"], record["multi/iou"], record["multi/tokens"] = logits[:, 1:], iou[:, 1:], tokens[:, 1:]
    record["single/stability"] = stability(logits[:, 0], DecodingRules().stability_offset)[:, None]
    record["single/tokens"] = tokens[:, :1]

    best_N = iou[:, 1:].argmax(dim=1) + 1
    settled, stable_N = settle(torch.stack((logits[:, 0], logits[torch.arange(6), best_N]), dim=1), DecodingRules())
    record["single/masks"] = settled[:, None]
    record["single/iou"] = torch.where(stable_N, iou[:, 0], iou[torch.arange(6), best_N])[:, None]
    record["plain/masks"], record["plain/iou"] = logits[:, :1], iou[:, :1]
    record.check()
    assert (~stable_N).tolist() == case.meta["results"]["stability_fallback"]
    assert (best_N - 1).tolist() == case.meta["results"]["chosen_multimask"]


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_decode_masks_makes_the_choice_of_the_parts(multimask: bool, dynamic: bool) -> None:
    """The verb picks among the four masks as the golden numbers say, and hides the objects that are not there."""
    case = goldens.load("mask_decoder")
    bias = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
    scores = torch.from_numpy(case.arrays["raw/object_score"])[:, 0]
    shift = scores.sort().values[2:4].mean()  # of the six objects, which are all there, lets three disappear
    own = synthetic_model().get_parameter(bias) - shift
    model, present = synthetic_model(overrides={bias: own}), scores > shift
    features, points, labels = decoder_inputs(case)
    lanes = torch.zeros(6, dtype=torch.long)
    prediction = model.decode_masks(
        features.stride16_VDHW[lanes], features, lanes, points, labels,
        multimask=multimask, rules=DecodingRules(dynamic_multimask=dynamic),
    )  # fmt: skip
    golden = {key: torch.from_numpy(value) for key, value in case.arrays.items()}
    name = "multi" if multimask else "single" if dynamic else "plain"
    row, best = torch.arange(6), torch.tensor(case.meta["results"]["chosen_multimask"]) * multimask
    step = 1 if name == "single" else 4
    expected = torch.where(present[:, None, None], golden[f"{name}/masks"][row, best], NO_OBJECT_LOGIT)
    torch.testing.assert_close(prediction.logits_NHW[:, ::step, ::step], expected, rtol=0, atol=0.02)
    torch.testing.assert_close(prediction.predicted_iou_N, golden[f"{name}/iou"][row, best], rtol=0, atol=1e-3)
    token = golden["multi/tokens"][row, best] if multimask else golden["raw/tokens"][:, 0]
    pointer = torch.where(present[:, None], model.obj_ptr_proj(token), model.no_obj_ptr)
    torch.testing.assert_close(prediction.pointer_ND, pointer, rtol=0, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------------- memory


def test_memory_encoder() -> None:
    case = goldens.load("memory_encoder")
    model, record = model_of(case.meta), Recorder(case)
    encoder, features = model.memory_encoder, FrameFeatures(noise((1, 256, 16, 16), 21, 6, 3.5), *torch.empty(2, 1, 1, 1, 1))
    logits = noise((1, 1, 256, 256), 22, 6, 8)[:, 0]  # at full size already, where resizing changes nothing
    lanes = torch.zeros(1, dtype=torch.long)
    inside = {f"a/mask_downsampler_{i:02}": encoder.mask_downsampler.encoder[i] for i in (2, 5, 8, 11, 12)}
    inside |= {f"a/fuser_{i}": layer for i, layer in enumerate(encoder.fuser.layers)}
    variants = {"a": (logits, 3.0, False), "b": (logits, 3.0, True), "c": (logits, -3.0, False)}
    variants["d"] = (torch.full_like(logits, NO_OBJECT_LOGIT), -3.0, False)
    for name, (masks, score, binarise) in variants.items():
        unrounded: list[Tensor] = []
        handle = encoder.register_forward_hook(lambda module, inputs, result, kept=unrounded: kept.append(result))
        with record.listening(inside if name == "a" else {}):
            memory = model.encode_memory(features, lanes, masks, torch.tensor([score]), binarise=binarise)
        handle.remove()
        expected = unrounded[0] + model.no_obj_embed_spatial[0, :, None, None] if score < 0 else unrounded[0]
        record[f"{name}/memory"] = expected
        assert torch.equal(memory, expected.flatten(2).transpose(1, 2).bfloat16())
    record["a/sum"] = encoder.project_frames(features.stride16_VDHW) + torch.from_numpy(_mask_features(model, logits))
    record["pos"] = sine_2d(64, 16, 16)[None]
    record.check()


def _mask_features(model: Sam2, logits: Tensor) -> np.ndarray:
    return np.asarray(model.memory_encoder.mask_downsampler(logits.sigmoid()[:, None] * 20 - 10))


@pytest.mark.parametrize("name", ["0ptr", "1", "3", "7", "1024"])
def test_memory_attention(name: str) -> None:
    case = goldens.load(f"memory_attention_{name}")
    N, M, P, side = {"0ptr": (1, 2, 0, 16), "1": (1, 1, 1, 16), "3": (1, 3, 3, 16), "7": (2, 7, 16, 16), "1024": (1, 7, 16, 64)}[
        name
    ]
    attention, record = synthetic_model().memory_attention, Recorder(case)  # no weight depends on the image size
    draws = {seed: np.random.RandomState(seed).standard_normal for seed in (60, 80, *range(70, 70 + M))}
    maps = [noise((N, 64, side, side), 40 + i, 7, 1.2).flatten(2).transpose(1, 2) for i in range(M)]
    pointers = torch.from_numpy(draws[60]((P, N, 256)) * 0.5).float().transpose(0, 1).reshape(N, P * 4, 64)
    place = sine_2d(64, side, side).flatten(1).T
    map_positions = [place + torch.from_numpy(draws[70 + i]((1, 64)) * 0.5).float() for i in range(M)]
    pointer_positions = torch.from_numpy(draws[80]((P, 64)) * 0.5).float().repeat_interleave(4, dim=0)
    positions = torch.cat((*map_positions, pointer_positions)).expand(N, -1, -1)

    # A layer is entered through its norm1, so what goes in there is what the layer before gave.
    exits = [layer.norm1 for layer in attention.layers[1:]] + [attention.norm]
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, key=f"layer_{i}": record.__setitem__(key, inputs[0]))
        for i, module in enumerate(exits)
    ]
    frames = noise((N, 256, side, side), 31, 6, 3.5)
    out = attention(frames, sine_2d(256, side, side), torch.arange(N), torch.cat((*maps, pointers), dim=1), positions, 4 * P)
    for handle in handles:
        handle.remove()
    record["out"] = out.flatten(2).permute(2, 0, 1)
    record.check()


# ---------------------------------------------------------------------------------------------------- pictures to network input


def test_preprocessing() -> None:
    case = goldens.load("preprocess")
    record, given = Recorder(case), case.meta["input"]
    for height, width, side in given["sizes_h_w_S"]:
        name = f"{height}x{width}_to_{side}"
        frame = synthetic_frame(given["t"], height, width, given["seed"])
        record[f"{name}/frame"] = frame.astype(np.float32)
        pixels = torch.from_numpy(frame).permute(2, 0, 1)
        record[f"{name}/image_predictor"] = normalise(resize_maps(pixels[None] / 255, (side, side), antialias=True)[0])
        resized = np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))
        record[f"{name}/video_folder"] = normalise(torch.from_numpy(resized).permute(2, 0, 1))
    record.check()


# -------------------------------------------------------------------------------------------------------------- small pieces


UNITS = goldens.load("units")


def test_positions() -> None:
    elsewhere = ("holes", "postprocess", "overlap", "rle", "stability", "nms", "regions", "sine1d_pos")
    record = Recorder(UNITS, besides=lambda key: key.startswith(elsewhere))
    record["sine_256_4x6"], record["sine_64_16x16"] = sine_2d(256, 4, 6)[None], sine_2d(64, 16, 16)[None]
    record["sine_256_64x64"] = sine_2d(256, 64, 64)[None]
    record["rope_5x3_cos"], record["rope_5x3_sin"] = rotary_tables(256, 3, 5)
    record["rope_64x64_cos"], record["rope_64x64_sin"] = rotary_tables(256, 64, 64)
    time = torch.from_numpy(UNITS.arrays["sine1d_pos"])
    record["sine1d_256"], record["sine1d_64"] = sine_1d(time, 256), sine_1d(time, 64)
    record.check()


def test_stability() -> None:
    logits = torch.from_numpy(UNITS.arrays["stability_in"])
    expected = np.nan_to_num(UNITS.arrays["stability_out"], nan=1.0)  # both masks empty: the decoder calls that stable
    np.testing.assert_allclose(stability(logits, 1.0), expected, atol=1e-6)


@pytest.mark.parametrize("unit", UNITS.meta["units"]["select_closest_cond_frames"], ids=str)
def test_conditioning_frames(unit: dict[str, Any]) -> None:
    selected, others = closest_conditioning_frames(unit["frame"], unit["cond_frames_in_order"], unit["limit"])
    assert selected == unit["selected_in_order"]
    assert sorted(others) == sorted(unit["unselected"])


def _unit_id(unit: dict[str, Any]) -> str:
    return f"frame{unit['frame']}-stride{unit['stride']}-{'back' if unit['reverse'] else 'forth'}"


@pytest.mark.parametrize("unit", UNITS.meta["units"]["memory_frames"], ids=_unit_id)
def test_recent_frames_and_pointers(unit: dict[str, Any]) -> None:
    now, stride, length, direction = unit["frame"], unit["stride"], unit["num_frames"], -1 if unit["reverse"] else 1
    wanted = unit["asked_for_t_pos_1_to_6"]  # the reference counts t_pos the other way round: 1 is six frames back
    assert recent_frames(now, direction, stride) == [(frame, NUM_RECENT - i) for i, frame in enumerate(wanted)]

    plan = plan_reading([], range(length), now, direction, length, MemoryRules(stride=stride))
    within = [(frame, NUM_RECENT - 1 - i) for i, frame in enumerate(wanted) if 0 <= frame < length]
    assert list(plan.maps) == within
    assert [frame for frame, _ in plan.pointers] == unit["pointer_frames_asked_for"]
    assert [age for _, age in plan.pointers] == [(now - frame) * direction for frame in unit["pointer_frames_asked_for"]]
    assert plan.pointer_span == MAX_POINTERS - 1


@pytest.mark.parametrize("unit", UNITS.meta["units"]["use_multimask"], ids=str)
def test_number_of_points_decides_how_many_masks_compete(unit: dict[str, Any]) -> None:
    """With a mask head whose first mask is everywhere on and whose others are everywhere off, the rule shows in the result."""
    weights = {"sam_mask_decoder.pred_obj_score_head.layers.2.bias": 1000.0}  # present, whatever the picture
    for i in range(4):
        prefix = f"sam_mask_decoder.output_hypernetworks_mlps.{i}.layers.2"
        weights |= {f"{prefix}.weight": 0.0, f"{prefix}.bias": 1.0 if i == 0 else -1.0}
    weights |= {"sam_mask_decoder.output_upscaling.3.weight": 0.0, "sam_mask_decoder.output_upscaling.3.bias": 100.0}
    model = synthetic_model(image_size=128, overrides=weights)
    features = FrameFeatures(torch.zeros(1, 256, 8, 8), torch.zeros(1, 64, 16, 16), torch.zeros(1, 32, 32, 32))
    points = labels = None
    if unit["points"] is not None:
        points, labels = torch.full((1, unit["points"], 2), 64.0), torch.ones(1, unit["points"], dtype=torch.long)
    prediction = model.decode_masks(features.stride16_VDHW, features, torch.tensor([0]), points, labels)
    assert bool((prediction.logits_NHW < 0).all()) == unit["multimask"]
