"""What holds for the network whatever its weights: shapes, independence of rows, order and lanes."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden import goldens
from golden.models import synthetic_model
from golden.synthetic_inputs import smooth_noise, synthetic_video
from torch import Tensor

from sam2_pipeline.errors import ConfigError
from sam2_pipeline.model import attention
from sam2_pipeline.model.config import MODEL_NAMES, find_config
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.memory_bank import (
    FrameRecord,
    MemoryBank,
    MemoryRules,
    plan_reading,
)
from sam2_pipeline.model.memory_batch import MemoryBatch, gather
from sam2_pipeline.model.sam2 import MaskPrediction, Sam2

SIDE = 128
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Sam2:
    return synthetic_model(image_size=SIDE)


@pytest.fixture(scope="module")
def features(model: Sam2) -> FrameFeatures:
    """Of two different pictures."""
    return model.encode_frames(torch.from_numpy(synthetic_video(2, SIDE, seed=3)))


def memory_of(rows: int, maps: int, pointers: int, seed: int = 5) -> MemoryBatch:
    """Made-up memories of different ages, different for every row."""
    draw = torch.Generator().manual_seed(seed)
    tokens = (SIDE // 16) ** 2
    return MemoryBatch(
        torch.randn(rows, maps, tokens, 64, generator=draw).bfloat16(),
        torch.arange(maps).flip(0).repeat(rows, 1),
        torch.randn(rows, pointers, 256, generator=draw),
        torch.rand(rows, pointers, generator=draw),
    )


def select_rows(memory: MemoryBatch, rows: Tensor) -> MemoryBatch:
    return MemoryBatch(memory.maps_NMTC[rows], memory.rows_NM[rows], memory.pointers_NPD[rows], memory.pointer_time_NP[rows])


def close(a: Tensor, b: Tensor, atol: float = 5e-4) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------------------------ configurations


@pytest.mark.parametrize("name", MODEL_NAMES[:8])
def test_state_dict_is_that_of_the_released_checkpoint(name: str) -> None:
    for image_size in (128, 1024):
        with torch.device("meta"):
            built = Sam2(find_config(name, image_size))
        shapes = {key: list(tensor.shape) for key, tensor in built.state_dict().items()}
        assert shapes == goldens.state_dict_shapes(name)


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_trunk_blocks(size: str) -> None:
    described = json.loads((goldens.HERE / "trunks.json").read_text())[size]
    with torch.device("meta"):
        trunk = Sam2(find_config(f"sam2.1_hiera_{size}")).image_encoder.trunk
    assert trunk.stage_ends == described["stages_end_at_blocks"]
    assert len(trunk.blocks) == len(described["blocks"])
    for block, expected in zip(trunk.blocks, described["blocks"], strict=True):
        found = {"dim_in": block.attn.qkv.in_features, "dim_out": block.attn.proj.in_features, "pool": block.pooled}
        found |= {"heads": block.attn.num_heads, "window": block.window, "block": expected["block"]}
        assert found == expected


def test_aliases() -> None:
    for name in MODEL_NAMES:
        assert find_config(f"facebook/{name.replace('_', '-')}") is find_config(name)
    with pytest.raises(ConfigError, match=r"unknown model 'sam3'.*sam2\.1_hiera_tiny"):
        find_config("sam3")


def test_image_sizes() -> None:
    config = find_config("sam2.1_hiera_tiny")
    for size in range(128, 1025, 32):
        assert replace(config, image_size=size).feature_side == size // 16
    for size in (0, 64, 96, 127, 200, 1000):
        with pytest.raises(ConfigError, match=f"image_size is {size}, expected a multiple of 32"):
            find_config("sam2.1_hiera_tiny", size)


@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny", "sam2_hiera_tiny"])
@pytest.mark.parametrize("size", [128, 160, 224])
def test_all_verbs_at_odd_sizes(name: str, size: int) -> None:
    model, lanes = synthetic_model(name, size), torch.tensor([0, 0])
    features = model.encode_frames(torch.from_numpy(synthetic_video(1, size, seed=3)))
    assert features.stride16_VDHW.shape == (1, 256, size // 16, size // 16)
    assert features.stride8_VCHW.shape == (1, 64, size // 8, size // 8)
    assert features.stride4_VCHW.shape == (1, 32, size // 4, size // 4)
    points, labels = torch.full((2, 1, 2), size / 2), torch.ones(2, 1, dtype=torch.long)
    seen = model.decode_masks(model.attend_memory(features, lanes, None), features, lanes, points, labels)
    memory = model.encode_memory(features, lanes, seen.logits_NHW, seen.object_score_N, binarise=True)
    assert memory.shape == (2, (size // 16) ** 2, 64) and memory.dtype == torch.bfloat16
    batch = MemoryBatch(memory[:, None], torch.full((2, 1), 6), seen.pointer_ND[:, None], torch.zeros(2, 1))
    tracked = model.decode_masks(model.attend_memory(features, lanes, batch), features, lanes)
    assert tracked.logits_NHW.shape == (2, size // 4, size // 4) and bool(tracked.logits_NHW.isfinite().all())
    adopted = model.adopt_masks(features, lanes, torch.ones(2, size, size))
    close(adopted.logits_NHW, torch.full((2, size // 4, size // 4), 10.0), 1e-5)


# ---------------------------------------------------------------------------------------------------- rows, lanes and slots


def test_pictures_are_encoded_independently(model: Sam2, features: FrameFeatures) -> None:
    alone = model.encode_frames(torch.from_numpy(synthetic_video(2, SIDE, seed=3))[1:])
    close(features.select(slice(1, 2)).stride16_VDHW, alone.stride16_VDHW, 1e-4)
    close(features.select(slice(1, 2)).stride8_VCHW, alone.stride8_VCHW, 1e-4)
    close(features.select(slice(1, 2)).stride4_VCHW, alone.stride4_VCHW, 1e-4)


def all_verbs(model: Sam2, features: FrameFeatures, lanes: Tensor, memory: MemoryBatch, points: Tensor) -> list[Tensor]:
    """Everything that tracking and prompting give for these rows, in one list."""
    embedding = model.attend_memory(features, lanes, memory)
    labels = torch.ones(points.shape[:2], dtype=torch.long)
    prompts = (torch.arange(SIDE) > points[:, :1, :1]).expand(-1, SIDE, -1)
    made: list[MaskPrediction] = [
        model.decode_masks(embedding, features, lanes),
        model.decode_masks(embedding, features, lanes, points, labels),
        model.adopt_masks(features, lanes, prompts),
    ]
    remembered = model.encode_memory(features, lanes, made[0].logits_NHW, made[0].object_score_N, binarise=False)
    fields = [(p.logits_NHW, p.predicted_iou_N, p.object_score_N, p.pointer_ND) for p in made]
    return [embedding, remembered.float(), *(tensor for prediction in fields for tensor in prediction)]


def test_rows_batched_equal_rows_alone(model: Sam2, features: FrameFeatures) -> None:
    lanes, memory = torch.tensor([0, 1, 0]), memory_of(3, maps=3, pointers=2)
    points = torch.tensor([[[20.0, 30.0], [90.0, 80.0]], [[64.0, 64.0], [10.0, 100.0]], [[100.0, 20.0], [5.0, 5.0]]])
    together = all_verbs(model, features, lanes, memory, points)
    for row in range(3):
        one = torch.tensor([row])
        alone = all_verbs(model, features, lanes[one], select_rows(memory, one), points[one])
        for index, (a, b) in enumerate(zip(together, alone, strict=True)):
            # Memories are bfloat16: one unit in the last place.
            close(a[one], b, 0.04 if index == 1 else 1e-3)


def test_order_of_slots_does_not_matter(model: Sam2, features: FrameFeatures) -> None:
    lanes, memory = torch.tensor([1]), memory_of(1, maps=4, pointers=3)
    maps, pointers = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    shuffled = MemoryBatch(
        memory.maps_NMTC[:, maps], memory.rows_NM[:, maps], memory.pointers_NPD[:, pointers], memory.pointer_time_NP[:, pointers]
    )
    seen = model.attend_memory(features, lanes, memory)
    close(model.attend_memory(features, lanes, shuffled), seen, 1e-4)
    misplaced = replace(shuffled, rows_NM=memory.rows_NM)  # but which time belongs to which map does
    assert (model.attend_memory(features, lanes, misplaced) - seen).abs().max() > 0.01


def test_lanes_select_the_picture(model: Sam2, features: FrameFeatures) -> None:
    lanes, memory = torch.tensor([1, 0]), memory_of(2, maps=2, pointers=1)
    swapped = features.select(torch.tensor([1, 0]))
    for given in (None, memory):
        close(model.attend_memory(features, lanes, given), model.attend_memory(swapped, 1 - lanes, given), 1e-4)
    unlike = model.attend_memory(features, 1 - lanes, memory) - model.attend_memory(features, lanes, memory)
    assert unlike.abs().amax(dim=(1, 2, 3)).min() > 0.1
    blank = model.attend_memory(features, lanes, None) - features.stride16_VDHW[lanes]
    close(blank, model.no_mem_embed[0, 0, :, None, None].expand_as(blank), 1e-5)
    embedding = model.attend_memory(features, torch.tensor([0, 0]), None)
    here, there = (model.decode_masks(embedding, features, lanes).logits_NHW for lanes in (torch.tensor([0, 0]), lanes))
    close(here[1], there[1], 1e-3)
    assert (here[0] - there[0]).abs().max() > 0.1, "the fine features come from the lane too"


def test_version_2_0_ignores_the_time_of_pointers() -> None:
    for name, matters in (("sam2_hiera_tiny", False), ("sam2.1_hiera_tiny", True)):
        model, lanes = synthetic_model(name, SIDE), torch.tensor([0])
        features = model.encode_frames(torch.from_numpy(synthetic_video(1, SIDE, seed=3)))
        memory = memory_of(1, maps=1, pointers=2)
        later = replace(memory, pointer_time_NP=memory.pointer_time_NP + 0.5)
        change = (model.attend_memory(features, lanes, later) - model.attend_memory(features, lanes, memory)).abs().max()
        assert bool(change > 1e-4) == matters


# -------------------------------------------------------------------------------------------------------------- memory bank


def record(seed: int) -> FrameRecord:
    draw = torch.Generator().manual_seed(seed)
    scalar = torch.zeros(())
    memory = torch.randn(4, 64, generator=draw).bfloat16()
    return FrameRecord(torch.zeros(8, 8), scalar, scalar, torch.randn(256, generator=draw), memory)


def test_gather_lays_out_what_was_planned() -> None:
    banks = [MemoryBank({0: record(0)}, {frame: record(frame) for frame in range(1, 5)}) for _ in range(2)]
    banks[1].tracked[4] = record(99)
    plans = [plan_reading([0], range(1, 5), now, 1, 20, MemoryRules()) for now in (5, 5)]
    batch = gather(banks, plans, CPU)
    assert batch.rows_NM.tolist() == [[6, 3, 2, 1, 0]] * 2
    assert torch.equal(batch.maps_NMTC[0, 1], record(1).memory_TC) and torch.equal(batch.maps_NMTC[1, 4], record(99).memory_TC)
    assert torch.equal(batch.pointers_NPD[0, 0], record(0).pointer_D) and torch.equal(
        batch.pointers_NPD[1, 1], record(99).pointer_D
    )
    torch.testing.assert_close(batch.pointer_time_NP, torch.tensor([[5, 1, 2, 3, 4]] * 2) / 15)


def seen(object_score: float, predicted_iou: float) -> FrameRecord:
    return replace(record(0), object_score=torch.tensor(object_score), predicted_iou=torch.tensor(predicted_iou))


@pytest.mark.parametrize("direction", [1, -1])
def test_where_all_frames_are_sure_the_last_ones_are_read_as_ever(direction: int) -> None:
    bank = MemoryBank({50: seen(9, 1)}, {50 + direction * age: seen(1, 0.9) for age in range(1, 20)})
    for now in range(51, 71):
        now = 50 + direction * (now - 50)
        assert bank.plan(now, direction, 100, MemoryRules(min_iou=0.5)) == bank.plan(now, direction, 100, MemoryRules())


def test_what_was_not_surely_seen_is_not_read() -> None:
    """An object that was hidden from frame 10 to frame 39, and is doubtful on frame 5."""
    tracked = {t: seen(-3, 0.9) if 10 <= t < 40 else seen(3, 0.2 if t == 5 else 0.9) for t in range(1, 41)}
    bank, rules = MemoryBank({0: seen(9, 1)}, tracked), MemoryRules(min_iou=0.5)
    maps = bank.plan(40, 1, 100, rules).maps
    assert maps == ((0, 6), (4, 5), (6, 4), (7, 3), (8, 2), (9, 1), (39, 0)), "and the frame before, whatever it shows"
    assert bank.plan(41, 1, 100, rules).maps == ((0, 6), (4, 5), (6, 4), (7, 3), (8, 2), (9, 1), (40, 0))
    bank.forget_far_from(40, shown=0, read=7, pointers=16, min_iou=0.5)
    assert bank.plan(41, 1, 100, rules).maps == ((0, 6), (4, 5), (6, 4), (7, 3), (8, 2), (9, 1), (40, 0)), "nothing read is lost"
    assert {t for t, one in bank.tracked.items() if one.memory_TC is not None} == {4, 6, 7, 8, 9, *range(33, 41)}
    assert MemoryBank({0: seen(9, 1)}, tracked).plan(40, 1, 100, MemoryRules()).maps[1:] == tuple(
        (frame, row) for row, frame in zip(range(5, -1, -1), range(34, 40))
    )


def test_sure_frames_of_another_walk_are_not_the_past() -> None:
    """An object that was prompted on frame 50, tracked to frame 99, and is tracked back from there."""
    bank, rules = MemoryBank({50: seen(9, 1)}, {t: seen(3, 0.9) for t in range(51, 100)}), MemoryRules(min_iou=0.5)
    bank.forget_far_from(99, shown=0, read=7, pointers=16, min_iou=0.5)
    assert bank.plan(49, -1, 100, rules).maps == ((50, 6),), "and not the end of the video, though it is held"
    bank.tracked |= {t: seen(3, 0.9) if t > 40 else seen(-3, 0) for t in range(49, 20, -1)}
    assert [frame for frame, _ in bank.plan(20, -1, 100, rules).maps] == [50, 45, 44, 43, 42, 41, 21]


def test_what_lies_behind_is_kept_where_more_lies_ahead() -> None:
    """A second walk from the start, while frames of the first one are still held."""
    tracked = {t: seen(3, 0.9) if t <= 10 or t >= 90 else seen(-3, 0) for t in range(1, 100)}
    bank, rules = MemoryBank({0: seen(9, 1)}, tracked), MemoryRules(min_iou=0.5)
    before = bank.plan(71, 1, 100, rules)
    bank.forget_far_from(70, shown=0, read=7, pointers=16, min_iou=0.5)
    assert bank.plan(71, 1, 100, rules).maps == before.maps
    assert [frame for frame, _ in before.maps] == [0, 6, 7, 8, 9, 10, 70]


@pytest.mark.parametrize("wrong", [{"min_iou": 1.5}, {"min_iou": -0.1}, {"min_iou": 0.5, "stride": 2}])
def test_memory_rules_that_do_not_fit(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="min_iou is"):
        MemoryRules(**wrong)


def test_pointers_of_the_future_and_short_videos() -> None:
    ahead = plan_reading([9], [], 3, 1, 20, MemoryRules())
    assert (ahead.maps, ahead.pointers) == (((9, 6),), ())
    assert plan_reading([9], [], 3, 1, 20, MemoryRules(only_past_pointers=False)).pointers == ((9, -6),)
    assert plan_reading([9], [], 3, -1, 20, MemoryRules()).pointers == ((9, 6),)
    assert plan_reading([0], [1, 2], 3, 1, 4, MemoryRules()).pointer_span == 3
    assert plan_reading([0], [], 0, 1, 1, MemoryRules()).pointer_span == 1, "no division by zero"
    endless = plan_reading([0], range(1, 100), 100, 1, None, MemoryRules())
    assert endless.pointer_span == 15 and [frame for frame, _ in endless.pointers] == [0, *range(99, 84, -1)]


def test_no_pointers_at_all(model: Sam2, features: FrameFeatures) -> None:
    """An object seen only in the future; the reference needs autocast for this."""
    seen = model.attend_memory(features, torch.tensor([0]), memory_of(1, maps=1, pointers=0))
    assert seen.shape == (1, 256, SIDE // 16, SIDE // 16) and bool(seen.isfinite().all())


# ------------------------------------------------------------------------------------------------------------------ numerics


@pytest.mark.parametrize("queries, keys", [(1, 1), (64, 300), (512, 1024), (700, 2500)])
@pytest.mark.parametrize("size", [1.0, 12.0])
def test_blockwise_attention_equals_the_plain_one(queries: int, keys: int, size: float) -> None:
    draw = torch.Generator().manual_seed(1)
    q, k = (size * torch.randn(2, n, 256, generator=draw) for n in (queries, keys))
    v = torch.randn(2, keys, 64, generator=draw)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double()).float()
    found = torch.stack([attention._attend_narrow_values(*row) for row in zip(q, k, v, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if size == 1 else 1e-3)
    assert torch.equal(attention.attend(q, k, v), found), "this is what CPUs use"
    with torch.enable_grad():  # where gradients are wanted, the differentiable one is used
        torch.testing.assert_close(attention.attend(q, k, v), found, rtol=0, atol=1e-5 if size == 1 else 1e-3)


def test_bfloat16_stays_close(model: Sam2) -> None:
    with torch.device("meta"):
        half = Sam2(model.config, torch.bfloat16).eval()
    half.load_state_dict(model.state_dict(), assign=True)
    with half.precision():
        assert torch.is_autocast_enabled("cpu")
    with half.precision(decoding=True):
        assert not torch.is_autocast_enabled("cpu"), "many small products are not rounded"
    with torch.enable_grad(), half.precision(decoding=True):
        assert torch.is_autocast_enabled("cpu"), "in training they come in large batches"
    images, lanes = torch.from_numpy(synthetic_video(1, SIDE, seed=3)), torch.tensor([0, 0])
    points, labels = torch.tensor([[[40.0, 50.0]], [[90.0, 70.0]]]), torch.ones(2, 1, dtype=torch.long)
    masks = []
    for net in (model, half):
        features = net.encode_frames(images)
        seen = net.decode_masks(net.attend_memory(features, lanes, None), features, lanes, points, labels)
        assert {tensor.dtype for tensor in (seen.logits_NHW, seen.predicted_iou_N, seen.pointer_ND)} == {torch.float32}
        memory = net.encode_memory(features, lanes, seen.logits_NHW, seen.object_score_N, binarise=True)
        batch = MemoryBatch(memory[:, None], torch.full((2, 1), 6), seen.pointer_ND[:, None], torch.zeros(2, 1))
        masks.append(net.decode_masks(net.attend_memory(features, lanes, batch), features, lanes).logits_NHW)
    assert bool((masks[0] > -100).all()), "both objects are there"
    error = (masks[1] - masks[0]).square().mean().sqrt() / masks[0].std()
    agreement = ((masks[0] > 0) == (masks[1] > 0)).float().mean()
    print(f"bfloat16: error {error:.3f} of the spread, {agreement:.4f} of the pixels agree")
    assert error < 0.1 and agreement > 0.97


def test_smooth_logits_survive_the_mask_prompt(model: Sam2, features: FrameFeatures) -> None:
    """A low-resolution mask prompt changes the prediction, and its embedding is per row."""
    lanes, embedding = torch.tensor([0, 0]), features.stride16_VDHW[[0, 0]]
    prompts = torch.from_numpy(smooth_noise((2, SIDE // 4, SIDE // 4), 8, 5, 8))
    with_masks = model.decode_masks(embedding, features, lanes, mask_logits_NHW=prompts).logits_NHW
    without = model.decode_masks(embedding, features, lanes).logits_NHW
    assert (with_masks - without).abs().amax(dim=(1, 2)).min() > 0.1
    close(with_masks[1:], model.decode_masks(embedding[1:], features, lanes[1:], mask_logits_NHW=prompts[1:]).logits_NHW, 2e-3)


def test_training_after_inference() -> None:
    """Position tables that inference made first do not stop gradients later: they reach every part of the network."""
    model = synthetic_model(image_size=192)  # a size that no other test caches tables for
    images, lanes = torch.from_numpy(synthetic_video(1, 192, seed=3)), torch.tensor([0])

    def step() -> torch.Tensor:
        features = model.encode_frames(images)
        first = model.decode_masks(model.attend_memory(features, lanes, None), features, lanes)
        memory = model.encode_memory(features, lanes, first.logits_NHW, first.object_score_N, binarise=False)
        batch = MemoryBatch(memory[:, None], torch.tensor([[6]]), first.pointer_ND[:, None], torch.zeros(1, 1))
        return model.decode_masks(model.attend_memory(features, lanes, batch), features, lanes).logits_NHW

    with torch.inference_mode():
        expected = step()
    model = synthetic_model(image_size=192).requires_grad_(True)
    with torch.enable_grad():
        logits = step()
        logits.square().mean().backward()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-3)
    for part in ("image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder", "obj_ptr_proj"):
        gradients = [p.grad for p in model.get_submodule(part).parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() for g in gradients), part
