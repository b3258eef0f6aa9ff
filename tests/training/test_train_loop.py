"""Whole runs: they learn, stop anywhere and continue, and say what is wrong."""

import csv
import multiprocessing
import os
import signal
import time

import pytest
import safetensors.torch
import torch

from sam2_pipeline import cli
from sam2_pipeline.errors import CheckpointError, ConfigError, PipelineError
from sam2_pipeline.model.checkpoint import build_model, load_model
from sam2_pipeline.training import trainer
from sam2_pipeline.training.settings import TrainConfig
from sam2_pipeline.training.show import announce
from sam2_pipeline.training.trainer import Progress, train

TINY = (
    "model.checkpoint=null",
    "data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.num_scenes=6", "data.frames=3",
    "data.max_stride=1", "data.objects=2", "prompts.corrections=1", "optim.steps=6", "optim.warmup=2", "run.log_every=1",
    "run.save_every=2", "run.pictures_every=3",
)  # fmt: skip


def config(folder, *overrides: str) -> TrainConfig:
    return TrainConfig.load(None, [*TINY, f"run.output={folder}", *overrides])


def log(folder) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in csv.DictReader(file)]


def test_one_clip_is_learnt_by_heart(tmp_path):
    clip = ("data.batch=1", "data.num_scenes=1", "data.frames=2", "data.objects=1", "data.image_share=0", "data.min_area=0.03",
            "data.augment=false", "prompts.mask=0", "prompts.conditioning_frames=1", "optim.clip=1", "optim.lr=1e-3",
            "optim.trunk_lr=1e-3", "optim.steps=45", "run.save_every=100", "run.pictures_every=100")  # fmt: skip
    train(config(tmp_path, *clip))
    losses = [float(row["total"]) for row in log(tmp_path)]
    assert sum(losses[-5:]) / 5 < 0.4 * losses[0]


def _train_in_process(folder) -> None:
    torch.set_num_threads(1)
    train(config(folder))


def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(config(whole))
    process = multiprocessing.get_context("spawn").Process(target=_train_in_process, args=(killed,))
    process.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not (killed / "log.csv").exists() or len(log(killed)) < 3):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert 3 <= len(log(killed)) < 6 and (killed / "checkpoint.pt").exists()
    train(config(killed))
    assert log(killed) == log(whole)
    assert (killed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert sorted(p.name for p in (whole / "pictures").iterdir()) == ["0000003.png", "0000006.png"]


@pytest.mark.parametrize("more", [(), ("model.freeze=[image_encoder]", "data.augment=false")], ids=["learning", "frozen"])
def test_a_stopped_run_finds_what_its_steps_look_back_at(tmp_path, more):
    """Stages, and batches that serve several steps in turn with those before them; what a frozen encoder saw of them, too."""
    stages = "stages=[{share: 0.5, data: {frames: 1, repeats: 2}}, {share: 0.5, data: {repeats: 3}}]"
    settings = ("optim.steps=12", "run.save_every=3", stages, *more)
    train(config(tmp_path / "whole", *settings))

    def stop(progress: Progress) -> None:
        if progress.step in (5, 11):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path / "stopped", *settings), stop)
    train(config(tmp_path / "stopped", *settings))
    assert log(tmp_path / "stopped") == log(tmp_path / "whole") and len(log(tmp_path / "whole")) == 12


def test_the_weights_can_be_loaded_and_started_from(tmp_path):
    weights = train(config(tmp_path / "a", "optim.steps=1"))
    assert weights.stat().st_size < 16e6
    loaded = load_model("sam2_pipeline_small", checkpoint=weights, device="cpu")
    frozen = ("image_encoder", "memory")
    again = ("optim.steps=1", f"model.checkpoint={weights}", f"model.freeze=[{', '.join(frozen)}]", "run.seed=1")
    then = load_model("sam2_pipeline_small", checkpoint=train(config(tmp_path / "b", *again)), device="cpu")
    assert torch.equal(loaded.no_mem_embed, then.no_mem_embed)
    assert not torch.equal(loaded.sam_mask_decoder.mask_tokens.weight, then.sam_mask_decoder.mask_tokens.weight)


def test_training_begins_with_the_models_own_weights(tmp_path, monkeypatch):
    """A model trained on from random weights by mistake would take days to be noticed."""
    assert TrainConfig().model.checkpoint == "pretrained"
    started = trainer.start_model(config(tmp_path, "model.checkpoint=pretrained"))
    own = load_model("sam2_pipeline_small", device="cpu").state_dict()
    assert all(torch.equal(value, own[name]) for name, value in started.state_dict().items())
    random = trainer.start_model(config(tmp_path, "model.checkpoint=null")).state_dict()
    assert not torch.equal(random["no_mem_embed"], own["no_mem_embed"])
    asked = []
    monkeypatch.setattr(
        trainer, "load_model", lambda name, **options: (asked.append((name, options["checkpoint"])), build_model(name))[1]
    )
    trainer.start_model(config(tmp_path, "model.checkpoint=pretrained", "model.name=sam2.1_hiera_tiny"))
    assert asked == [("sam2.1_hiera_tiny", None)], "an official model's are downloaded"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "sam2_pipeline_small from its pretrained weights, on synthetic scenes"),
        (
            ("model.checkpoint=null", "model.freeze=[decoder]"),
            "sam2_pipeline_small from random weights, decoder frozen, on synthetic",
        ),
        (("model.name=sam2.1_hiera_tiny",), "optim.lr is 0.0005: Meta fine-tuned these weights with 5e-6"),
        (("model.checkpoint=a.pt", "data.kind=davis", "data.root=DAVIS"), "sam2_pipeline_small from a.pt, on davis in DAVIS"),
    ],
)
def test_a_run_says_what_it_starts_from(overrides, said, capsys):
    announce(TrainConfig.load(None, overrides))
    assert said in capsys.readouterr().err


def test_a_run_that_is_continued_says_so(tmp_path, capsys):
    there = config(tmp_path)
    announce(there)
    assert "from random weights" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").touch()
    announce(there)
    assert f"sam2_pipeline_small continued from {tmp_path / 'checkpoint.pt'}, on synthetic scenes" in capsys.readouterr().err


def test_a_frozen_image_encoder_looks_at_a_picture_once(tmp_path, monkeypatch):
    """And what comes of it is what comes of looking again in every step."""
    looks: list[int] = []
    see_frames = trainer.see_frames
    monkeypatch.setattr(trainer, "see_frames", lambda model, frames: (looks.append(len(frames)), see_frames(model, frames))[1])
    frozen = ("model.freeze=[image_encoder]", "data.repeats=3", "data.augment=false", "optim.steps=7")
    train(config(tmp_path / "once", *frozen))
    assert looks == [2, 2, 2]  # for the steps 0, 3 and 6, of two clips each
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_batch", lambda self, material, repeat: material.batch(repeat))
        train(config(tmp_path / "again", *frozen))
    once, again = ([float(row["total"]) for row in log(tmp_path / name)] for name in ("once", "again"))
    assert len(once) == 7 and once == pytest.approx(again, rel=1e-3)
    train(config(tmp_path / "varied", "model.freeze=[image_encoder]", "data.repeats=3", "optim.steps=3"))
    train(config(tmp_path / "learning", "data.repeats=3", "data.augment=false", "optim.steps=3"))
    assert len(looks) == 3


def test_the_teacher_of_pixels_goes_on_where_an_earlier_run_left_it(tmp_path):
    pixels = ("optim.steps=1", "loss.pixels=1.0")
    train(config(tmp_path / "a", *pixels))
    taught = tmp_path / "a" / "teacher.safetensors"
    anew, continued = (
        trainer.Trainer(config(tmp_path / name, *pixels, *more), lambda progress: None).learner.pixels.state_dict()
        for name, more in (("b", ()), ("c", (f"model.teacher={taught}",)))
    )
    left = safetensors.torch.load_file(taught)
    assert all(torch.equal(continued[name], left[name]) for name in left)
    assert not torch.equal(anew["vectors.weight"], left["vectors.weight"])
    with pytest.raises(CheckpointError, match="is no teacher of this model: it holds"):
        train(config(tmp_path / "d", *pixels, f"model.teacher={tmp_path / 'a' / 'weights.safetensors'}"))


def test_a_loss_that_is_no_number_is_lost_and_stops_the_run_if_it_stays_so(tmp_path):
    before = []

    def report(progress: Progress) -> None:
        bias = running.model.image_encoder.neck.convs[1].conv.bias
        with torch.no_grad():
            if progress.step == 1:
                kept.append(bias.clone())
                bias.fill_(float("nan"))
            elif progress.step == 2:
                bias.copy_(kept[0])
            elif progress.step == 5:  # after step 4 was saved
                before.append((tmp_path / "checkpoint.pt").read_bytes())
                bias.fill_(float("nan"))

    kept: list[torch.Tensor] = []
    running = trainer.Trainer(config(tmp_path, "optim.steps=12", "run.save_every=4"), report)
    with pytest.raises(PipelineError, match="the gradients of 5 steps in a row are not finite"):
        running.run()
    assert [row["lost"] for row in log(tmp_path)][:6] == ["0", "1", "1", "1", "1", "2"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before[0]
    assert trainer.Trainer(config(tmp_path, "optim.steps=12", "run.save_every=4"), lambda _: None).lost == 1  # it is remembered


def test_other_settings_or_a_damaged_checkpoint_do_not_continue(tmp_path):
    train(config(tmp_path, "optim.steps=2"))
    with pytest.raises(ConfigError, match=r"optim.lr = 0.0005, now it is 0.1"):
        train(config(tmp_path, "optim.steps=2", "optim.lr=0.1"))
    content = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be continued"):
        train(config(tmp_path, "optim.steps=2"))


def test_the_verb(tmp_path, capsys):
    overrides = [argument for setting in (*TINY, "optim.steps=1") for argument in ("--set", setting)]
    assert cli.main(["train", "--output", str(tmp_path / "out"), *overrides]) == 0
    said = capsys.readouterr()
    assert f"weights: {tmp_path / 'out' / 'weights.safetensors'}" in said.out
    assert "1/1 steps, loss " in said.err
    assert cli.main(["train", "--output", str(tmp_path / "x"), "--set", "data.kind=sav", "--set", f"data.root={tmp_path}"]) == 2
    assert "holds no annotated video" in capsys.readouterr().err


def test_training_and_inference_decode_alike():
    """The best candidate of the trainer's decoding is what the model's own verb gives."""
    from sam2_pipeline.training.decoding import decode_candidates

    torch.manual_seed(0)
    model = build_model("sam2_pipeline_small", image_size=128)
    features = model.encode_frames(torch.randn(2, 3, 128, 128))
    lanes = torch.tensor([0, 1, 1])
    embedding = model.attend_memory(features, lanes, None)
    points, labels = torch.rand(3, 1, 2) * 128, torch.ones(3, 1, dtype=torch.long)
    theirs = model.decode_masks(embedding, features, lanes, points, labels)
    ours = decode_candidates(model, embedding, features, lanes, (points, labels))
    assert torch.allclose(ours.shown_logits(), theirs.logits_NHW, atol=1e-5)
    assert torch.allclose(ours.pointer_ND, theirs.pointer_ND, atol=1e-5)
    assert torch.allclose(ours.object_score_N, theirs.object_score_N)
