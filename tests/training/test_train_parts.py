"""The pieces of training: clips, prompts, losses, rates."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes import FakeFactory, write_clip
from mask_forms import disc, write_tables
from numpy.random import default_rng
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from videos import write_video

from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError, VideoError
from sam2_pipeline.io.dataset import MaskletDataset
from sam2_pipeline.io.verdicts import Verdict, write_verdicts
from sam2_pipeline.masklets.rle import decode, encode, thin_out
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.model.checkpoint import build_model
from sam2_pipeline.model.conventions import BACKGROUND, OBJECT
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.layers import constant
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.progress import Reporter
from sam2_pipeline.training import clicks, clip_sources, schedule
from sam2_pipeline.training.augment import Variation, cut_out, draw_variation, square_clip, vary
from sam2_pipeline.training.clip_forward import ClipLearner
from sam2_pipeline.training.clip_sources import DavisClips, SavClips, TableClips, open_clips, read_sav
from sam2_pipeline.training.clips import Clip, ClipRequest, choose_frames, choose_objects
from sam2_pipeline.training.decoding import Candidates
from sam2_pipeline.training.loading import Batch, Examples, Material, materials
from sam2_pipeline.training.losses import mask_losses
from sam2_pipeline.training.muon import Muon
from sam2_pipeline.training.optimizer import freeze, group_of, make_optimizer
from sam2_pipeline.training.pixels import PixelTeacher
from sam2_pipeline.training.schedule import Schedule, share_of_rate
from sam2_pipeline.training.settings import LossSection, OptimSection, TrainConfig
from sam2_pipeline.training.steps import Stream, plan_step
from sam2_pipeline.training.synthetic import make_scene
from sam2_pipeline.training.trainer import start_model

SMALL = (
    "model.checkpoint=null", "data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.num_scenes=4",
    "data.frames=3",
)  # fmt: skip


def config(*overrides: str) -> TrainConfig:
    return TrainConfig.load(None, [*SMALL, *overrides])


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=huge", "unknown model 'huge'"),
        ("model.freeze=[head]", "model.freeze holds 'head', expected some of image_encoder"),
        ("data.kind=davis", "data.root is None, expected a folder for davis data"),
        ("data.views=2 data.kind=davis data.root=here", "data.views is 2, expected 1 for davis data"),
        ("data.root=here", "data.root is 'here', expected none for synthetic data"),
        ("data.image_sizes=[130]", "multiples of 32"),
        ("data.only=[accept]", "data.only is ['accept'], expected none for synthetic data: verdicts are in tables"),
        ("data.kind=tables data.root=out data.only=[good]", "data.only holds 'good', expected some of accept, reject, refine"),
        ("prompts.given=false", "prompts.given is false and loss.pixels 0, expected something to learn from"),
        ("model.teacher=teacher.safetensors", "and loss.pixels 0, expected a weight for what it teaches"),
        ("prompts.mask=0.9", "expected at most 1"),
        ("optim.learning_rate=1", "unknown setting optim.learning_rate"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        TrainConfig.load(None, override.split())


@pytest.mark.parametrize("name", ["train_synthetic", "train_further", "train_memory", "train_cpu", "train_decoder", "fine_tune"])
def test_the_shipped_settings_are_valid(request, name):
    loaded = TrainConfig.load(str(request.config.rootpath / "configs" / f"{name}.yaml"))
    assert loaded.model.config.image_size == 288


def test_steps_follow_from_seed_and_number_and_have_the_asked_shares():
    settings = config("data.image_share=0.25", "data.frames=8")
    plans = [plan_step(settings, step) for step in range(2000)]
    assert plans[7] == plan_step(settings, 7)
    clips = [plan for plan in plans if plan.frames > 1]
    assert len(clips) / 2000 == pytest.approx(0.75, abs=0.04)
    for prompt, share in (("mask", 0.5), ("box", 0.25), ("click", 0.25)):
        assert sum(plan.prompt == prompt for plan in clips) / len(clips) == pytest.approx(share, abs=0.05)
    assert {len(plan.prompted) for plan in clips} == {1, 2}
    assert all(plan.prompted[0] == 0 and not (plan.prompt == "mask" and plan.corrected) for plan in clips)
    assert all(plan.prompt != "mask" for plan in plans if plan.frames == 1)


def test_no_two_things_are_drawn_from_the_same_numbers():
    """NumPy takes (seed, stream, step) and (seed, stream, step, 0) for the same seed."""
    first = {stream: default_rng([0, stream, 5]).random() for stream in Stream}
    assert len(set(first.values())) == len(Stream)
    assert first[Stream.CLIP] == default_rng([0, Stream.CLIP, 5, 0]).random()  # hence every stream needs a number of its own


def test_constants_of_equal_values_keep_their_types():
    cpu = torch.device("cpu")
    assert constant([0.0, 1.0], cpu).dtype == torch.float32 and constant([0, 1], cpu, torch.long).dtype == torch.long
    assert constant([0.0, 1.0], cpu) is constant([0.0, 1.0], cpu)


# ---------------------------------------------------------------------------------------------------------------- clips


@pytest.mark.parametrize(("available", "wanted"), [(1, 8), (3, 8), (8, 8), (100, 8), (5, 1)])
def test_frames_of_a_clip(available, wanted):
    seen = set()
    for seed in range(60):
        frames = choose_frames(available, ClipRequest(wanted, 3), default_rng(seed))
        assert len(frames) == wanted and frames.min() >= 0 and frames.max() < available
        if available >= wanted > 1:
            steps = set(np.diff(frames).tolist())
            assert len(steps) == 1
            seen |= steps
    if available == 100:
        assert seen == {-3, -2, -1, 1, 2, 3}


def test_objects_are_chosen_by_size():
    request = ClipRequest(1, objects=2, min_area=0.1)
    assert set(choose_objects(np.array([0.0, 0.05, 0.2, 0.3]), request, default_rng(0))) == {2, 3}
    assert not len(choose_objects(np.array([0.0, 0.05]), request, default_rng(0)))
    assert not len(choose_objects(np.zeros(3), ClipRequest(1), default_rng(0)))


def moving_square(t: int) -> np.ndarray:
    mask = np.zeros((64, 96), bool)
    mask[20:40, 10 + 2 * t : 34 + 2 * t] = True
    return mask


def test_davis_folders(tmp_path):
    for t in range(5):
        for folder, name in (("JPEGImages/480p/swan", f"{t:05d}.jpg"), ("Annotations/480p/swan", f"{t:05d}.png")):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            values = moving_square(t).astype(np.uint8)
            values = values * 200 if name.endswith("jpg") else np.where(values, 3, np.where(np.arange(96) > 90, 255, 0))
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / name)
    clips = open_clips(config("data.kind=davis", f"data.root={tmp_path}").data)
    assert len(clips) == 1
    clip = clips.read(0, ClipRequest(3), default_rng(1))
    assert clip.frames_THWC.shape == (3, 64, 96, 3) and clip.masks_TNHW.shape == (3, 1, 64, 96)
    bright = clip.frames_THWC.mean(axis=-1) > 100
    assert ((bright & clip.masks_TNHW[:, 0]).sum() / (bright | clip.masks_TNHW[:, 0]).sum()) > 0.95
    (tmp_path / "JPEGImages/480p/swan/00002.jpg").unlink()
    with pytest.raises(VideoError, match=r"00002\.jpg cannot be read"):
        clips.read(0, ClipRequest(5), default_rng(0))


def test_sav_folders(tmp_path):
    frames = [np.repeat(moving_square(t)[..., None] * np.uint8(200), 3, axis=2) for t in range(17)]
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a" / "sav_1.mp4", frames)
    masks = [[encode(moving_square(t)).to_coco()] for t in range(0, 17, 4)]
    notes = tmp_path / "a" / "sav_1_manual.json"
    notes.write_text(json.dumps({"masklet": masks, "video_frame_count": 17}))
    clips = SavClips(tmp_path, 64)
    clip = clips.read(0, ClipRequest(3), default_rng(0))
    assert clip.frames_THWC.shape == (3, 64, 64, 3) and clip.masks_TNHW.shape == (3, 1, 64, 64)
    bright = clip.frames_THWC.mean(axis=-1) > 100
    for picture, mask in zip(bright, clip.masks_TNHW[:, 0]):  # every frame has the masks of its own moment
        assert (picture & mask).sum() / (picture | mask).sum() > 0.9
    notes.write_text("{}")
    with pytest.raises(VideoError, match="no SA-V annotation"):
        read_sav(notes)


def test_our_own_tables(tmp_path):
    write_clip(tmp_path / "in" / "a.mp4", frames=6, height=64, width=96)
    places = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "ray.address": "off"}
    run_job(JobConfig.load(options=places), factory=FakeFactory(), reporter=Reporter("quiet"))
    clips = open_clips(config("data.kind=tables", f"data.root={tmp_path / 'out'}", "data.size=96").data)
    assert len(clips) == 1
    clip = clips.read(0, ClipRequest(6, objects=9), default_rng(3))
    masklets = list(MaskletDataset(tmp_path / "out"))
    truth = np.stack([[thin_out(decode(frame.rle), (96, 96)) for frame in one.frames] for one in masklets], axis=1)
    assert clip.frames_THWC.shape == (6, 96, 96, 3) and len(masklets) == 2
    assert np.array_equal(clip.masks_TNHW, truth) or np.array_equal(clip.masks_TNHW[::-1], truth)


def test_tables_teach_what_was_accepted(tmp_path):
    """By a person, who overrules the judge in both directions here, or else by the judge."""
    masks = {"a": {n: {f: disc(6, 4 + 7 * n, 3) for f in range(3)} for n in range(4)}}
    judged = {
        0: Judgement(1, 1, "accept"),
        1: Judgement(0, 0, "reject"),
        2: Judgement(1, 1, "accept"),
        3: Judgement(1, 0, "refine"),
    }
    dataset = MaskletDataset(write_tables(tmp_path / "judged", masks, "auto", facts={"uri": "a.mp4"}, judgements=judged))
    write_verdicts(dataset.storage, [Verdict("a", 1, "accept", "somebody"), Verdict("a", 2, "reject", "somebody")])

    def learnt(*words: str) -> list[int]:
        [video] = range(len(clips := TableClips(str(tmp_path / "judged"), 96, words)))
        known = {masklet.frames[0].rle: masklet.masklet_id for masklet in dataset}
        return [known[rle] for rle in clips.annotation(video).masks[0]]

    assert learnt("accept") == [0, 1] and learnt("reject") == [2] and learnt("reject", "refine") == [2, 3]
    assert learnt() == [0, 1, 2, 3]
    unjudged = write_tables(tmp_path / "unjudged", masks, "auto", facts={"uri": "a.mp4"})
    settings = config("data.kind=tables", f"data.root={unjudged}", "data.only=[accept, refine]")
    with pytest.raises(ConfigError, match="holds no masklets with the verdict accept or refine to learn from"):
        open_clips(settings.data)


@pytest.mark.parametrize("source", [SavClips, DavisClips])
def test_a_folder_without_videos(source, tmp_path):
    with pytest.raises(ConfigError, match="holds no annotated video"):
        source(tmp_path, 64) if source is SavClips else source(tmp_path)


def test_augmentation_moves_masks_with_the_picture():
    masks = np.stack([moving_square(t) for t in range(2)])[:, None]
    frames, truth = square_clip(Clip(np.repeat(masks[:, 0, ..., None] * np.uint8(200), 3, axis=3), masks), 128)
    drawn = [draw_variation(2, default_rng(seed)) for seed in range(10)]
    together = Variation(torch.cat([one.affine_V23 for one in drawn]), torch.cat([one.factors_VT3 for one in drawn]))
    varied, moved = vary(frames.expand(10, -1, -1, -1, -1), truth.expand(-1, 10, -1, -1), torch.arange(10), together)
    bright = varied.float().mean(dim=2) > 80
    assert ((bright.mT & moved.transpose(0, 1).mT).sum((1, 2, 3)) / (bright | moved.transpose(0, 1)).sum((1, 2, 3)) > 0.9).all()
    for n, one in enumerate(drawn):  # every clip for itself
        alone, mask = vary(frames[None], truth, torch.zeros(1, dtype=torch.long), one)
        assert (alone[0].int() - varied[n].int()).abs().max() <= 1 and torch.equal(mask[:, 0], moved[:, n])


def test_a_window_of_a_clip_keeps_what_it_shows():
    masks = np.zeros((2, 2, 40, 60), bool)
    masks[:, 0, :20, :30] = masks[:, 1, 30:, 50:] = True
    frames = np.where(masks.any(axis=1)[..., None], np.uint8(200), np.uint8(9)).repeat(3, axis=3)
    clip = Clip(frames, masks, ~masks.any(axis=1))
    seen = [cut_out(clip, 2.0, 0.01, default_rng(seed)) for seed in range(60)]
    assert sum(one.frames_THWC.shape == frames.shape for one in seen) in range(15, 46)
    assert {one.masks_TNHW.shape[1] for one in seen} == {1, 2}
    for one in seen:
        h, w = one.frames_THWC.shape[1:3]
        assert 20 <= h <= 40 and abs(w - 1.5 * h) <= 1 and one.masks_TNHW[0].any(axis=(1, 2)).all()
        assert np.array_equal(one.ground_THW, one.frames_THWC[..., 0] == 9)
    assert cut_out(clip, 1.0, 0.01, default_rng(0)).frames_THWC.shape == frames.shape
    nothing = Clip(frames, np.zeros_like(masks))
    assert cut_out(nothing, 2.0, 0.01, default_rng(1)) is nothing


def test_a_clip_that_would_lose_an_object_keeps_its_place():
    frames = torch.arange(2 * 3 * 64 * 64).remainder(251).to(torch.uint8).view(2, 1, 3, 64, 64)
    masks = torch.zeros(1, 3, 64, 64, dtype=torch.bool)
    masks[:, 0, :4, :4] = masks[:, 1, 28:36, 28:36] = masks[:, 2, 30:34, 30:34] = True
    larger = Variation(torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]).repeat(2, 1, 1), torch.ones(2, 1, 3))
    varied, moved = vary(frames, masks, torch.tensor([0, 0, 1]), larger)
    assert torch.equal(varied[0], frames[0]) and torch.equal(moved[:, :2], masks[:, :2])
    assert moved[0, 2].sum() == 4 * masks[0, 2].sum()


# ---------------------------------------------------------------------------------------------------------------- loading


def loaded(settings: TrainConfig, first_step: int = 0, rank: int = 0, world: int = 1) -> Iterator[Material]:
    return materials(Schedule(settings), first_step, rank, world)


def test_batches_are_the_same_wherever_they_are_made():
    settings = config("optim.steps=3", "data.loaders=2")
    ours = list(loaded(config("optim.steps=3")))
    for a, b in zip(ours, loaded(settings), strict=True):
        assert torch.equal(a.frames_VT3SS, b.frames_VT3SS) and torch.equal(a.masks_TNSS, b.masks_TNSS)
        assert torch.equal(a.draws_RTNK, b.draws_RTNK) and torch.equal(a.affine_RV23, b.affine_RV23) and a.plans == b.plans
    later = next(loaded(config("optim.steps=3"), 2))
    assert torch.equal(later.frames_VT3SS, ours[2].frames_VT3SS)
    halves = [next(loaded(config("optim.steps=3"), 0, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([half.frames_VT3SS for half in halves]), ours[0].frames_VT3SS)
    assert torch.equal(torch.cat([half.draws_RTNK for half in halves], dim=2), ours[0].draws_RTNK)
    with pytest.raises(ConfigError, match="batch of 2 clips cannot be shared evenly by 3"):
        loaded(config(), 0, 0, 3)


def test_batches_serve_several_steps_and_stages_follow_each_other():
    stages = "stages=[{share: 0.5, data: {frames: 1, repeats: 2}}, {share: 0.5, prompts: {mask: 0.0}}]"
    planned = Schedule(config("optim.steps=8", "data.image_share=0", stages))
    assert list(planned.places(0)) == [(0, 0), (0, 2), (1, 4), (1, 5), (1, 6), (1, 7)]
    assert list(planned.places(2)) == [(0, 0), (0, 2), (1, 4), (1, 5), (1, 6), (1, 7)]  # what the steps look back at as well
    assert list(planned.places(6)) == [(1, 6), (1, 7)]
    ours = list(materials(planned, 0))
    assert [[plan.step for plan in one.plans] for one in ours[:3]] == [[0, 1], [2, 3], [4]]
    assert [one.frames_VT3SS.shape[1] for one in ours] == [1, 1, 3, 3, 3, 3]
    first, second = (ours[0].batch(repeat) for repeat in range(2))
    assert not torch.equal(first.frames_VT3SS, second.frames_VT3SS) and not torch.equal(first.draws_TNK, second.draws_TNK)
    with pytest.raises(ConfigError, match="expected a sum of 1"):
        config("stages=[{share: 0.5}]")
    with pytest.raises(ConfigError, match=r"stages\[0\] holds 'optim', expected share, data and prompts"):
        config("stages=[{share: 1.0, optim: {lr: 1.0}}]")


def test_a_picture_can_come_with_its_ground():
    with_ground = next(loaded(config("data.image_share=1", "prompts.ground=1", "data.augment=false")))
    without = next(loaded(config("data.image_share=1", "data.augment=false")))
    assert with_ground.ground_N.sum() == 2 and not without.ground_N.any()
    batch = with_ground.batch(0)
    for lane in range(2):
        rows = batch.lanes_N == lane
        assert rows.nonzero()[-1] == (rows & batch.ground_N).nonzero()  # its last row
        objects = batch.masks_TNSS[0, rows & ~batch.ground_N].any(dim=0)
        assert (objects & batch.masks_TNSS[0, rows & batch.ground_N][0]).float().mean() < 0.02
    clip = next(loaded(config("data.image_share=0", "prompts.ground=1")))
    assert not clip.ground_N.any()


def test_a_scene_serves_several_examples(monkeypatch):
    drawn = []
    monkeypatch.setattr(clip_sources, "_last_scene", lru_cache(maxsize=1)(lambda *of: drawn.append(of) or make_scene(*of)))
    settings = config("data.image_share=1.0", "data.batch=4", "data.views=2", "optim.steps=2")
    frames = torch.cat([batch.frames_VT3SS for batch in loaded(settings)])
    assert len(drawn) == 4 and len(frames) == 8
    assert not any(torch.equal(a, b) for a, b in pairwise(frames))


@pytest.mark.parametrize("frames", [1, 3])
def test_rows_that_only_fill_up_change_nothing_but_the_mean(frames):
    model = build_model("sam2_pipeline_small")
    prompts = "prompts={ground: 1.0, mask: 0.0, box: 0.0, corrections: 0, conditioning_frames: 1}"
    wanted = ("data.objects=6", f"data.frames={frames}", "data.augment=false", prompts)
    batches = [next(loaded(config(*wanted, f"run.cuda_graphs={filled}"))).batch(0) for filled in ("false", "true")]
    with torch.no_grad():
        plain, filled = (ClipLearner(model, LossSection())(batch).losses for batch in batches)
    few, many = (len(batch.lanes_N) for batch in batches)
    assert few < many == 2 * (6 + (frames == 1))
    for name in ("total", "focal", "dice", "iou", "presence"):
        assert getattr(filled, name) * many == pytest.approx(float(getattr(plain, name)) * few, rel=1e-4)


def gradients(learner: ClipLearner, batch: Batch) -> tuple[dict[str, float], torch.Tensor]:
    """Losses of a batch, and all gradients in a row."""
    learner.zero_grad()
    with torch.enable_grad():
        losses = learner(batch).losses
        losses.total.backward()
    flat = torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])
    return {name: float(getattr(losses, name).detach()) for name in losses.__slots__}, flat


def test_bfloat16_on_a_cpu_learns_about_the_same():
    first = config("run.device=cpu")
    batch = next(loaded(first)).batch(0)
    plain, halved = (
        gradients(ClipLearner(start_model(given), LossSection()), batch)
        for given in (first, config("run.device=cpu", "run.bfloat16=true"))
    )
    assert halved[0] == pytest.approx(plain[0], rel=0.03, abs=0.01) and halved[0] != plain[0]
    assert torch.cosine_similarity(plain[1], halved[1], dim=0) > 0.95


def test_a_step_rounds_a_weight_once():
    """However many frames use it."""

    class Roundings(TorchDispatchMode):
        def __init__(self, *weights: torch.Tensor) -> None:
            super().__init__()
            self.counts = {weight.data_ptr(): 0 for weight in weights}

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten._to_copy and args[0].data_ptr() in self.counts:
                self.counts[args[0].data_ptr()] += 1
            return func(*args, **(kwargs or {}))

    given = config("run.device=cpu", "run.bfloat16=true", "data.image_share=0.0")
    learner = ClipLearner(start_model(given), LossSection())
    decoder = learner.model.sam_mask_decoder
    with Roundings(decoder.transformer.layers[0].mlp.layers[0].weight, decoder.output_upscaling[0].weight) as seen:
        learner(next(loaded(given)).batch(0))
    assert list(seen.counts.values()) == [1, 1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_masks_may_be_compared_at_coarser_cells():
    """What the cells show whole is judged as by pixels; a border within a cell counts by its share."""
    truth = torch.zeros(1, 64, 64, dtype=torch.bool)
    truth[:, 16:48, 16:48] = True
    right = torch.nn.functional.max_pool2d(truth[:, None].float(), 4) * 40 - 20
    fine, coarse = (mask_losses(candidates(right), truth, LossSection(stride=stride), 1) for stride in (1, 2))
    assert coarse.overlap == pytest.approx(fine.overlap.item(), abs=0.02) and coarse.overlap > 0.95
    assert coarse.dice == pytest.approx(fine.dice.item(), abs=0.02) and coarse.focal == pytest.approx(fine.focal.item(), abs=0.02)
    truth[:, :, 15] = truth[:, :, 16]  # half a cell of 2 more
    wider = mask_losses(candidates(right), truth, LossSection(stride=2), 1)
    assert wider.dice > coarse.dice
    with pytest.raises(ConfigError, match=r"loss.stride is 3, expected 1, 2 or 4"):
        LossSection(stride=3)


def test_compiled_losses_are_the_same():
    batch = next(loaded(config())).batch(0)
    model = build_model("sam2_pipeline_small")
    plain, compiled = (gradients(ClipLearner(model, LossSection(), compiled), batch) for compiled in (False, True))
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4, abs=1e-6)
    torch.testing.assert_close(compiled[1], plain[1], atol=1e-5, rtol=1e-3)


def test_pixels_teach_the_image_encoder_alone():
    unprompted = config("data.frames=1", "prompts={given: false, ground: 1.0}", "loss.pixels=1")
    model, batch = build_model("sam2_pipeline_small"), next(loaded(unprompted)).batch(0)
    learner = ClipLearner(model, unprompted.loss)
    losses, _ = gradients(learner, batch)
    assert losses["total"] == losses["pixels"] > 0 and losses["focal"] == losses["presence"] == 0
    taught = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {group_of(name) for name in taught} == {"image_encoder"}
    assert {"sam_mask_decoder.conv_s0.weight", "sam_mask_decoder.conv_s1.weight"} <= taught  # which the image encoder applies
    assert all(parameter.grad is not None for parameter in learner.pixels.parameters())


def test_pixels_are_taught_beside_prompts():
    model, batch = build_model("sam2_pipeline_small"), next(loaded(config("data.image_share=0"))).batch(0)
    alone, _ = gradients(ClipLearner(model, LossSection()), batch)
    both, _ = gradients(ClipLearner(model, LossSection(pixels=0.5)), batch)
    assert both["total"] == pytest.approx(alone["total"] + 0.5 * both["pixels"], rel=1e-4) and both["pixels"] > 0


def test_a_pixel_asks_where_it_is_and_all_answer():
    teacher = PixelTeacher(build_model("sam2_pipeline_small").config)
    truth = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth[0, 40:44, 8:12] = truth[1, 60:, 60:] = True  # a single place each
    shapes = ((128, 4), (32, 8), (16, 16))
    features = FrameFeatures(*(torch.randn(2, channels, side, side) for channels, side in shapes))
    [logits] = teacher.logits(teacher(features), 1, torch.tensor([1, 0]), truth, torch.rand(2, 4))
    assert logits.shape == (2, 4, 16, 16) and torch.equal(logits, logits[:, :1].expand_as(logits))  # all four stand there
    # What a pixel is asked depends on who asks, and a mask on its own picture alone.
    changed = replace(features, stride4_VCHW=features.stride4_VCHW.index_fill(0, torch.tensor([0]), 0.0))
    [again] = teacher.logits(teacher(changed), 1, torch.tensor([1, 0]), truth, torch.rand(2, 4))
    assert torch.equal(again[0], logits[0]) and not torch.allclose(again[1], logits[1])


def test_pixels_of_the_first_frame_ask_all_frames():
    teacher = PixelTeacher(build_model("sam2_pipeline_small").config)
    first, later = (FrameFeatures(*(torch.randn(1, channels, side, side) for channels, side in ((128, 4), (32, 8), (16, 16))))
                    for _ in range(2))  # fmt: skip
    levels = ((one.stride16_VDHW, one.stride8_VCHW, one.stride4_VCHW) for one in (first, later, later))
    clip = FrameFeatures(*(torch.cat(level) for level in zip(*levels, strict=True)))
    truth = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    truth[0, 0, 8:12, 8:12] = truth[1, 0, 40:44, 20:24] = True  # on the third frame it is not there
    lanes, draws = torch.tensor([0]), torch.rand(1, 4)
    losses, masks = teacher.losses(clip, lanes, truth, draws, LossSection())
    assert losses.shape == (3, 1) and masks.shape == (3, 1, 16, 16)
    assert (losses[:2] > 0).all() and losses[2] == 0 and torch.equal(masks[1], masks[2])
    asked = teacher(first).asking_VEP[0, :, 2 * 16 + 2] @ teacher(later).answering_VEP[0]
    torch.testing.assert_close(masks[1, 0].flatten(), teacher.sharpness * asked + teacher.bias)


class SomeEmpty:
    """Videos of which only the last shows an object; the first cannot be read."""

    def __init__(self, good: int = 3) -> None:
        self.good = good

    def __len__(self) -> int:
        return 4

    def read(self, index, request, rng):
        if index == 0:
            raise VideoError("video 0 is broken")
        shape = (request.frames, 1, 64, 64)
        masks = np.zeros(shape, bool)
        masks[..., 10:40, 10:40] = True
        return Clip(np.zeros((request.frames, 64, 64, 3), np.uint8), masks) if index == self.good else None


def test_clips_without_objects_are_skipped_and_counted():
    examples = Examples(config(), SomeEmpty())
    found = [examples[step, slot] for step in range(4) for slot in range(2)]
    assert sum(example.skipped for example in found) > 4
    assert all(example.masks_TNSS[0].any() for example in found)
    with pytest.raises(ConfigError, match=r"50 clips in a row cannot be learnt from; .*video 0 is broken"):
        Examples(config(), SomeEmpty(good=9))[0, 0]


# ---------------------------------------------------------------------------------------------------------------- prompts


def square_truth() -> torch.Tensor:
    truth = torch.zeros(1, 64, 64, dtype=torch.bool)
    truth[:, 10:20, 30:50] = True
    return truth


def test_clicks_fall_where_the_mask_is_wrong_and_everywhere_there():
    truth = square_truth().expand(400, -1, -1)
    predicted = truth.clone()
    predicted[:, 10:20, 30:40] = False  # missed
    predicted[:, 40:50, 5:15] = True  # too much
    points, labels = clicks.correction_clicks(predicted, truth, (torch.arange(400) + 0.5) / 400)
    x, y = points[:, 0].long().unbind(-1)
    assert (predicted ^ truth)[torch.arange(400), y, x].all()
    assert torch.equal(labels[:, 0] == OBJECT, truth[torch.arange(400), y, x])
    assert (labels == BACKGROUND).float().mean() == 0.5  # both errors are equally large
    assert len(set(zip(x.tolist(), y.tolist()))) == 200  # every wrong pixel


def test_clicks_on_faultless_and_absent_objects_and_full_pictures():
    truth = torch.cat((square_truth(), torch.zeros(1, 64, 64, dtype=torch.bool), torch.ones(1, 64, 64, dtype=torch.bool)))
    for draw in (0.0, 0.3, 0.999999):
        points, labels = clicks.correction_clicks(truth, truth, torch.full((3,), draw))
        assert labels[:, 0].tolist() == [BACKGROUND, BACKGROUND, OBJECT]
        assert points.min() >= 0 and points.max() < 64
    assert clicks.first_clicks(truth, torch.full((3,), 0.5))[1][:, 0].tolist() == [OBJECT, BACKGROUND, OBJECT]


def test_boxes_are_about_right():
    exact, labels = clicks.boxes(square_truth(), torch.full((1, 4), 0.5))
    assert exact[0].tolist() == [[30, 10], [49, 19]] and labels.tolist() == [[2, 3]]
    far, _ = clicks.boxes(square_truth(), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    assert torch.allclose(far[0], torch.tensor([[31.9, 10.9], [47.1, 18.1]]))


# ---------------------------------------------------------------------------------------------------------------- losses


def candidates(logits: torch.Tensor, score: float = 5.0) -> Candidates:
    ious = torch.full(logits.shape[:2], 0.5, requires_grad=True)
    return Candidates(logits, ious, torch.full((len(logits),), score, requires_grad=True), torch.zeros(len(logits), 8))


def test_only_the_best_candidate_learns_from_the_mask():
    truth = square_truth()
    right = truth.float() * 12 - 6
    logits = torch.stack((-right, right, torch.zeros_like(right)), dim=1).requires_grad_()
    found = candidates(logits)
    losses = mask_losses(found, truth, LossSection(), 1)
    losses.total.backward()
    assert [bool(grad.any()) for grad in logits.grad[0]] == [False, True, False]
    assert (found.predicted_iou_NK.grad != 0).all()  # all scores learn
    assert losses.dice < 0.05 and losses.iou == pytest.approx((0.5 + 0.5 + 0.5) / 3, abs=0.06)


def test_absent_objects_teach_presence_alone():
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    found = candidates(logits)
    losses = mask_losses(found, torch.zeros(1, 64, 64, dtype=torch.bool), LossSection(), 1)
    losses.total.backward()
    assert not logits.grad.any() and not found.predicted_iou_NK.grad.any()
    assert losses.total.item() == pytest.approx(5.0067, abs=1e-3)  # log(1 + e^5)
    doubtful = mask_losses(found, torch.zeros(1, 64, 64, dtype=torch.bool), LossSection(doubt=0.1), 1)
    assert doubtful.total.item() == pytest.approx(4.5067, abs=1e-3)  # less 0.1 * 5


def test_the_ground_teaches_that_its_masks_are_poor_and_nothing_else():
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    found = candidates(logits)
    empty, ground = torch.zeros(1, 64, 64, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    losses = mask_losses(found, empty, LossSection(), 1, ground, ground)
    losses.total.backward()
    assert not logits.grad.any() and not found.object_score_N.grad.any()
    assert losses.total.item() == losses.iou.item() == pytest.approx(0.5) and (found.predicted_iou_NK.grad > 0).all()
    assert mask_losses(found, empty, LossSection(), 1, ground).total.item() == 0  # where a box was the prompt


# ---------------------------------------------------------------------------------------------------------------- optimizer


def test_rates_by_depth_and_over_time():
    model = build_model("sam2_pipeline_small")
    optim = OptimSection(lr=1e-3, trunk_lr=1e-4, warmup=10, steps=110, final=0.1)
    rate = {id(p): group["lr"] for group in make_optimizer(model, optim).param_groups for p in group["params"]}
    blocks = model.image_encoder.trunk.blocks
    assert rate[id(blocks[-1].mlp.layers[0].weight)] == pytest.approx(1e-4)
    assert rate[id(blocks[0].mlp.layers[0].weight)] == pytest.approx(1e-4 * 0.9 ** (len(blocks) - 1))
    assert rate[id(model.no_mem_embed)] == 1e-3
    assert len(rate) == len(list(model.parameters()))
    shares = [share_of_rate(optim, step, step / 110) for step in range(111)]
    assert shares[0] == pytest.approx(0.1) and 0.97 < shares[10] < 1 and shares[110] == pytest.approx(0.1)
    assert shares[:10] == sorted(shares[:10]) and shares[10:] == sorted(shares[10:], reverse=True)


def test_the_clock_can_decide_when_a_run_ends(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    stages = "stages=[{share: 0.25, data: {repeats: 3}}, {share: 0.75}]"
    clock = Schedule(config("optim.minutes=1", "optim.warmup=0", stages), seconds=6.0)
    places = clock.places(40)
    assert next(places) == (0, 40) and clock.progress(40) == pytest.approx(0.1) and clock.total(40) == 400
    now[0] += 3
    assert next(places) == (0, 43)
    now[0] += 30
    assert next(places) == (1, 46) and clock.rate(46) < 0.5 and not clock.over(46)
    now[0] += 30
    assert clock.over(46) and not list(places)


def test_muon_is_the_one_of_torch():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (8, 8), (16, 4), (4, 16), (70, 3))]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    mine = Muon([{"params": ours, "lr": 0.01, "weight_decay": 0.1}])
    torchs = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    before = [parameter.detach().clone() for parameter in ours]
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        torchs.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        assert (a - b).norm() < 0.05 * (a - start).norm()  # the iteration is in bfloat16


def test_nothing_but_matrices_decays():
    model = build_model("sam2_pipeline_small")
    kept = {id(p) for g in make_optimizer(model, OptimSection()).param_groups if not g["weight_decay"] for p in g["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in kept and p.ndim > 1}
    assert {"maskmem_tpos_enc", "no_obj_ptr", "sam_mask_decoder.mask_tokens.weight", "image_encoder.trunk.pos_embed"} <= names
    assert not any(".blocks." in name or "patch_embed" in name or "neck" in name for name in names)


def test_frozen_groups():
    model = build_model("sam2_pipeline_small")
    freeze(model, ["image_encoder", "memory"])
    trained = {group_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"decoder", "prompt_encoder"}
    assert not model.sam_mask_decoder.conv_s0.weight.requires_grad, "it is applied to pictures, with the image encoder"
    with pytest.raises(ConfigError, match="something is left to train"):
        freeze(model, ["image_encoder", "memory", "decoder", "prompt_encoder"])
