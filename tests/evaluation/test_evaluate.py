"""Whole sets: means over objects, videos of one side, processes, and the verb."""

import json
import re

import numpy as np
import pytest
from mask_forms import WRITERS, disc, moving_discs, write_palette, write_sav, write_tables

from sam2_pipeline import cli
from sam2_pipeline.errors import ConfigError
from sam2_pipeline.evaluation.evaluate import evaluate
from sam2_pipeline.formats.sources import open_masks

TRUE = {"a": moving_discs(), "b": {5: {f: disc(9, 9, 5) for f in range(0, 24, 4)}}, "c": moving_discs(shift=1)}
PREDICTED = {video_id: moving_discs(shift=1) for video_id in "ac"}
PREDICTED["b"] = {5: {f: disc(9, 10, 5) for f in range(0, 24, 4)}}


def _main(*arguments):
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Predictions and truth in every form."""
    root = tmp_path_factory.mktemp("places")
    return {
        (side, name): write(root / side / name, videos)
        for side, videos in (("predicted", PREDICTED), ("true", TRUE))
        for name, write in WRITERS.items()
    }


def _numbers(found):
    return [(one.object_id, one.frames, one.j, one.f) for one in found.objects]


@pytest.mark.parametrize("predicted", WRITERS)
@pytest.mark.parametrize("true", WRITERS)
def test_any_form_against_any_other(places, predicted, true):
    reference = evaluate(open_masks(places["predicted", "tables"]), open_masks(places["true", "tables"]))
    found = evaluate(open_masks(places["predicted", predicted]), open_masks(places["true", true]))
    assert _numbers(found) == _numbers(reference)
    assert [video.video_id for video in found.videos] == ["a", "b", "c"]


def test_the_score_is_the_mean_over_objects(places):
    found = evaluate(open_masks(places["predicted", "sav"]), open_masks(places["true", "sav"]))
    scores = {video.video_id: [(one.j, one.f) for one in video.objects] for video in found.videos}
    assert [len(scores[v]) for v in "abc"] == [2, 1, 2]
    assert scores["c"] == [(1, 1), (1, 1)]
    assert (found.j, found.f) == pytest.approx(tuple(np.mean([pair for one in scores.values() for pair in one], axis=0)))
    assert found.jf == pytest.approx((found.j + found.f) / 2)
    assert found.j != pytest.approx(np.mean([np.mean([j for j, _ in one]) for one in scores.values()]))


def test_processes_find_the_same(places):
    sides = open_masks(places["predicted", "tables"]), open_masks(places["true", "palette"])
    seen = []
    alone = evaluate(*sides, match="greedy")
    together = evaluate(*sides, match="greedy", workers=2, on_video=lambda done, total: seen.append((done, total)))
    assert together == alone
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_videos_of_one_side(tmp_path, places):
    some = open_masks(write_palette(tmp_path / "some", {"a": PREDICTED["a"], "z": PREDICTED["a"]}))
    truth = open_masks(places["true", "palette"])
    found = evaluate(some, truth)
    assert [(failure.video_id, "holds 2 videos (a, z)" in failure.reason) for failure in found.failures] == [
        ("b", True),
        ("c", True),
    ]
    assert (found.left_aside, found.without_truth, len(found.videos)) == (0, 1, 1)
    common = evaluate(some, truth, common=True)
    assert common.failures == () and common.left_aside == 2 and common.videos == found.videos
    with pytest.raises(ConfigError, match=r"no video is on both sides: .* 1 videos \(q\); .* 3 videos \(a, b, c\)"):
        evaluate(open_masks(write_palette(tmp_path / "other", {"q": TRUE["a"]})), truth)
    with pytest.raises(ConfigError, match="workers is 0"):
        evaluate(some, truth, workers=0)


def test_automatic_masklets_need_matching(tmp_path, places):
    automatic = open_masks(write_tables(tmp_path / "auto", PREDICTED, kind="auto"))
    truth = open_masks(places["true", "sav"])
    with pytest.raises(ConfigError, match=r"automatic masklets, whose numbers do not say .* --match hungarian"):
        evaluate(automatic, truth)
    assert evaluate(automatic, truth, match="ids").unpredicted == 3  # masklets 0 and 1 against objects 1 and 2, and 5
    found = evaluate(automatic, truth, match="hungarian")
    by_number = evaluate(open_masks(places["predicted", "sav"]), truth, keep_first_and_last=True)
    assert _numbers(found) == _numbers(by_number)
    assert found.keep_first_and_last
    assert (found.recall(0.5), found.recall(0.99), found.spurious_per_object) == (1, 0.4, 0)
    assert found.recall(0.99, visible_at_first=True) == pytest.approx(1 / 3)  # of a's and c's first, and b's
    assert by_number.recall(0.5) is by_number.spurious_per_object is None


def test_the_verb(places, tmp_path, capsys):
    report = tmp_path / "scores.json"
    assert _main("evaluate", places["predicted", "tables"], places["true", "folders"], "--json", report) == 0
    said = capsys.readouterr().out
    scores = json.loads(report.read_text())
    assert scores["J&F"] == pytest.approx((scores["J"] + scores["F"]) / 2)
    total = re.search(r"all +5 +(\S+) +(\S+) +(\S+)", said).groups()
    assert total == tuple(f"{100 * scores[name]:.1f}" for name in ("J&F", "J", "F"))
    assert "5 objects of 3 videos; first and last true frames do not count" in said
    assert [video["video_id"] for video in scores["videos"]] == ["a", "b", "c"]
    assert scores["videos"][1]["objects"][0]["object_id"] == 5 and scores["objects"] == 5
    assert "recall_0.5" not in scores and scores["failures"] == []


def test_the_verb_with_matching(places, tmp_path, capsys):
    report = tmp_path / "scores.json"
    arguments = [places["predicted", "sav"], places["true", "sav"], "--match", "hungarian", "--workers", "2", "--json", report]
    assert _main("evaluate", *arguments, "--quiet") == 0
    assert capsys.readouterr().out == ""
    scores = json.loads(report.read_text())
    assert scores["recall_0.5"] == 1.0
    assert scores["keep_first_and_last"] and scores["spurious_per_object"] == 0
    assert scores["videos"][0]["objects"][0]["mean_iou"] < 1


def test_videos_that_cannot_be_scored_give_status_3(places, tmp_path, capsys):
    predictions = write_palette(tmp_path / "p", {"a": PREDICTED["a"], "c": moving_discs(range(0, 24, 8))})
    report = tmp_path / "scores.json"
    assert _main("evaluate", predictions, places["true", "palette"], "--json", report) == 3
    said = capsys.readouterr()
    assert "not scored: b: no predictions for it" in said.err and "not scored: c: predicted object 1 has no mask" in said.err
    assert re.search(r"all +2 ", said.out)
    assert [failure["video_id"] for failure in json.loads(report.read_text())["failures"]] == ["b", "c"]
    assert _main("evaluate", predictions, places["true", "palette"], "--common", "--keep-first-and-last") == 3
    assert "1 true videos have no predictions and are left aside" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "/nowhere/scores.json"], "--json /nowhere/scores.json: its folder does not exist"),
        (["--sav", "auto"], "holds no auto masklets"),
        (["--workers", "0"], "workers is 0, expected at least 1"),
        (["--match", "luck"], "invalid choice: 'luck'"),
    ],
)
def test_bad_usage(places, capsys, arguments, message):
    assert _main("evaluate", places["predicted", "sav"], places["true", "sav"], *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == "" and said.err.count("\n") == 1


def test_help(capsys):
    assert _main("evaluate", "--help") == 0
    assert "examples:\n  sam2-pipeline evaluate" in capsys.readouterr().out


def test_nothing_is_visible(tmp_path, capsys):
    place = write_sav(tmp_path, {"v": {1: {f: disc(5, 5, 0) for f in range(4)}}})
    assert _main("evaluate", place, place) == 0
    said = capsys.readouterr().out
    assert re.search(r"all +0 +- +- +-", said) and "1 true objects are visible on no frame" in said
