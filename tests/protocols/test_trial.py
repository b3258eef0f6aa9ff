"""Protocols with a network, on clips of every kind, by the verb too."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from oracle import FRAMES, HEIGHT, WIDTH, square, two_squares
from PIL import Image
from random_weights import save_random_weights

from sam2_pipeline import cli
from sam2_pipeline.config import JobConfig
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation.result import Failure
from sam2_pipeline.evaluation.scores import score_video
from sam2_pipeline.masklets.masklet import Masklet, MaskletFrame, MaskletSeed
from sam2_pipeline.masklets.prompts import Prompt
from sam2_pipeline.masklets.rle import Rle, decode
from sam2_pipeline.masklets.verdict import Judgement
from sam2_pipeline.pipeline.driver import run_job
from sam2_pipeline.pipeline.factory import ModelFactory
from sam2_pipeline.protocols.clips import SyntheticClips, open_clips, scene_options
from sam2_pipeline.protocols.interactive import Effort
from sam2_pipeline.protocols.late import Discovered, LateObject, figures
from sam2_pipeline.protocols.prompted import Interaction
from sam2_pipeline.protocols.prompting import true_objects
from sam2_pipeline.protocols.result import notes, summarise
from sam2_pipeline.protocols.scenery import on_scenery
from sam2_pipeline.protocols.shots import ShotChange, ShotScore
from sam2_pipeline.protocols.trial import ClipResult, Trial, play_all
from sam2_pipeline.segment.collect import collect_frame
from sam2_pipeline.segment.inputs import ArrayFrames
from sam2_pipeline.training.synthetic import SceneOptions, make_scene
from sam2_pipeline.training.synthetic.files import make_dataset

SCENES = SceneOptions(size=(96, 128), frames=5, objects=(2, 2), late=0, parts=0)
MODEL = ["--model", "sam2_pipeline_small", "--image-size", "128", "--device", "cpu"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_random_weights(tmp_path_factory.mktemp("weights") / "weights.safetensors")


@pytest.fixture(scope="module")
def trial(weights):
    settings = {"model.name": "sam2_pipeline_small", "model.checkpoint": str(weights), "model.image_size": 128}
    config = JobConfig.load(None, ["model.device=cpu"], settings, {})
    names = ("mask", "clicks-2", "offline", "online")
    return Trial(SyntheticClips(2, SCENES), names, ModelFactory(config), Effort(2, 2), 0.001)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two synthetic clips as mp4 with SA-V JSON, and as pictures in the layout of DAVIS."""
    root = tmp_path_factory.mktemp("files")
    for clip, scene in zip(make_dataset(root, range(2), SCENES), map(_scene, range(2))):
        folder = root / "JPEGImages" / clip.pictures.name
        folder.mkdir(parents=True)
        for t in range(scene.num_frames):
            Image.fromarray(scene.frame(t)).save(folder / f"{t:05d}.jpg")
    return root


def _scene(seed):
    return make_scene(seed, SCENES)


def _main(*arguments):
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def test_a_protocol_is_tracking_and_scoring(trial):
    """The mask protocol, done by hand."""
    clips, scene = trial.clips, _scene(0)
    truth = clips.read("synthetic_000000")
    session = trial.segmenter.open([scene.frame(t) for t in range(scene.num_frames)])
    for number in truth:
        session.prompt(Prompt(number, 0, mask=truth[number][0]))
    masks = {number: {} for number in truth}
    for result in session.propagate():
        for number, mask in collect_frame(result).masks.items():
            masks[number][result.frame_index] = mask.rle
    expected = score_video("synthetic_000000", masks, truth)
    [done] = trial("synthetic_000000").rounds["mask"]
    assert done.score.objects == expected.objects and len(expected.objects) == 2
    assert all(0 < one.j < 1 for one in expected.objects)
    assert done.frames == {0: 1, 1: 1} and done.clicks == {0: 0, 1: 0}


@pytest.mark.parametrize("name", ["offline", "online"])
def test_what_is_scored_on_clicked_frames_is_what_the_user_saw(trial, name, monkeypatch):
    seen, click = {}, Interaction.click

    def watched(self, one, frame, predicted, clicks):
        seen[one.object_id, frame] = click(self, one, frame, predicted, clicks)
        return seen[one.object_id, frame]

    monkeypatch.setattr(Interaction, "click", watched)
    objects = true_objects(trial.clips.read("synthetic_000001"), 0.001)
    with trial.clips.open("synthetic_000001") as frames:
        *_, played = trial._played(name, frames, objects)
    clicked = {(number, prompt.frame_index) for number, prompts in played.prompts.items() for prompt in prompts}
    assert len(clicked) == 4  # two objects on two frames
    assert all(played.masks[number][frame] == seen[number, frame] for number, frame in clicked)


def test_processes_find_the_same_and_figures_are_means_over_objects(trial):
    seen = []
    alone, together = play_all(trial), play_all(trial, 2, lambda *done: seen.append(done))
    assert together == alone and seen == [(1, 2), (2, 2)]
    found = summarise(trial, "small", "0" * 64, 128, alone)
    assert [one.name for one in found.protocols] == list(trial.protocols) and found.clips == 2
    mask, clicks, offline, online = found.protocols
    assert len(mask.objects) == len(clicks.objects) == 4
    assert mask.scores.jf == pytest.approx(np.mean([one.jf for clip in alone for one in clip.rounds["mask"][0].score.objects]))
    assert (mask.clicks, mask.frames, clicks.clicks, clicks.frames) == (0, 1, 2, 1)
    assert len(offline.rounds) == 2 and (offline.clicks, offline.frames) == (4, 2)
    assert 1 <= online.frames <= 2
    # The first round of the offline protocol is the protocol with as many clicks.
    assert [one.jf for one in offline.rounds[0].objects] == [one.jf for one in clicks.objects]
    written = json.loads(json.dumps(found.to_json()))
    assert written["protocols"][2]["J&F_after_prompted_frames"] == [one.jf for one in offline.rounds]
    assert written["protocols"][0]["videos"][0]["objects"][0]["frames"] == 3  # of 5: the prompted and the last do not count


class Stand:
    """Generates masklets that are given."""

    def __init__(self, masks, judgement=None):
        self.masks, self.judgement = masks, judgement

    def find_cuts(self, frames):
        return [4]

    def generate(self, frames):
        return [
            Masklet("", MaskletSeed(number, "auto", Prompt(number, 0, [[1, 1]], [1])),
                    tuple(MaskletFrame(t, 0.0, rle, 1.0, 1.0, 1.0) for t, rle in of_frame.items()), judgement=self.judgement)
            for number, of_frame in self.masks.items()
        ]  # fmt: skip


class Squares:
    url, video_ids = "squares", ("v",)

    def __init__(self, truth, scenery=None):
        self.truth, self.regions = truth, scenery or {}

    def read(self, video_id):
        return self.truth

    def scenery(self, video_id):
        return self.regions

    def changes(self, video_id):
        return (ShotChange(3, 4),)


def test_automatic_masklets_are_matched_with_what_is_visible_at_first(trial):
    truth = two_squares() | {9: {t: square(20, 40, 2) for t in range(FRAMES)}}
    empty = dict.fromkeys(range(FRAMES), Rle.empty(HEIGHT, WIDTH))
    # Object 1 is there until frame 5; a masklet that goes on then has the mean IoU of 1 over the frames where it is visible.
    truth[1] = truth[1] | {6: empty[6], 7: empty[7]}
    found = {
        0: {t: square(4, 4 + t, 16) for t in range(FRAMES)},
        1: truth[4],  # late, so not asked for, but not spurious either
        2: {t: square(4, 5 + t, 16) for t in range(FRAMES)},  # a duplicate of the first
        3: {t: square(30, 50, 9) for t in range(FRAMES)},  # nothing
        4: empty,  # never visible: no masklet
    }
    playing = replace(trial, clips=Squares(truth), protocols=("automatic",), min_area=0.01)
    playing.__dict__["generator"] = Stand(found)
    played = playing._play_automatic("v", truth, None)
    score = played.score
    assert played.discovered == Discovered((LateObject(4, 3, 1.0, 3),), 4, 1)  # the second begins exactly; one duplicate
    assert played.shots == ShotScore(changes=1, found=1, claimed=1, masklets=4, crossing=4)  # a sliver of the second, too
    assert [one.object_id for one in score.objects] == [1]
    assert score.objects[0].partner.visible_iou == 1 and score.objects[0].partner.mean_iou == 0.75
    assert (score.predicted, score.spurious, score.left_aside) == (4, 2, 2)
    with_specks = replace(playing, min_area=0.0)
    with_specks.__dict__["generator"] = Stand(found)
    assert [one.object_id for one in with_specks._play_automatic("v", truth, None).score.objects] == [1, 9]


def test_masklets_of_scenery_are_neither_spurious_nor_judged(trial):
    truth = two_squares()
    whole = {t: square(0, 0, 24) for t in range(FRAMES)}
    found = {
        0: {t: square(4, 4 + t, 16) for t in range(FRAMES)},  # an object
        1: {t: square(1, 1, 22) for t in range(FRAMES)},  # most of a region
        2: {t: square(30, 50, 9) for t in range(FRAMES)},  # nothing
        3: {t: square(4, 4, 12) for t in range(FRAMES)},  # a quarter of the region
    }
    playing = replace(trial, clips=Squares(truth, {0: whole}), protocols=("automatic",), min_area=0.01)
    playing.__dict__["generator"] = Stand(found, Judgement(None, None, "accept"))
    played = playing._play_automatic("v", truth, None)
    assert (
        on_scenery(found, truth, {0: whole}) == {1} and on_scenery(found, truth, {}) == on_scenery({}, truth, {0: whole}) == set()
    )
    assert (played.on_scenery, played.score.predicted, played.score.spurious) == (1, 4, 2)
    assert [one.masklet_id for one in played.judged] == [0, 2, 3]
    clip = ClipResult("v", {"automatic": (played,)})
    [protocol] = summarise(playing, "m", "0" * 64, 128, [clip]).protocols
    assert protocol.on_scenery == protocol.to_json()["masklets_on_scenery"] == 1
    assert any("1 masklets are of scenery" in note for note in notes(summarise(playing, "m", "0" * 64, 128, [clip])))


def test_late_objects_are_found_whole_and_in_time():
    ghost = Discovered((), 2, 0)
    found = LateObject(1, 5, 0.9, 7)
    late, poor, missed = LateObject(2, 5, 0.9, 9), LateObject(3, 5, 0.6, 5), LateObject(4, 5, 0.0, None)
    assert [one.found for one in (found, late, poor, missed)] == [True, False, False, False]
    seen = figures([Discovered((found, late), 5, 1), Discovered((poor, missed), 3, 0), ghost])
    assert seen == {
        "late_objects": 4,
        "late_found": 0.25,
        "late_recall_0.7_over_visible_frames": 0.5,
        "late_first_frame_error_mean": 3.0,
        "duplicates": 1,
        "duplicates_share": 0.1,
    }
    assert figures([])["late_found"] is None and figures([])["duplicates_share"] is None


def test_clips_of_every_kind(files, weights, tmp_path, trial):
    sav, davis = open_clips(str(files / "videos")), open_clips(str(files / "Annotations"))
    settings = ["model.name=sam2_pipeline_small", f"model.checkpoint={weights}", "model.image_size=128", "generate.crop_grids=[]",
                "generate.points_per_side=2", "generate.max_objects=2", "generate.pred_iou_thresh=0", "ray.address=off",
                "generate.stability_score_thresh=0"]  # fmt: skip
    config = JobConfig.load(None, settings, {"input": str(files / "videos"), "output": str(tmp_path / "out")}, {})
    assert run_job(config).exit_code == 0
    tables = open_clips(str(tmp_path / "out"), most=1)
    elsewhere = open_clips(str(files / "Annotations"), videos=str(files / "videos"))
    assert sav.video_ids == davis.video_ids == elsewhere.video_ids == ("synthetic_000000", "synthetic_000001")
    assert tables.video_ids == ("synthetic_000000",)
    for clips in (sav, davis, tables, elsewhere):
        with clips.open("synthetic_000000") as frames:
            assert (frames.height, frames.width, frames.num_frames) == (96, 128, 5)
            shown = next(iter(frames.frames(0, 1))).image.astype(int)
        assert np.abs(shown - _scene(0).frame(0)).mean() < 12  # compressed
        assert isinstance(replace(trial, clips=clips, protocols=("click",))("synthetic_000000").rounds, dict)
    assert {i: decode(m[0]).sum() for i, m in sav.read("synthetic_000000").items()} == {
        i: mask.sum() for i, mask in enumerate(_scene(0).masks(0))
    }
    (tmp_path / "masks").symlink_to(files / "Annotations")
    with pytest.raises(ConfigError, match="where are its videos"):
        open_clips(str(tmp_path / "masks"))


def test_videos_that_do_not_fit_their_masks_are_failures(trial):
    class Wrong(Squares):
        def open(self, video_id):
            return nullcontext(ArrayFrames([np.zeros((HEIGHT, self.width, 3), np.uint8)] * 3))

    clips = Wrong(two_squares())
    clips.width = WIDTH
    failed = replace(trial, clips=clips)("v")
    assert failed == Failure("v", "object 1 has a true mask on frame 3, the video has 3 frames")
    clips.width = WIDTH + 1
    assert "is 40x64, the video 40x65" in replace(trial, clips=clips)("v").reason
    nothing = Squares({1: {0: Rle.empty(HEIGHT, WIDTH)}})
    nothing.open = lambda video_id: Wrong.open(clips, video_id)
    clips.width = WIDTH
    [done] = replace(trial, clips=nothing, protocols=("mask",))("v").rounds["mask"]
    assert done.score.objects == () and done.score.left_aside == 1


def test_the_verb(weights, tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = [
        "evaluate",
        "synthetic",
        "--protocol",
        "click",
        "--protocol",
        "automatic",
        "--clips",
        "1",
        "--workers",
        "1",
        *MODEL,
    ]
    scene = [
        "--scene",
        "size=[96, 128]",
        "--scene",
        "frames=3",
        "--set",
        "generate.points_per_side=2",
        "--set",
        "generate.crop_grids=[]",
    ]
    judge = ["--set", "judge.enabled=true"]
    assert _main(*arguments, *scene, *judge, "--checkpoint", weights, "--json", report) == 0
    said = capsys.readouterr().out
    assert "accepted are good" in said and "click: reasons of verdicts: " in said
    assert "sam2_pipeline_small (128 pixels) on 1 clips of synthetic" in said and "spurious" in said
    written = json.loads(report.read_text())
    assert [one["protocol"] for one in written["protocols"]] == ["click", "automatic"]
    assert written["min_area"] == 0.001 and len(written["weights_sha256"]) == 64
    assert "recall_0.75_over_visible_frames" in written["protocols"][1]
    verdicts = written["protocols"][0]["verdicts"]
    assert verdicts["masklets"] == len(verdicts["each"]) == sum(verdicts["counts"].values()) > 0
    for one in verdicts["each"]:
        assert 0 <= one["iou"] <= 1 and one["verdict"] in ("accept", "refine", "reject")
        assert {"cycle_iou", "reprompt_iou", "flicker", "stability_score_mean"} <= set(one)


def test_the_verb_with_a_video_that_is_missing(files, weights, tmp_path, capsys):
    truth = tmp_path / "some"
    truth.mkdir()
    for name in ("synthetic_000000.mp4", "synthetic_000000_manual.json", "synthetic_000001_manual.json"):
        (truth / name).symlink_to(files / "videos" / name)
    assert _main("evaluate", truth, "--protocol", "mask", "--workers", "1", *MODEL, "--checkpoint", weights) == 3
    said = capsys.readouterr()
    assert "not scored: synthetic_000001" in said.err and "on 1 clips" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic"], "expected PREDICTIONS and GROUND_TRUTH, or GROUND_TRUTH and --protocol"),
        (["a", "b", "--protocol", "mask"], "expected GROUND_TRUTH alone, not b, too"),
        (["a", "--protocol", "mask", "--match", "greedy"], "--match and --common are for PREDICTIONS"),
        (["a", "b", "--model", "sam2.1_hiera_tiny"], "--model and --checkpoint are for --protocol"),
        (["synthetic", "--protocol", "guess"], "unknown protocol 'guess', expected one of mask, box, click"),
        (
            ["synthetic", "--protocol", "mask", "--scene", "frame=3"],
            "unknown setting --scene.frame; did you mean --scene.frames?",
        ),
        (["synthetic", "--protocol", "mask", "--scene", "frames=x"], "--scene.frames is 'x', expected a whole number"),
        (["synthetic", "--protocol", "mask", "--clips", "0"], "--clips is 0"),
        (["synthetic", "--protocol", "mask", "--min-area", "2"], "the smallest area is 2.0"),
        (["synthetic", "--protocol", "offline", "--max-frames", "0"], "3 clicks on 0 frames"),
        (["synthetic", "--protocol", "mask", "--model", "sam3"], "unknown model 'sam3'"),
        (["synthetic", "--protocol", "mask", "--checkpoint", "/nowhere.pt"], "/nowhere.pt"),
        (["/nowhere", "--protocol", "mask"], "/nowhere"),
    ],
)
def test_bad_usage(capsys, arguments, message):
    assert _main("evaluate", *arguments) in (1, 2)
    said = capsys.readouterr()
    assert message in said.err and said.out == "" and said.err.count("\n") == 1


def test_scene_options_are_typed():
    assert scene_options(["size=[96, 128]", "late=0", "frames=3"]) == SceneOptions(size=(96, 128), late=0.0, frames=3)
